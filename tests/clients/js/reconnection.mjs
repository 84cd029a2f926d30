// Reconnection: clients over each transport, while the server is killed and started again.
// Whoever runs this starts the server again when it reads the line "restart the server".
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { SERVER_URL, TRANSPORTS, call, connected, io, next, upgraded } from "./support.mjs";

const names = Object.keys(TRANSPORTS);
const ready = new Map(names.map((name) => [name, false]));

/** All clients share one restart: the last one that is ready asks for it. */
function readyForRestart(name) {
  ready.set(name, true);
  if ([...ready.values()].every(Boolean)) console.log("restart the server");
}

describe("reconnection", { concurrency: true }, () => {
  for (const name of names) {
    it(`a client over ${name} comes back with a new id and what it wanted to say`, async (t) => {
      const backoff = { reconnectionDelay: 50, reconnectionDelayMax: 200 };
      const socket = io(SERVER_URL, { transports: TRANSPORTS[name], forceNew: true, ...backoff });
      t.after(() => socket.disconnect());
      await connected(socket);
      await upgraded(socket, name);
      const idBefore = socket.id;
      const ended = next(socket, "disconnect");

      readyForRestart(name);
      const [reason] = await ended;
      assert.match(reason, /^transport (close|error)$/);
      const echo = next(socket, "echo");
      socket.emit("echo", "said while the server was away");
      await next(socket, "connect");
      assert.notEqual(socket.id, idBefore);
      assert.deepEqual(await echo, ["said while the server was away"]);
      assert.deepEqual(await call(socket, "echo", 1), [1]);
    });
  }
});
