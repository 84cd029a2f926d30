// Events, acks and attachments between one client and the server.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { connect, transport } from "./connect.mjs";
import { call, finalTransport, next, upTo } from "./support.mjs";

const LARGE = 300_000;

/** Attachments come as Buffer, ArrayBuffer or typed array; we compare bytes. */
const bytes = (data) => [...Buffer.from(data)];

async function echo(socket, ...args) {
  const reply = next(socket, "echo");
  socket.emit("echo", ...args);
  return reply;
}

describe(`connect over ${transport}`, () => {
  it("client and server agree on ids, transport and protocol", async (t) => {
    const socket = await connect(t);
    const [who] = await call(socket, "whoami");
    const { id } = socket.io.engine;
    assert.deepEqual(who, { ...who, sid: socket.id, eid: id, transport: finalTransport(transport), protocol: 4 });
    assert.notEqual(socket.id, id, "the socket id is public, the session id is not");
  });

  it("the handshake shows the client's query and headers", async (t) => {
    const socket = await connect(t, "/", { query: { colour: "blue & green" }, extraHeaders: { "x-kit": "fanfare" } });
    const [handshake] = await call(socket, "handshake");
    assert.equal(handshake.query.colour, "blue & green");
    assert.equal(handshake.headers["x-kit"], "fanfare");
  });
});

describe(`events over ${transport}`, () => {
  it("arguments of every JSON type come back equal", async (t) => {
    const socket = await connect(t);
    const numbers = [0, 1, -0.5, 1e21, 2 ** 53 - 1];
    const texts = ["", "2", "яЖ€😀", "\u0000\u001e\"\\\n", '451-["x"]'];
    const args = [...numbers, ...texts, null, true, false, [], {}, [[[[1]]]], { a: [{ b: "c" }], "": 0 }];
    assert.deepEqual(await echo(socket, ...args), args);
  });

  it("the server decodes each argument as what it is", async (t) => {
    const socket = await connect(t);
    const [types] = await call(socket, "types", 5, "héé", null, true, [1, 2], { b: 1, a: 2 }, Buffer.from([1, 2, 3]));
    assert.deepEqual(types, ["number:5", "string:3", "null", "boolean:true", "array:2", "object:a|b", "binary:3"]);
  });

  it("an event may have no arguments", async (t) => {
    const socket = await connect(t);
    assert.deepEqual(await echo(socket), []);
  });

  it("an event may have any name", async (t) => {
    const socket = await connect(t);
    for (const name of ["", "/custom,1", '"quoted" \\ name', "имя 😀", "error"]) {
      const event = next(socket, name);
      socket.emit("in", { rooms: [socket.id] }, name, 1);
      assert.deepEqual(await event, [1], `event ${JSON.stringify(name)}`);
    }
  });

  it("an object that looks like an attachment stays an object", async (t) => {
    const socket = await connect(t);
    const lookalike = { _placeholder: true, num: 0 };
    assert.deepEqual(await echo(socket, lookalike), [lookalike]);
  });

  it("300 KB of text pass both ways", async (t) => {
    const socket = await connect(t);
    const text = "é".repeat(LARGE / 2);
    const [back] = await call(socket, "echo", text);
    assert.ok(back === text, "the same text");
    const [big] = await call(socket, "big", LARGE);
    assert.ok(big === "x".repeat(LARGE), "the server's own text");
  });
});

describe(`acks over ${transport}`, () => {
  it("each of fifty pending acks reaches its own callback", async (t) => {
    const socket = await connect(t);
    const answers = await Promise.all(upTo(50).map((i) => call(socket, "echo", i)));
    assert.deepEqual(answers, upTo(50).map((i) => [i]));
  });

  it("an ack carries no arguments or several", async (t) => {
    const socket = await connect(t);
    assert.deepEqual(await call(socket, "echo"), []);
    assert.deepEqual(await call(socket, "echo", 1, null, { a: 2 }), [1, null, { a: 2 }]);
  });

  it("the server receives the client's ack", async (t) => {
    const socket = await connect(t);
    socket.on("add", (a, b, ack) => ack(a + b, "sum"));
    assert.deepEqual(await call(socket, "ask", "add", 40, 2), [{ ok: true, vals: [42, "sum"] }]);
  });

  it("the client's callback times out when the server never answers", async (t) => {
    const socket = await connect(t);
    await assert.rejects(socket.timeout(100).emitWithAck("throw-away"), /timed out/);
    assert.deepEqual(await call(socket, "echo", "still here"), ["still here"]);
  });

  it("the server times out when the client never answers, and ignores the late answer", async (t) => {
    const socket = await connect(t);
    let answer;
    socket.on("question", (ack) => { answer = ack; });
    assert.deepEqual(await call(socket, "ask", "question"), [{ ok: false, error: "timeout" }]);
    answer("too late");
    assert.deepEqual(await call(socket, "echo", "still here"), ["still here"]);
  });
});

describe(`attachments over ${transport}`, () => {
  it("buffers of each kind come back with the same bytes, nested ones in their place", async (t) => {
    const socket = await connect(t);
    const every = Buffer.from(upTo(256));
    const nested = { list: [new Uint8Array([5, 6]).buffer, { deep: new Uint8Array([7]) }], text: "t" };
    const [first, second, last] = await echo(socket, every, nested, "last");
    assert.deepEqual(bytes(first), upTo(256));
    assert.deepEqual(bytes(second.list[0]), [5, 6]);
    assert.deepEqual(bytes(second.list[1].deep), [7]);
    assert.equal(second.text, "t");
    assert.equal(last, "last");
  });

  it("an attachment may be empty", async (t) => {
    const socket = await connect(t);
    const [empty, one] = await echo(socket, Buffer.alloc(0), Buffer.from([1]));
    assert.deepEqual([bytes(empty), bytes(one)], [[], [1]]);
  });

  it("ten attachments of one event keep their order", async (t) => {
    const socket = await connect(t);
    const back = await echo(socket, ...upTo(10).map((i) => Buffer.from([i])));
    assert.deepEqual(back.map(bytes), upTo(10).map((i) => [i]));
  });

  it("the server's ack carries attachments", async (t) => {
    const socket = await connect(t);
    const [first, second] = await call(socket, "echo", Buffer.from([1]), { inside: Buffer.from([2, 3]) });
    assert.deepEqual([bytes(first), bytes(second.inside)], [[1], [2, 3]]);
  });

  it("the client's ack carries attachments", async (t) => {
    const socket = await connect(t);
    socket.on("append", (data, ack) => ack({ sum: Buffer.concat([Buffer.from(data), Buffer.from([9])]) }));
    const [{ ok, vals }] = await call(socket, "ask", "append", Buffer.from([1, 2]));
    assert.ok(ok, "the server received the ack");
    assert.deepEqual(bytes(vals[0].sum), [1, 2, 9]);
  });

  it("300 KB of binary pass both ways", async (t) => {
    const socket = await connect(t);
    const data = Buffer.alloc(LARGE, "fanfare");
    const [back] = await call(socket, "echo", data);
    assert.ok(Buffer.from(back).equals(data), "the same bytes");
    const [big] = await call(socket, "bigbin", LARGE);
    assert.ok(Buffer.from(big).equals(Buffer.alloc(LARGE, 7)), "the server's own bytes");
  });
});
