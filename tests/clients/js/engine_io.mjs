// The official Engine.IO client over one transport (FANFARE_TRANSPORT), against profile `engine`: an echo.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { EngineSocket, SERVER_URL, TRANSPORTS, collect, finalTransport, next, transportUnderTest } from "./support.mjs";
import { mixed, unmixed, upTo } from "./support.mjs";

const transport = transportUnderTest();

async function open(t, options = {}) {
  const socket = new EngineSocket(SERVER_URL, { transports: TRANSPORTS[transport], ...options });
  t.after(() => socket.close());
  await next(socket, "open");
  return socket;
}

async function openUpgraded(t) {
  const socket = await open(t);
  if (socket.transport.name !== finalTransport(transport)) await next(socket, "upgrade");
  return socket;
}

async function echo(socket, message) {
  const reply = next(socket, "message");
  socket.send(message);
  const [data] = await reply;
  return data ?? ""; // this client says undefined for an empty text
}

describe(`engine.io over ${transport}`, () => {
  it("a session opens with an id, on the transport asked for", async (t) => {
    const socket = await openUpgraded(t);
    assert.match(socket.id, /^\S+$/);
    assert.equal(socket.transport.name, finalTransport(transport));
  });

  it("text comes back equal", async (t) => {
    const socket = await openUpgraded(t);
    const texts = ["a", "", "4", "b", "cash €€€", "😀\u{10ffff}", "\u0000\r\n"];
    for (const text of texts) assert.equal(await echo(socket, text), text);
  });

  it("binary comes back equal", async (t) => {
    const socket = await openUpgraded(t);
    for (const size of [0, 1, 2, 3, 125, 126, 256, 65_535, 65_536]) {
      const data = Buffer.from(upTo(size));
      assert.ok(Buffer.from(await echo(socket, data)).equals(data), `${size} bytes`);
    }
  });

  it("300 KB of text and of binary come back equal", async (t) => {
    const socket = await openUpgraded(t);
    const text = "é".repeat(150_000);
    assert.ok((await echo(socket, text)) === text, "text");
    const data = Buffer.alloc(300_000, "fanfare");
    assert.ok(Buffer.from(await echo(socket, data)).equals(data), "binary");
  });

  it("500 mixed messages keep their order, across the upgrade when there is one", async (t) => {
    const socket = await open(t);
    const messages = collect(socket, "message", 500);
    for (const i of upTo(500)) socket.send(mixed(i));
    assert.deepEqual((await messages).map(([data]) => unmixed(data)), upTo(500));
  });

  it("a client may close; the next session has another id", async (t) => {
    const first = await openUpgraded(t);
    const closed = next(first, "close");
    first.close();
    assert.equal((await closed)[0], "forced close");
    const second = await openUpgraded(t);
    assert.notEqual(second.id, first.id);
    assert.equal(await echo(second, "x"), "x");
  });

  it("fifty sessions at once each receive their own messages", async (t) => {
    const sockets = await Promise.all(upTo(50).map(() => openUpgraded(t)));
    const replies = await Promise.all(sockets.map((socket, i) => echo(socket, mixed(i))));
    assert.deepEqual(replies.map(unmixed), upTo(50));
  });

  it("an unknown session id is refused", async (t) => {
    const socket = new EngineSocket(SERVER_URL, { transports: TRANSPORTS[transport], query: { sid: "unknown" } });
    t.after(() => socket.close());
    const [error] = await next(socket, "error");
    assert.ok(error instanceof Error);
  });
});
