// The official client in a real browser, loaded from the server's own bundle route, with Node clients beside it.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { askedElsewhere, complaints, newPage, restartServer } from "./browser.mjs";
import { SERVER_URL, TRANSPORTS, WAIT_MS, call, connected, finalTransport } from "./support.mjs";
import { io as nodeIo, next, upTo } from "./support.mjs";

/** A page of the server's origin with nothing in it but the client. */
async function open(t) {
  const page = await newPage(t);
  // any answer will do that comes from the server itself: a browser trusts a page made up by its driver less
  await page.goto(`${SERVER_URL}/healthz`);
  await page.setContent('<script src="/socket.io/socket.io.min.js"></script>');
  return page;
}

/** A connected socket of the page, which keeps everything that it hears; after its upgrade when there is one. */
async function connect(page, transport, options = {}) {
  const socket = await page.evaluateHandle((options) => {
    const socket = io(options);
    // bytes would not leave the page as such
    const plain = (value) => (value instanceof ArrayBuffer ? { bytes: [...new Uint8Array(value)] } : value);
    socket.heard = [];
    socket.onAny((...event) => socket.heard.push(event.map(plain)));
    return socket;
  }, { transports: TRANSPORTS[transport], forceNew: true, reconnection: false, ackTimeout: WAIT_MS, ...options });
  await page.waitForFunction((socket) => socket.connected, socket);
  await onTransport(page, socket, finalTransport(transport));
  return socket;
}

const onTransport = (page, socket, name) =>
  page.waitForFunction(([socket, name]) => socket.io.engine.transport.name === name, [socket, name]);

/** What the page's socket has heard, once that is `count` events. */
async function heard(page, socket, count) {
  await page.waitForFunction(([socket, count]) => socket.heard.length >= count, [socket, count]);
  return socket.evaluate((socket) => socket.heard);
}

/** Emits from the page with an ack and gives the answer. */
const ask = (socket, ...event) => socket.evaluate((socket, event) => socket.emitWithAck(...event), event);

async function nodeClient(t) {
  const socket = nodeIo(SERVER_URL, { transports: ["websocket"], forceNew: true, reconnection: false });
  t.after(() => socket.disconnect());
  await connected(socket);
  return socket;
}

/** Publishes as a back end does. How many sockets it reached. */
async function publish(event) {
  const response = await fetch(`${SERVER_URL}/api/publish`, { method: "POST", body: JSON.stringify(event) });
  assert.equal(response.status, 200);
  return (await response.json()).sockets;
}

describe("the official client in a browser", () => {
  it("connects over polling and upgrades to WebSocket", async (t) => {
    const page = await open(t);
    const requests = [];
    const webSockets = [];
    page.on("request", (request) => requests.push(request.url()));
    page.on("websocket", (webSocket) => webSockets.push(webSocket.url()));
    const socket = await connect(page, "upgrade");
    assert.match(requests[0], /\/socket\.io\/\?EIO=4&transport=polling/);
    const session = await socket.evaluate((socket) => socket.io.engine.id);
    assert.equal(webSockets.length, 1);
    assert.ok(webSockets[0].includes(`transport=websocket&sid=${session}`), "the same session");

    const polled = requests.length;
    assert.deepEqual(await ask(socket, "join", "a"), ["a"]);
    assert.equal(requests.length, polled, "nothing is polled any more");
  });

  it("loses nothing and doubles nothing while it upgrades", async (t) => {
    const page = await open(t);
    const sender = await nodeClient(t);
    let said = 0;
    let upgraded = false;
    const speech = (async () => {
      while (!upgraded) {
        for (const _ of upTo(20)) sender.emit("say", said++);
        await call(sender, "say", said++);
      }
    })();
    const sockets = await Promise.all(upTo(5).map(() => connect(page, "upgrade"))).finally(() => { upgraded = true; });
    await speech;
    await publish({ event: "end" });
    for (const socket of sockets) {
      await page.waitForFunction((socket) => socket.heard.at(-1)?.[0] === "end", socket);
      const events = await socket.evaluate((socket) => socket.heard);
      const [[, first]] = events;
      const expected = upTo(said).slice(first).map((i) => ["say", i]);
      assert.deepEqual(events, [...expected, ["end"]], "all that was said since it came, in order");
    }
  });

  for (const transport of Object.keys(TRANSPORTS)) {
    it(`receives text and binary over ${transport}, from a back end and from another client`, async (t) => {
      const page = await open(t);
      const socket = await connect(page, transport);
      assert.deepEqual(await ask(socket, "join", "home"), ["home"]);
      const other = await nodeClient(t);

      const text = "goal 😀 \u0000 \u2028 é";
      assert.equal(await publish({ rooms: ["home"], event: "news", args: [text, { score: [2, 1] }] }), 1);
      const bytes = upTo(256);
      assert.deepEqual(await call(other, "say", { to: "home" }, text, Buffer.from(bytes), 7), [{ sockets: 1 }]);
      assert.deepEqual(await heard(page, socket, 2), [["news", text, { score: [2, 1] }], ["say", text, { bytes }, 7]]);
    });

    it(`sends text and binary over ${transport}, and acks come back`, async (t) => {
      const page = await open(t);
      const socket = await connect(page, transport);
      const other = await nodeClient(t);
      await call(other, "join", "home");
      const said = next(other, "say");
      const answer = await socket.evaluate((socket) => {
        const parts = [new Uint8Array([0, 128, 255]), new Blob(["blob"])];
        return socket.emitWithAck("say", { to: "home" }, "é", ...parts);
      });
      assert.deepEqual(answer, { sockets: 1 });
      assert.deepEqual(await said, ["é", Buffer.from([0, 128, 255]), Buffer.from("blob")]);

      const rooms = upTo(20).map((i) => `room ${i}`);
      const answers = await Promise.all(rooms.map((room) => ask(socket, "join", room)));
      assert.deepEqual(answers.map((joined) => joined.length), upTo(20).map((i) => i + 1));
    });
  }

  it("has asked no other origin for anything, and the console is empty", () => {
    assert.deepEqual(askedElsewhere(), []);
    assert.deepEqual(complaints, []);
  });

  it("reconnects after the server was restarted, with a new id and what it wanted to say", async (t) => {
    const page = await open(t);
    const backoff = { reconnectionDelay: 50, reconnectionDelayMax: 200 };
    const socket = await connect(page, "upgrade", { reconnection: true, ...backoff });
    const idBefore = await socket.evaluate((socket) => {
      // said as soon as the server is away
      socket.once("disconnect", (why) => socket.emit("join", "later", (_, rooms) => socket.heard.push([why, rooms])));
      return socket.id;
    });
    restartServer();
    const [[why, rooms]] = await heard(page, socket, 1);
    assert.match(why, /^transport (close|error)$/);
    assert.deepEqual(rooms, ["later"]);
    assert.notEqual(await socket.evaluate((socket) => socket.id), idBefore);
    await onTransport(page, socket, "websocket");
    assert.equal(await publish({ rooms: ["later"], event: "back", args: [1] }), 1);
    assert.deepEqual((await heard(page, socket, 2))[1], ["back", 1]);
  });
});
