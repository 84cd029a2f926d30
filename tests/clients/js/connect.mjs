// Sockets for one test: connected over the transport under test, gone when the test ends.
import { Manager, SERVER_URL, TRANSPORTS, call, connected, io, transportUnderTest, upgraded } from "./support.mjs";

export const transport = transportUnderTest();

/** Without automatic reconnection: a connection that is lost should stay visible. */
const OPTIONS = { transports: TRANSPORTS[transport], forceNew: true, reconnection: false };

/** A socket on a connection of its own. Nothing has happened yet. */
export function open(t, namespace = "/", options = {}) {
  const socket = io(SERVER_URL + namespace, { ...OPTIONS, ...options });
  t.after(() => socket.disconnect());
  return socket;
}

/** A connected socket on a connection of its own, after the upgrade when there is one. */
export async function connect(t, namespace = "/", options = {}) {
  const socket = open(t, namespace, options);
  await connected(socket);
  await upgraded(socket, transport);
  return socket;
}

/** One connection for several namespaces: `namespaceOn(manager, "/x")` for each. */
export function openManager(t) {
  const manager = new Manager(SERVER_URL, OPTIONS);
  t.after(() => manager.engine.close());
  return manager;
}

export async function namespaceOn(manager, namespace, options = {}) {
  const socket = manager.socket(namespace, options);
  await connected(socket);
  return socket;
}

/** Why the server thinks that the socket with this id is gone; asked over another socket. */
export async function reasonOf(id, witness) {
  const [reason] = await call(witness, "reason-of", id);
  return reason;
}
