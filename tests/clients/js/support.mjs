// What the suites share: where the server is, how to reach it, and waits that end.
//
// By hand: npm ci, then
//   FANFARE_URL=http://127.0.0.1:3000 FANFARE_TRANSPORT=polling node --test-reporter=spec socket_io.mjs
import { createRequire } from "node:module";

// the packages are outside the source tree when the suites run inside `cargo test`
const { FANFARE_NODE_MODULES } = process.env;
export const require = createRequire(FANFARE_NODE_MODULES ? `${FANFARE_NODE_MODULES}/` : import.meta.url);
export const { io, Manager } = require("socket.io-client");
export const { Socket: EngineSocket, NodeXHR, NodeWebSocket } = require("engine.io-client");

/** How long anything on this machine may take. Longer than the server's own 2 s limit for an ack. */
export const WAIT_MS = 8000;

export const SERVER_URL = setting("FANFARE_URL");

/** The `transports` option of the clients, by the name of the suite. */
export const TRANSPORTS = {
  polling: ["polling"],
  websocket: ["websocket"],
  upgrade: ["polling", "websocket"],
};

/** What whoever runs this has to say. */
export function setting(name) {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set`);
  return value;
}

/** The transport that this run is about: polling, websocket or upgrade. */
export function transportUnderTest() {
  const name = setting("FANFARE_TRANSPORT");
  if (!(name in TRANSPORTS)) throw new Error(`FANFARE_TRANSPORT=${name}: one of ${Object.keys(TRANSPORTS).join(", ")}`);
  return name;
}

/** Where a connection ends up: an upgrade ends on WebSocket. */
export const finalTransport = (name) => TRANSPORTS[name].at(-1);

/** What ends a socket, a manager or an engine: after it nothing else comes. */
const ENDINGS = ["disconnect", "close"];

/** The arguments of the next `event`. Fails when an ending comes instead, or nothing. */
export async function next(emitter, event, endings = ENDINGS) {
  const [args] = await collect(emitter, event, 1, endings);
  return args;
}

/** The arguments of the next `count` times that `event` comes. */
export function collect(emitter, event, count, endings = ENDINGS) {
  return new Promise((resolve, reject) => {
    const got = [];
    const wanted = () => `"${event}" (${got.length} of ${count} came)`;
    const finish = (settle, value) => {
      clearTimeout(timer);
      for (const [name, listener] of listeners) emitter.off(name, listener);
      settle(value);
    };
    const listeners = endings.filter((name) => name !== event).map((name) => [name, (why) =>
      finish(reject, new Error(`"${name}" (${why?.message ?? why}) instead of ${wanted()}`, { cause: why }))]);
    listeners.push([event, (...args) => {
      if (got.push(args) === count) finish(resolve, got);
    }]);
    const timer = setTimeout(() => finish(reject, new Error(`no ${wanted()} within ${WAIT_MS} ms`)), WAIT_MS);
    for (const [name, listener] of listeners) emitter.on(name, listener);
  });
}

export async function connected(socket) {
  if (!socket.connected) await next(socket, "connect", ["connect_error", "disconnect"]);
}

/** After this the socket is on the last of its transports. */
export async function upgraded(socket, transport) {
  const { engine } = socket.io;
  if (engine.transport.name !== finalTransport(transport)) await next(engine, "upgrade");
}

/** Emits with an ack and gives all arguments of the answer. */
export function call(socket, event, ...args) {
  return new Promise((resolve, reject) => {
    socket.timeout(WAIT_MS).emit(event, ...args, (error, ...answer) => {
      if (error) reject(new Error(`no ack for "${event}" within ${WAIT_MS} ms`));
      else resolve(answer);
    });
  });
}

/** An even item is text, an odd one is binary: both say their number. */
export const mixed = (i) => (i % 2 ? Buffer.from(String(i)) : String(i));
export const unmixed = (data) => Number(typeof data === "string" ? data : Buffer.from(data).toString());
export const upTo = (count) => Array.from({ length: count }, (_, i) => i);
