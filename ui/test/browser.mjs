// A real browser, driven line by line: each line of standard input is a JSON array of an action and its arguments, each
// line of standard output its result, `{"ok": …}` or `{"error": …}`. `tests/src/browser.rs` is at the other end.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const EXECUTABLE = "/usr/bin/chromium";
const PATIENCE_MS = 20_000;

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

const browser = await chromium.launch({
  executablePath: EXECUTABLE,
  args: [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ],
});
// Every launch has a profile of its own, which goes with it.
const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, colorScheme: "light" });
context.setDefaultTimeout(PATIENCE_MS);
const page = await context.newPage();

// What a developer would see in red, save for answers of the API that say no: those are told by `refusals`.
const complaints = [];
const refusals = [];
page.on("console", (message) => {
  if (message.type() !== "error" && message.type() !== "warning") return;
  const refused = message.text().startsWith("Failed to load resource") && message.location().url.includes("/v1/");
  if (!refused) complaints.push(message.text());
});
page.on("pageerror", (error) => complaints.push(String(error)));
page.on("response", (response) => {
  if (response.status() >= 400) refusals.push(`${response.status()} ${response.request().method()} ${new URL(response.url()).pathname}`);
});
page.on("request", (request) => {
  if (new URL(request.url()).hostname !== "127.0.0.1") complaints.push(`a request to ${request.url()}`);
});

const at = (selector, text) => {
  const all = page.locator(selector);
  return (text === undefined ? all : all.filter({ hasText: text })).first();
};

const actions = {
  goto: async (url) => void (await page.goto(url)),
  reload: async () => void (await page.reload()),
  url: async () => page.url(),
  title: async () => page.title(),
  click: async (selector, text) => at(selector, text).click(),
  fill: async (selector, text) => at(selector).fill(text),
  press: async (key) => page.keyboard.press(key),
  select: async (selector, value) => void (await at(selector).selectOption(value)),
  /** Waits until something of this kind, with this text, is seen; gives all of its text. */
  see: async (selector, text) => {
    await at(selector, text).waitFor({ state: "visible" });
    return at(selector, text).innerText();
  },
  /** Waits until nothing of this kind, with this text, is there. */
  gone: async (selector, text) => void (await at(selector, text).waitFor({ state: "detached" })),
  count: async (selector) => page.locator(selector).count(),
  value: async (selector) => at(selector).inputValue(),
  focused: async () => page.evaluate(() => document.activeElement?.getAttribute("aria-label") ?? document.activeElement?.id ?? ""),
  color: async (selector) => at(selector).evaluate((element) => getComputedStyle(element).backgroundColor),
  size: async (width, height) => page.setViewportSize({ width, height }),
  scheme: async (colorScheme) => page.emulateMedia({ colorScheme }),
  top: async () => page.evaluate(() => scrollTo(0, 0)),
  /** By how much the page is wider than the window. */
  overflow: async () => page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth),
  /** Asks the API as the page would; gives the status. */
  ask: async (method, path, body) =>
    page.evaluate(
      async ([method, path, body]) => {
        const headers = { "content-type": "application/json" };
        return (await fetch(path, { method, headers, body: body == null ? undefined : JSON.stringify(body) })).status;
      },
      [method, path, body],
    ),
  /** Faults of accessibility that axe finds, one line each. */
  axe: async () => {
    await page.evaluate(axe);
    const { violations } = await page.evaluate(() => window.axe.run());
    return violations.flatMap(({ id, nodes }) => nodes.map(({ html, failureSummary }) => `${id}: ${html} ${failureSummary}`));
  },
  shot: async (path) => void (await page.screenshot({ path, animations: "disabled" })),
  complaints: async () => complaints.splice(0),
  refusals: async () => refusals.splice(0),
};

const say = (answer) => process.stdout.write(`${JSON.stringify(answer)}\n`);
say({ ok: browser.version() });
for await (const line of createInterface({ input: process.stdin })) {
  const [action, ...rest] = JSON.parse(line);
  try {
    if (!(action in actions)) throw new Error(`there is no action ${action}`);
    say({ ok: (await actions[action](...rest)) ?? null });
  } catch (error) {
    const seen = await page.locator("body").innerText().catch(() => "");
    say({ error: `${error}\nthe page shows:\n${seen}` });
  }
}
await browser.close();
