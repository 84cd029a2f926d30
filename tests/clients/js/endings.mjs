// Endings: who ends a connection, what each side calls it, and what keeps it alive.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { connect, namespaceOn, openManager, reasonOf, transport } from "./connect.mjs";
import { call, collect, next } from "./support.mjs";

// side by side: most of the time these wait for a heartbeat
describe(`endings over ${transport}`, { concurrency: true }, () => {
  it("the connection survives three heartbeats", async (t) => {
    const socket = await connect(t);
    // the fourth ping shows that the server has seen the third pong
    await collect(socket.io, "ping", 4);
    assert.deepEqual(await call(socket, "echo", 1), [1]);
  });

  it("the server disconnects one socket: the connection stays", async (t) => {
    const manager = openManager(t);
    const main = await namespaceOn(manager, "/");
    const custom = await namespaceOn(manager, "/custom");
    const { id } = custom;
    const ended = next(custom, "disconnect");
    custom.emit("kick", false);
    assert.equal((await ended)[0], "io server disconnect");
    assert.deepEqual(await call(main, "echo", 1), [1]);
    assert.equal(await reasonOf(id, main), "server namespace disconnect");
  });

  it("the server disconnects a socket and closes: every namespace of the connection ends", async (t) => {
    const manager = openManager(t);
    const main = await namespaceOn(manager, "/");
    const custom = await namespaceOn(manager, "/custom");
    const { id } = main;
    const ended = Promise.all([next(main, "disconnect"), next(custom, "disconnect"), next(manager, "close")]);
    main.emit("kick", true);
    const [[mainReason], [customReason]] = await ended;
    assert.deepEqual([mainReason, customReason], ["io server disconnect", "io server disconnect"]);
    const witness = await connect(t);
    assert.equal(await reasonOf(id, witness), "server namespace disconnect");
  });

  it("the client leaves the namespace", async (t) => {
    const [socket, witness] = [await connect(t), await connect(t)];
    const { id } = socket;
    socket.disconnect();
    assert.equal(await reasonOf(id, witness), "client namespace disconnect");
  });

  it("the client closes the connection", async (t) => {
    const [socket, witness] = [await connect(t), await connect(t)];
    const { id } = socket;
    socket.io.engine.close();
    assert.equal(await reasonOf(id, witness), "transport close");
  });

  it("the server closes the connection", async (t) => {
    const [socket, witness] = [await connect(t), await connect(t)];
    const { id } = socket;
    const ended = next(socket, "disconnect");
    socket.emit("kill-engine");
    assert.equal((await ended)[0], "transport close");
    assert.match(await reasonOf(id, witness), /^(forced close|forced server close)$/);
  });

  it("the client breaks the protocol", async (t) => {
    const [socket, witness] = [await connect(t), await connect(t)];
    const { id } = socket;
    const ended = next(socket, "disconnect");
    socket.io.engine.write("9 is no packet type");
    assert.equal((await ended)[0], "transport close");
    // the same cause has two names: which one depends on whether a poll was there to carry the end
    assert.match(await reasonOf(id, witness), /^(forced close|forced server close)$/);
  });

  it("the client falls silent", async (t) => {
    const [socket, witness] = [await connect(t), await connect(t)];
    const { id } = socket;
    const ended = next(socket, "disconnect");
    socket.io.engine.transport.send = () => {}; // no pong leaves any more
    assert.equal((await ended)[0], "transport close");
    assert.equal(await reasonOf(id, witness), "ping timeout");
  });
});
