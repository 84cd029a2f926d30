// Crowd: many clients at once, on all transports side by side, against profile `kit`.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { SERVER_URL, TRANSPORTS, call, connected, io, next, upTo, upgraded } from "./support.mjs";

const CROWD = 200;

/** This many connect side by side: the server gives each only a second to join a namespace. */
const GROUP = 10;

/** Of each ten clients six speak WebSocket, two have upgraded to it and two poll. */
const MIX = [...Array(6).fill("websocket"), "upgrade", "upgrade", "polling", "polling"];

async function connect(t, transport) {
  const socket = io(SERVER_URL, { transports: TRANSPORTS[transport], forceNew: true, reconnection: false });
  t.after(() => socket.disconnect());
  await connected(socket);
  await upgraded(socket, transport);
  return socket;
}

async function crowd(t) {
  const sockets = [];
  while (sockets.length < CROWD) {
    const group = upTo(GROUP).map((i) => connect(t, MIX[(sockets.length + i) % MIX.length]));
    sockets.push(...await Promise.all(group));
  }
  return sockets;
}

/** How often each socket receives `event` from now on. */
function countEach(sockets, event) {
  const counts = sockets.map(() => 0);
  for (const [i, socket] of sockets.entries()) socket.on(event, () => { counts[i] += 1; });
  return counts;
}

describe(`a crowd of ${CROWD}`, () => {
  it("one broadcast reaches each exactly once, and one to every third exactly these", async (t) => {
    const sockets = await crowd(t);
    assert.equal(new Set(sockets.map((socket) => socket.id)).size, CROWD, "each has an id of its own");
    const third = sockets.map((_, i) => Number(i % 3 === 0));
    await Promise.all(sockets.filter((_, i) => third[i]).map((socket) => call(socket, "join", "third")));

    const toAll = countEach(sockets, "to all");
    const toThird = countEach(sockets, "to third");
    const ends = Promise.all(sockets.map((socket) => next(socket, "end")));
    const [sender] = sockets;
    sender.emit("in", {}, "to all", Buffer.from("binary"), "text");
    sender.emit("in", { rooms: ["third"] }, "to third");
    sender.emit("in", {}, "end"); // events keep their order: after this one nothing is under way
    await ends;
    assert.deepEqual(toAll, sockets.map(() => 1));
    assert.deepEqual(toThird, third);
  });
});
