// Browser: one headless Chromium for a suite, and a record of what its pages ask for and complain about.
import { after, before } from "node:test";
import { join } from "node:path";
import { SERVER_URL, WAIT_MS, require, setting } from "./support.mjs";

const { chromium } = require("playwright-core");

// the driver itself adds --headless, --no-sandbox, --no-first-run, and switches off what a browser does unasked
const FLAGS = ["--disable-gpu", "--disable-quic"];

/** What all pages of this suite have asked for, and what they wrote to the console as an error or a warning. */
export const asked = [];
export const complaints = [];

let browser;

before(async () => {
  const home = setting("FANFARE_BROWSER_HOME");
  browser = await chromium.launchPersistentContext(join(home, "profile"), {
    executablePath: setting("FANFARE_BROWSER"),
    args: FLAGS,
    env: { ...process.env, HOME: home },
  });
  browser.setDefaultTimeout(WAIT_MS);
});
after(() => browser?.close());

/** A page of its own, gone when the test ends. Nothing is in it yet. */
export async function newPage(t) {
  const page = await browser.newPage();
  t.after(() => page.close());
  page.on("request", (request) => asked.push({ method: request.method(), url: new URL(request.url()) }));
  page.on("websocket", (socket) => asked.push({ method: "WebSocket", url: new URL(socket.url()) }));
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("console", (message) => {
    // where a page names no icon, the browser looks for one by itself
    const iconIsMissing = message.location().url.endsWith("/favicon.ico");
    if (["error", "warning"].includes(message.type()) && !iconIsMissing) complaints.push(message.text());
  });
  return page;
}

/** What was asked of anyone but the server. An image inside the page itself is asked of nobody. */
export function askedElsewhere() {
  const { host } = new URL(SERVER_URL);
  return asked.filter(({ url }) => url.host !== host && url.protocol !== "data:").map(({ url }) => url.href);
}

/** For whoever runs this. */
export const stopServer = () => console.log("stop the server");
export const restartServer = () => console.log("restart the server");
