// Namespaces: several on one connection, refused ones, unknown ones.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { connect, namespaceOn, open, openManager, transport } from "./connect.mjs";
import { call, connected, next } from "./support.mjs";

describe(`namespaces over ${transport}`, () => {
  it("two namespaces share one connection and have their own sockets", async (t) => {
    const manager = openManager(t);
    const main = await namespaceOn(manager, "/");
    const custom = await namespaceOn(manager, "/custom");
    const [[a], [b]] = [await call(main, "whoami"), await call(custom, "whoami")];
    assert.equal(a.eid, b.eid, "one session");
    assert.deepEqual([a.sid, b.sid], [main.id, custom.id]);
    assert.notEqual(a.sid, b.sid, "two sockets");
  });

  it("events, acks and attachments stay in their namespace", async (t) => {
    const manager = openManager(t);
    const main = await namespaceOn(manager, "/");
    const custom = await namespaceOn(manager, "/custom");
    const got = [];
    main.on("echo", (data) => got.push(`main ${Buffer.from(data)}`));
    custom.on("echo", (data) => got.push(`custom ${Buffer.from(data)}`));
    for (const [socket, data] of [[main, "a"], [custom, "b"], [main, "c"]]) socket.emit("echo", Buffer.from(data));
    const answers = await Promise.all([call(main, "echo", "for main"), call(custom, "echo", "for custom")]);
    assert.deepEqual(answers, [["for main"], ["for custom"]]);
    assert.deepEqual(got, ["main a", "custom b", "main c"]);
  });

  it("leaving one namespace keeps the other, and one may come back", async (t) => {
    const manager = openManager(t);
    const main = await namespaceOn(manager, "/");
    const custom = await namespaceOn(manager, "/custom");
    const idBefore = custom.id;
    custom.disconnect();
    assert.deepEqual(await call(main, "reason-of", idBefore), ["client namespace disconnect"]);
    assert.deepEqual(await call(main, "echo", 1), [1]);
    custom.connect();
    await connected(custom);
    assert.notEqual(custom.id, idBefore);
    assert.deepEqual(await call(custom, "echo", 2), [2]);
  });

  it("an unknown namespace is refused and the connection stays", async (t) => {
    const manager = openManager(t);
    const main = await namespaceOn(manager, "/");
    const unknown = manager.socket("/nowhere");
    const [error] = await next(unknown, "connect_error");
    assert.equal(error.message, "Invalid namespace");
    assert.deepEqual(await call(main, "echo", 1), [1]);
  });
});

describe(`auth over ${transport}`, () => {
  it("a wrong token is refused with message and data", async (t) => {
    const [error] = await next(open(t, "/auth", { auth: { token: "wrong" } }), "connect_error");
    assert.equal(error.message, "not authorized");
    assert.deepEqual(error.data, { code: "E_AUTH", retry: false });
  });

  it("a missing token is refused", async (t) => {
    const [error] = await next(open(t, "/auth"), "connect_error");
    assert.equal(error.message, "not authorized");
  });

  it("the right token is accepted and the server sees the whole auth", async (t) => {
    const auth = { token: "secret", name: "Ада", nested: { list: [1, 2] } };
    const socket = open(t, "/auth", { auth });
    const welcome = next(socket, "welcome");
    await connected(socket);
    assert.deepEqual(await welcome, [auth]);
  });

  it("auth may be computed for each attempt: refused, then accepted on the same connection", async (t) => {
    const manager = openManager(t);
    const main = await namespaceOn(manager, "/");
    const tokens = ["wrong", "secret"];
    const socket = manager.socket("/auth", { auth: (use) => use({ token: tokens.shift() }) });
    await next(socket, "connect_error");
    socket.connect();
    await connected(socket);
    const [[a], [b]] = [await call(main, "whoami"), await call(socket, "whoami")];
    assert.equal(a.eid, b.eid, "one session");
  });

  it("a refused namespace does not disturb the others", async (t) => {
    const socket = await connect(t);
    const refused = socket.io.socket("/auth");
    await next(refused, "connect_error");
    assert.deepEqual(await call(socket, "echo", 1), [1]);
  });
});
