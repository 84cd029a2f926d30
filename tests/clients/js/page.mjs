// The page of the server program, in a browser, with Node clients beside it.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { asked, askedElsewhere, complaints, newPage, restartServer, stopServer } from "./browser.mjs";
import { SERVER_URL, TRANSPORTS, call, connected, io, next, upgraded } from "./support.mjs";

async function open(t) {
  const page = await newPage(t);
  await page.goto(SERVER_URL);
  await page.locator('#status[data-state="live"]').waitFor();
  return page;
}

async function client(t, transport, room) {
  const socket = io(SERVER_URL, { transports: TRANSPORTS[transport], forceNew: true, reconnection: false });
  t.after(() => socket.disconnect());
  await connected(socket);
  await upgraded(socket, transport);
  if (room) assert.deepEqual(await call(socket, "join", room), [[room]]);
  return socket;
}

const clientsShown = (page, count) => page.locator(`#clients[data-value="${count}"]`).waitFor();
const shown = (page, selector, text) => page.locator(selector, { hasText: text }).waitFor();

async function watch(page, room) {
  await page.fill("#watch-room", room);
  await page.click("#watch-toggle");
  await shown(page, "#watch-state", `watching ${room}`);
}

/** What the page says about it. */
async function publish(page, room, event, args) {
  await page.fill("#publish-room", room);
  await page.fill("#publish-event", event);
  await page.fill("#publish-args", args);
  // what it said before is no answer
  await page.locator("#publish-result").evaluate((result) => { result.textContent = ""; });
  await page.click("#publish-send");
  await shown(page, "#publish-result", /sent/i);
  return page.textContent("#publish-result");
}

/** Events in the log without their times, newest first; lines about the watching itself are no events. */
async function logged(page) {
  const lines = await page.locator("#watch-log li:not(.note)").allTextContents();
  return lines.map((line) => line.replace(/^\S+ /, ""));
}

describe("the page", () => {
  it("shows connected clients as they come and go", async (t) => {
    const page = await open(t);
    await clientsShown(page, 0);
    await page.locator("#welcome").waitFor();
    const sockets = await Promise.all(Object.keys(TRANSPORTS).map((transport) => client(t, transport)));
    await clientsShown(page, 3);
    assert.equal(await page.textContent("#clients"), "3");
    await shown(page, "#transports", "2 websocket, 1 polling");
    await page.locator("#welcome").waitFor({ state: "hidden" });
    sockets.pop().disconnect();
    await clientsShown(page, 2);
    for (const socket of sockets) socket.disconnect();
    await clientsShown(page, 0);
  });

  it("says that the server drains, and how many are left", async (t) => {
    const page = await open(t);
    await page.route("**/api/stats", async (route) => {
      const response = await route.fetch();
      await route.fulfill({ response, json: { ...await response.json(), draining: true, draining_left: 1 } });
    });
    await page.locator('#status[data-state="draining"]', { hasText: "draining, 1 client left" }).waitFor();
    await page.unroute("**/api/stats");
    await page.locator('#status[data-state="live"]', { hasText: "live" }).waitFor();
  });

  it("publishes to a room, and a watcher in the same page and a Node client receive it", async (t) => {
    const page = await open(t);
    const socket = await client(t, "websocket", "gate 7 north");
    const outsider = await client(t, "websocket");
    outsider.onAny((event) => assert.fail(`"${event}" came to a client outside the room`));
    await watch(page, "gate 7 north");
    const markup = '<img src="x" onerror="alert(1)">';
    const args = [{ minute: 63, text: markup }, [2, 1], null];

    const first = next(socket, "goal");
    const said = await publish(page, "gate 7 north", "goal", JSON.stringify(args));
    assert.match(said, /^sent to 2 sockets in [\d.]+ ms$/);
    assert.deepEqual(await first, args);
    await shown(page, "#watch-log li", "goal");

    const second = next(socket, "whistle");
    await publish(page, "gate 7 north", "whistle", "");
    assert.deepEqual(await second, []);
    await shown(page, "#watch-log li", "whistle");
    const goal = `goal {minute: 63, text: ${JSON.stringify(markup)}}, [2, 1], null`;
    assert.deepEqual(await logged(page), ["whistle ", goal], "the newest first, and markup stays text");
    await page.locator('#deliveries:not([data-value=""]):not([data-value="0"])').waitFor();
    assert.deepEqual(await call(outsider, "leave", "nowhere"), [[]], "it has received all there was for it");
  });

  it("shows what others publish to the watched room, and nothing once it has stopped", async (t) => {
    const page = await open(t);
    const socket = await client(t, "websocket");
    await watch(page, "stage");
    assert.deepEqual(await call(socket, "say", { to: "stage" }, "text", Buffer.from([1, 2, 3])), [{ sockets: 1 }]);
    await shown(page, "#watch-log li", 'say "text", ⟨binary 3 bytes⟩');
    await page.click("#watch-toggle");
    await shown(page, "#watch-toggle", "Watch");
    await clientsShown(page, 1);
    assert.deepEqual(await call(socket, "say", { to: "stage" }, "nobody hears"), [{ sockets: 0 }]);
  });

  it("shows invalid JSON arguments as a mistake and sends nothing", async (t) => {
    const page = await open(t);
    const socket = await client(t, "websocket", "home");
    const heard = [];
    socket.onAny((event, ...args) => heard.push([event, ...args]));
    const before = asked.length;
    for (const [text, mistake] of [
      ["[{'minute': 63}]", "JSON wants double quotes"],
      ["[1, 2", "A closing ] is missing."],
      ["[1, 2,]", "a comma too many"],
      ["{minute: 63}", 'The key minute needs double quotes: "minute".'],
    ]) {
      const said = await publish(page, "home", "goal", text);
      assert.ok(said.startsWith("Not sent: ") && said.includes(mistake), said);
      await page.locator('#publish-args[aria-invalid="true"]:focus').waitFor();
      await shown(page, "#args-hint.bad", mistake);
    }
    assert.deepEqual(asked.slice(before).filter(({ method }) => method !== "GET"), []);

    const end = next(socket, "end");
    assert.match(await publish(page, "home", "end", '"of the test"'), /^sent to 1 socket in/);
    await end;
    assert.deepEqual(heard, [["end", "of the test"]], "nothing else came before");
    assert.equal(await page.getAttribute("#publish-args", "aria-invalid"), "false");
  });

  it("has asked no other origin for anything, and the console is empty", () => {
    for (const path of ["/", "/api/stats", "/api/publish", "/socket.io/"]) {
      assert.ok(asked.some(({ url }) => url.pathname === path), `the page has used ${path}`);
    }
    assert.deepEqual(askedElsewhere(), []);
    assert.deepEqual(complaints, []);
  });

  it("says that the server is away, and recovers when it is back", async (t) => {
    const page = await open(t);
    await watch(page, "home");
    stopServer();
    await shown(page, '#status[data-state="lost"]', "server unreachable, retrying");
    await shown(page, "#watch-state", "connection lost");
    assert.equal(await publish(page, "home", "goal", "1"), "Not sent: the server cannot be reached.");
    restartServer();
    await shown(page, '#status[data-state="live"]', "live");
    await shown(page, "#watch-state", "watching home");
    await clientsShown(page, 1);
    assert.match(await publish(page, "home", "back", "[1]"), /^sent to 1 socket in/);
    await shown(page, "#watch-log li", "back 1");
    const others = complaints.filter((text) => !/ERR_CONNECTION_|WebSocket connection/.test(text));
    assert.deepEqual(others, [], "it complains about nothing but the server that was away");
    assert.deepEqual(askedElsewhere(), []);
  });
});
