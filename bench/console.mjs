// What the console costs a browser: bytes of the first page, and the longest frame with a thousand apps
// and with 100,000 log lines, in Chromium. Usage: console.mjs --build DIR [--json FILE]
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { launch, open, options } from "../tests/console/browser.mjs";
import { app, fakeDaemon, instance, line, mnist, service } from "../tests/console/fake.mjs";

const { build, json } = options();
const dist = join(build, "console/dist");
const browser = await launch();
const report = {};

// The longest time between two frames, and between the begin and end of one task, while `act` runs.
async function longest(page, act) {
  await page.evaluate(() => {
    const seen = (globalThis.frames_ = { task: 0, count: 0 });
    new PerformanceObserver((list) => {
      for (const entry of list.getEntries()) {
        seen.task = Math.max(seen.task, entry.duration);
        seen.count++;
      }
    }).observe({ type: "longtask" }); // tasks of more than 50 ms, and nothing else
  });
  await act();
  await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => setTimeout(done, 300))));
  return page.evaluate(() => globalThis.frames_);
}

{
  const daemon = await fakeDaemon({ dist });
  const { page, context } = await open(browser, daemon.url);
  await page.locator("a.app").first().waitFor();
  const sizes = await page.evaluate(() => [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")]
    .filter((e) => !e.name.includes("/api/")).map((e) => e.decodedBodySize));
  // The daemon made of data does not compress; what would travel is measured over the packed files.
  const { gzipSync } = await import("node:zlib");
  const { readFileSync } = await import("node:fs");
  const names = await page.evaluate(() => ["index.html", ...performance.getEntriesByType("resource").filter((e) => !e.name.includes("/api/")).map((e) => new URL(e.name).pathname.slice(1))]);
  report.first_page_bytes = sizes.reduce((a, b) => a + b, 0);
  report.first_page_gzip_bytes = names.reduce((sum, name) => sum + gzipSync(readFileSync(join(dist, name)), { level: 9 }).length, 0);
  report.first_page_files = names.length;
  await context.close();
  await daemon.close();
}

{
  const apps = Array.from({ length: 1000 }, (_, i) => app(`app-${String(i).padStart(4, "0")}`, {
    services: [service("s", ["training", "serving", "client"][i % 3], { instances: [instance(`app-${i}`, "s")] })],
  }));
  const daemon = await fakeDaemon({ dist, state: { ...mnist(), apps } });
  const { page, context } = await open(browser, daemon.url);
  await page.locator("a.app").first().waitFor();
  const scroll = await longest(page, async () => {
    await page.goto(`${daemon.url}#/apps`);
    await page.locator("a.app").first().waitFor();
    for (let i = 0; i < 60; i++) await page.locator(".box").evaluate((box, y) => { box.scrollTop = y; }, i * 700);
    for (let i = 0; i < 1000; i++) daemon.push("app", { ...apps[i], state: i % 2 ? "degraded" : "running" });
    await page.getByRole("searchbox").fill("app-09");
    await page.getByRole("searchbox").fill("");
  });
  report.thousand_apps_tasks_over_50_ms = scroll.count;
  report.thousand_apps_longest_task_ms = scroll.task;
  await context.close();
  await daemon.close();
}

{
  const daemon = await fakeDaemon({ dist });
  const { page, context } = await open(browser, daemon.url);
  await page.goto(`${daemon.url}#/apps/mnist-client/logs`);
  await page.locator(".line").first().waitFor();
  const lines = Array.from({ length: 100_000 }, (_, i) => line(`step=${i} loss=${(2 / (1 + i)).toFixed(5)} accuracy=0.91 a line of a usual length, as trainers write them`));
  const fill = await longest(page, async () => {
    for (let i = 0; i < lines.length; i += 500) {
      daemon.pushLines(lines.slice(i, i + 500));
      if (i % 5000 === 0) await new Promise((resolve) => setTimeout(resolve, 50));
    }
    await page.locator(".line", { hasText: "step=99999 " }).waitFor({ timeout: 60_000 });
  });
  report.lines_coming_longest_task_ms = fill.task;
  report.lines_coming_tasks_over_50_ms = fill.count;
  const use = await longest(page, async () => {
    for (let i = 0; i < 100; i++) await page.locator(".box").evaluate((box, y) => { box.scrollTop = y; }, i * 20_000);
    for (const text of ["9", "99", "999", "/step=9\\d+ /", ""]) {
      await page.getByRole("searchbox").fill(text);
      await page.waitForTimeout(100);
    }
  });
  report.lines_used_longest_task_ms = use.task;
  report.lines_used_tasks_over_50_ms = use.count;
  await context.close();
  await daemon.close();
}

await browser.close();
for (const [name, value] of Object.entries(report)) console.log(`${name.padEnd(36)} ${value === 0 && name.includes("longest") ? "under 50" : value}`);
if (json) writeFileSync(json, JSON.stringify(report, null, 2));
