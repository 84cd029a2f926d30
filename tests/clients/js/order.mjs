// Order: text and binary events mixed, in both directions, and while the transport changes.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { connect, open, transport } from "./connect.mjs";
import { NodeWebSocket, NodeXHR, call, collect, connected, mixed, next, unmixed, upTo } from "./support.mjs";

/** What the server's "burst" sends: each seventh event is binary. */
const burst = (count) => upTo(count).map((i) => [i, i % 7 ? `t${i}` : i & 255]);
const readBurst = (events) => events.map(([i, data]) => [i, typeof data === "string" ? data : Buffer.from(data)[0]]);

describe(`order over ${transport}`, () => {
  it("500 mixed events from the server arrive in order", async (t) => {
    const socket = await connect(t);
    const events = collect(socket, "b", 500);
    socket.emit("burst", 500);
    assert.deepEqual(readBurst(await events), burst(500));
  });

  it("500 mixed events from the client come back in order", async (t) => {
    const socket = await connect(t);
    const events = collect(socket, "echo", 500);
    for (const i of upTo(500)) socket.emit("echo", mixed(i));
    assert.deepEqual((await events).map(([data]) => unmixed(data)), upTo(500));
  });

  it("events emitted before the connection is there follow it, in order", async (t) => {
    const socket = open(t);
    const events = collect(socket, "echo", 100);
    for (const i of upTo(100)) socket.emit("echo", mixed(i));
    assert.deepEqual((await events).map(([data]) => unmixed(data)), upTo(100));
  });
});

describe("order across the upgrade", { skip: transport !== "upgrade" }, () => {
  /** Events under way at any time: each answer sends the next one. */
  const WINDOW = 8;
  const BEFORE = 40;
  const AFTER = 40;

  /** A connected socket, still on polling, and the way to let its upgrade begin. */
  async function openOnPolling(t) {
    let beginUpgrade;
    const begun = new Promise((resolve) => { beginUpgrade = resolve; });
    class LaterWebSocket extends NodeWebSocket {
      doOpen() { begun.then(() => super.doOpen()); }
    }
    const socket = open(t, "/", { transports: [NodeXHR, LaterWebSocket] });
    await connected(socket);
    return { socket, beginUpgrade };
  }

  it("mixed events in both directions keep their order", async (t) => {
    const { socket, beginUpgrade } = await openOnPolling(t);
    const got = [];
    let [sent, sendUntil] = [0, Infinity];
    const sendNext = () => { if (sent < sendUntil) socket.emit("echo", mixed(sent++)); };
    const finished = new Promise((resolve) => {
      socket.on("echo", (data) => {
        if (got.push(unmixed(data)) === BEFORE) beginUpgrade();
        if (got.length === sendUntil) resolve();
        sendNext();
      });
    });
    const upgrade = next(socket.io.engine, "upgrade");
    for (const _ of upTo(WINDOW)) sendNext();
    await upgrade;
    sendUntil = sent + AFTER;
    for (const _ of upTo(WINDOW)) sendNext();
    await finished;
    assert.deepEqual(got, upTo(sendUntil));
  });

  it("what the server sends before, during and after the upgrade arrives once and in order", async (t) => {
    const { socket, beginUpgrade } = await openOnPolling(t);
    const got = [];
    socket.on("b", (...event) => got.push(event));
    let bursts = 0;
    const askForBurst = async () => { bursts += 1; await call(socket, "burst", 20); };

    await askForBurst();
    const upgrade = next(socket.io.engine, "upgrade");
    beginUpgrade();
    while (socket.io.engine.transport.name === "polling") await askForBurst();
    await upgrade;
    await askForBurst();
    assert.deepEqual(readBurst(got), upTo(bursts).flatMap(() => burst(20)));
  });
});
