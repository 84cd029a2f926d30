// Rooms: who receives a broadcast, and how often.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { connect, transport } from "./connect.mjs";
import { call, next } from "./support.mjs";

/** Four sockets in one namespace. Alice sends. */
async function crew(t, namespace = "/") {
  const [alice, bob, carol, dave] = await Promise.all([1, 2, 3, 4].map(() => connect(t, namespace)));
  return { alice, bob, carol, dave };
}

const join = (room, ...sockets) => Promise.all(sockets.map((socket) => call(socket, "join", room)));
const to = (sender, target) => call(sender, "to", target, "news");
const inside = (sender, target) => call(sender, "in", target, "news");

/**
 * The names of those who receive "news" because of `action`; a name is there twice when its socket receives twice.
 * A last broadcast to each socket's own room proves that nothing else is under way: events keep their order.
 */
async function receivers(crew, action) {
  const got = [];
  const ends = Object.entries(crew).map(([name, socket]) => {
    socket.on("news", () => got.push(name));
    return next(socket, "end");
  });
  await action();
  await call(crew.alice, "in", { rooms: Object.values(crew).map((socket) => socket.id) }, "end");
  await Promise.all(ends);
  return got.sort();
}

describe(`rooms over ${transport}`, () => {
  it("join and leave answer with the rooms of the socket", async (t) => {
    const socket = await connect(t);
    assert.deepEqual(await call(socket, "join", "one"), [["one"]]);
    assert.deepEqual(await call(socket, "join", "two"), [["one", "two"]]);
    assert.deepEqual(await call(socket, "join", "two"), [["one", "two"]], "joining again changes nothing");
    assert.deepEqual(await call(socket, "leave", "one"), [["two"]]);
    assert.deepEqual(await call(socket, "leave", "never joined"), [["two"]]);
  });

  it("to a room reaches its members without the sender", async (t) => {
    const all = await crew(t);
    await join("r", all.alice, all.bob, all.carol);
    assert.deepEqual(await receivers(all, () => to(all.alice, { rooms: ["r"] })), ["bob", "carol"]);
  });

  it("in a room reaches its members and the sender among them", async (t) => {
    const all = await crew(t);
    await join("r", all.alice, all.bob);
    assert.deepEqual(await receivers(all, () => inside(all.alice, { rooms: ["r"] })), ["alice", "bob"]);
  });

  it("a sender outside the room reaches the room", async (t) => {
    const all = await crew(t);
    await join("r", all.bob);
    assert.deepEqual(await receivers(all, () => inside(all.alice, { rooms: ["r"] })), ["bob"]);
  });

  it("without a room a broadcast reaches everyone, with or without the sender", async (t) => {
    const all = await crew(t);
    assert.deepEqual(await receivers(all, () => to(all.alice, {})), ["bob", "carol", "dave"]);
  });

  it("without a room the namespace reaches everyone, the sender too", async (t) => {
    const all = await crew(t);
    assert.deepEqual(await receivers(all, () => inside(all.alice, {})), ["alice", "bob", "carol", "dave"]);
  });

  it("a socket in two rooms receives once", async (t) => {
    const all = await crew(t);
    await join("r1", all.alice, all.bob, all.carol);
    await join("r2", all.bob, all.carol, all.dave);
    const union = { rooms: ["r1", "r2"] };
    assert.deepEqual(await receivers(all, () => inside(all.alice, union)), ["alice", "bob", "carol", "dave"]);
  });

  it("except removes the members of a room", async (t) => {
    const all = await crew(t);
    await join("r", all.alice, all.bob, all.carol);
    await join("quiet", all.carol);
    const target = { rooms: ["r"], except: ["quiet"] };
    assert.deepEqual(await receivers(all, () => inside(all.alice, target)), ["alice", "bob"]);
  });

  it("except removes one socket by its id, from everyone", async (t) => {
    const all = await crew(t);
    const target = { except: [all.bob.id] };
    assert.deepEqual(await receivers(all, () => to(all.alice, target)), ["carol", "dave"]);
  });

  it("a socket's own room reaches that socket alone", async (t) => {
    const all = await crew(t);
    assert.deepEqual(await receivers(all, () => to(all.alice, { rooms: [all.dave.id] })), ["dave"]);
  });

  it("a sender does not reach itself through its own room", async (t) => {
    const all = await crew(t);
    assert.deepEqual(await receivers(all, () => to(all.alice, { rooms: [all.alice.id] })), []);
  });

  it("an empty room reaches nobody", async (t) => {
    const all = await crew(t);
    assert.deepEqual(await receivers(all, () => inside(all.alice, { rooms: ["nobody here"] })), []);
  });

  it("who has left receives nothing", async (t) => {
    const all = await crew(t);
    await join("r", all.bob, all.carol);
    await call(all.carol, "leave", "r");
    assert.deepEqual(await receivers(all, () => to(all.alice, { rooms: ["r"] })), ["bob"]);
  });

  it("rooms of the same name in two namespaces are two rooms", async (t) => {
    const all = await crew(t);
    const others = await crew(t, "/custom");
    await join("r", all.bob, others.carol);
    assert.deepEqual(await receivers(all, () => inside(all.alice, { rooms: ["r"] })), ["bob"]);
    assert.deepEqual(await receivers(others, () => inside(others.alice, { rooms: ["r"] })), ["carol"]);
  });

  it("a broadcast carries arguments and attachments to each receiver", async (t) => {
    const { alice, bob, carol } = await crew(t);
    await join("r", bob, carol);
    const both = Promise.all([next(bob, "data"), next(carol, "data")]);
    await call(alice, "to", { rooms: ["r"] }, "data", { inside: Buffer.from([1, 2]) }, "text");
    for (const [object, text] of await both) {
      assert.deepEqual([...Buffer.from(object.inside)], [1, 2]);
      assert.equal(text, "text");
    }
  });
});
