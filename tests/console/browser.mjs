// What the console's browser tests share: Chromium, checks that hold on every page, photographs.
import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const consoleRoot = fileURLToPath(new URL("../../console/", import.meta.url));
const require = createRequire(join(consoleRoot, "package.json"));
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

export const SIZES = { 1280: { width: 1280, height: 800 }, 390: { width: 390, height: 844 } };

export function launch() {
  return chromium.launch({
    executablePath: process.env.TAKT_CHROMIUM ?? "/usr/bin/chromium",
    args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"],
  });
}

// The first true value of `condition`; an error that names `what` when it does not come.
export async function until(what, condition) {
  const deadline = Date.now() + 30_000;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > deadline) throw new Error(`never: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

// A page that fails the test on anything that a user would not want: a script error, something that
// the content security policy stopped, a request to elsewhere.
export async function open(browser, url, { locale = "en-GB", size = SIZES[1280], colorScheme = "light", allowStatus = [] } = {}) {
  const context = await browser.newContext({ locale, viewport: size, colorScheme, reducedMotion: "reduce" });
  const page = await context.newPage();
  page.setDefaultTimeout(15_000);
  const wrong = [];
  page.on("pageerror", (error) => wrong.push(`script error: ${error.stack ?? error.message}`));
  page.on("console", (message) => {
    if (message.type() !== "error" && message.type() !== "warning") return;
    if (/Failed to load resource/.test(message.text()) && allowStatus.some((s) => message.text().includes(String(s)))) return;
    wrong.push(`console: ${message.text()} ${message.location().url}`);
  });
  page.on("request", (request) => {
    if (!request.url().startsWith(url) && !request.url().startsWith("data:")) wrong.push(`request to ${request.url()}`);
  });
  page.on("dialog", (dialog) => {
    if (dialog.type() === "alert") wrong.push(`alert: ${dialog.message()}`);
    void dialog.accept();
  });
  await page.goto(url);
  return { page, context, wrong, check: () => assert.deepEqual(wrong, []) };
}

// Within the window's width, and without a violation of WCAG 2.1 AA that axe finds.
export async function sound(page, where) {
  const overflow = await page.evaluate(() => {
    const width = document.documentElement.clientWidth;
    if (document.documentElement.scrollWidth <= width) return [];
    return [...document.querySelectorAll("main *")].filter((e) => e.getBoundingClientRect().right > width + 1).slice(0, 5)
      .map((e) => `${e.tagName}.${e.className} ${Math.round(e.getBoundingClientRect().right)}`);
  });
  assert.deepEqual(overflow, [], `${where}: wider than the window`);
  await page.evaluate(axe); // by the debugger: the page's own policy would not let it in
  const violations = await page.evaluate(async () => {
    const found = await globalThis.axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"] });
    return found.violations.map((v) => `${v.id}: ${v.nodes.slice(0, 3).map((n) => `${n.target.join(" ")} ${n.any.concat(n.all).map((c) => c.message).join("; ")}`).join(" | ")}`);
  });
  return violations.map((v) => `${where}: ${v}`);
}

export function photographer(folder) {
  mkdirSync(folder, { recursive: true });
  return (page, name) => page.screenshot({ path: join(folder, `${name}.png`), fullPage: true });
}

// Runs named tests in order and says each; one that fails does not hide the next.
export async function runAll(tests) {
  let failed = 0;
  for (const [name, test] of tests.filter(([name]) => name.includes(process.env.TAKT_ONLY ?? ""))) {
    const begun = Date.now();
    try {
      await test();
      console.log(`ok      ${name} (${Date.now() - begun} ms)`);
    } catch (error) {
      failed++;
      console.log(`FAILED  ${name}\n${error.stack ?? error}`);
    }
  }
  console.log(failed === 0 ? `${tests.length} tests passed` : `${failed} of ${tests.length} tests failed`);
  return failed;
}

export function options() {
  const found = {};
  for (let i = 2; i < process.argv.length; i += 2) found[process.argv[i].replace(/^--/, "")] = process.argv[i + 1];
  return found;
}
