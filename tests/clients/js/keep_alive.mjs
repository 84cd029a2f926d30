// Keep-alive: several polling sessions take turns on one TCP connection, whichever worker accepted it.
import assert from "node:assert/strict";
import http from "node:http";
import { describe, it } from "node:test";
import { SERVER_URL, WAIT_MS, upTo } from "./support.mjs";

const SEPARATOR = "\x1e";
const SESSIONS = 3;
const ROUNDS = 50;

/** All requests of an agent wait for its one connection. */
function oneConnection(t) {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  t.after(() => agent.destroy());
  const ports = new Set();
  const request = (method, query, body) => new Promise((resolve, reject) => {
    const url = `${SERVER_URL}/socket.io/?EIO=4&transport=polling${query}`;
    const sent = http.request(url, { agent, method, timeout: WAIT_MS }, (response) => {
      ports.add(response.socket.localPort);
      const chunks = [];
      response.on("data", (chunk) => chunks.push(chunk));
      response.on("end", () => resolve({ status: response.statusCode, body: Buffer.concat(chunks).toString() }));
    });
    sent.on("timeout", () => sent.destroy(new Error(`no response to ${method} ${url} within ${WAIT_MS} ms`)));
    sent.on("error", reject);
    sent.end(body);
  });
  return { request, ports };
}

/** A polling session, packet by packet. It polls only when it is told to. */
class Session {
  static async open(request) {
    const session = new Session();
    session.request = request;
    const { status, body } = await request("GET", "");
    assert.equal(status, 200);
    session.id = JSON.parse(body.slice(1)).sid;
    await session.post("40");
    const [connected] = await session.poll();
    assert.match(connected, /^40\{"sid":/);
    return session;
  }

  async post(...packets) {
    const { status, body } = await this.request("POST", `&sid=${this.id}`, packets.join(SEPARATOR));
    assert.deepEqual({ status, body }, { status: 200, body: "ok" });
  }

  /** The next packets other than pings, which are answered here. */
  async poll() {
    for (;;) {
      const { status, body } = await this.request("GET", `&sid=${this.id}`);
      assert.equal(status, 200);
      const packets = body.split(SEPARATOR);
      if (packets.includes("2")) await this.post("3");
      const rest = packets.filter((packet) => packet !== "2");
      if (rest.length) return rest;
    }
  }
}

describe("a kept-alive connection", () => {
  it("three sessions take turns, request by request, and none sees another's events", async (t) => {
    const { request, ports } = oneConnection(t);
    const sessions = [];
    for (const _ of upTo(SESSIONS)) sessions.push(await Session.open(request));
    assert.equal(new Set(sessions.map((session) => session.id)).size, SESSIONS);

    for (const round of upTo(ROUNDS)) {
      for (const [i, session] of sessions.entries()) await session.post(`42["echo","session ${i}",${round}]`);
      for (const [i, session] of sessions.entries()) {
        assert.deepEqual(await session.poll(), [`42["echo","session ${i}",${round}]`]);
      }
    }
    assert.equal(ports.size, 1, "one TCP connection for all requests");
  });

  it("a refused request does not end the connection", async (t) => {
    const { request, ports } = oneConnection(t);
    const session = await Session.open(request);
    const refused = await request("GET", "&sid=unknown");
    assert.equal(refused.status, 400);
    assert.equal(JSON.parse(refused.body).code, 1);
    await session.post('42["echo",1]');
    assert.deepEqual(await session.poll(), ['42["echo",1]']);
    assert.equal(ports.size, 1, "one TCP connection for all requests");
  });

  it("a broadcast reaches every session of the connection", async (t) => {
    const { request, ports } = oneConnection(t);
    const sessions = [];
    for (const _ of upTo(SESSIONS)) sessions.push(await Session.open(request));
    await sessions[0].post('42["in",{},"news",7]');
    for (const session of sessions) assert.deepEqual(await session.poll(), ['42["news",7]']);
    assert.equal(ports.size, 1, "one TCP connection for all requests");
  });
});
