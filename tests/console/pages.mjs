// Every page against a daemon made of data, in both languages, both themes and several widths: sound,
// accessible, within the window. Usage: pages.mjs --build DIR
import assert from "node:assert/strict";
import { join } from "node:path";
import { SIZES, launch, open, options, photographer, runAll, sound } from "./browser.mjs";
import { app, fakeDaemon, instance, line, mnist, service } from "./fake.mjs";

const { build } = options();
const dist = join(build, "console/dist");
const photograph = photographer(join(build, "screenshots"));
const browser = await launch();

const PAGES = [
  ["line", "", ".station"],
  ["apps", "apps", "a.app"],
  ["deploy", "deploy?example=training", ".fields input"],
  ["app", "apps/mnist-train", "table"],
  ["app-log", "apps/mnist-train/logs", ".line"],
  ["app-revisions", "apps/mnist-train/revisions", ".host"],
  ["app-timeline", "apps/mnist-train/timeline", ".u-over", 6],
  ["app-events", "apps/mnist-train/events", "li"],
  ["app-failure", "apps/mnist-train-wide/failure", ".line"],
  ["change", "apps/mnist-train/change", ".fields input"],
  ["app-learning", "apps/mnist-train/learning", ".u-over", 3],
  ["logs", "logs", ".line"],
  ["learning", "learning?smooth=0.6", ".u-over", 3],
  ["charts", "charts", ".u-over", 7],
  ["charts-serving", "charts/serving", ".u-over", 3],
  ["charts-apps", "charts/apps?app=mnist-train", ".u-over", 2],
  ["alerts", "alerts", "table"],
  ["volumes", "volumes", "table"],
  ["images", "images", "table"],
  ["system", "system", "dl"],
  ["not-found", "nowhere", "h1"],
];

async function visit(page, daemon, path, ready, charts = 0) {
  await page.goto(`${daemon.url}#/${path}`);
  await page.locator(`main ${ready}`).first().waitFor();
  await page.evaluate(() => document.fonts.ready);
  if (/deploy|change/.test(path)) await page.locator(".plan li").first().waitFor({ timeout: 4000 }).catch(() => {});
  if (charts > 0) await page.locator(".u-over").nth(charts - 1).waitFor();
  if (path === "logs") await page.locator(".line", { hasText: "ValueError" }).first().click();
  if (/deploy|revisions/.test(path)) await page.locator(".cm-line").first().waitFor();
}

const tests = [];
const looks = [["en", "light", 1280], ["zh", "light", 1280], ["en", "dark", 1280], ["en", "light", 390], ["zh", "dark", 390]];
for (const [language, theme, width] of looks) {
  tests.push([`every page is sound: ${language}, ${theme}, ${width} px`, async () => {
    const daemon = await fakeDaemon({ dist });
    const { page, context, check } = await open(browser, daemon.url, { locale: language === "zh" ? "zh-CN" : "en-GB", size: SIZES[width], colorScheme: theme });
    const violations = [];
    try {
      for (const [name, path, ready, charts] of PAGES) {
        await visit(page, daemon, path, ready, charts);
        assert.equal(await page.locator("html").getAttribute("lang"), language === "zh" ? "zh-CN" : "en");
        await photograph(page, `${name}-${language}-${theme}-${width}`);
        violations.push(...(await sound(page, `${name} ${language} ${theme} ${width}`)));
      }
      assert.deepEqual(violations, []);
      check();
    } finally {
      await context.close();
      await daemon.close();
    }
  }]);
}

export { browser, dist, tests };
const failed = await runAll(tests);
await browser.close();
process.exit(failed ? 1 : 0);
