// What `make demo` made, in the console, by the links that it prints: both runs' curves overlaid, the log
// store of each template, charts of each app, the switch of versions marked on the latency of the server.
// It looks at what is drawn, pixel by pixel. Usage: demo.mjs --build DIR --report report.json
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { SIZES, launch, open, options, photographer, runAll, sound, until } from "./browser.mjs";

const { build, report } = options();
const { links } = JSON.parse(readFileSync(report, "utf8"));
const photograph = photographer(join(build, "screenshots"));
const home = new URL("/", links.curves).href;
const browser = await launch();

const figure = (page, title) => page.locator("figure.chart", { has: page.locator(`h3:text-is("${title}")`) });

// For each CSS colour: how many pixels of a chart have it, the first and last column, and the column that
// has most of them with its share of the height. Columns are fractions of the drawing's width.
const ink = (chart, colours) => chart.locator("canvas").first().evaluate((canvas, names) => {
  const { data, width, height } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const probe = document.createElement("span");
  document.body.append(probe);
  const found = {};
  for (const name of names) {
    probe.style.color = `var(${name})`;
    const [r, g, b] = getComputedStyle(probe).color.match(/\d+/g).map(Number);
    const columns = new Array(width).fill(0);
    for (let i = 0; i < data.length; i += 4) {
      if (data[i + 3] > 200 && Math.abs(data[i] - r) + Math.abs(data[i + 1] - g) + Math.abs(data[i + 2] - b) < 40) columns[(i / 4) % width]++;
    }
    const inked = columns.flatMap((n, x) => (n > 0 ? [x] : []));
    const most = columns.indexOf(Math.max(...columns));
    found[name] = { pixels: columns.reduce((a, b2) => a + b2, 0), first: (inked[0] ?? 0) / width, last: (inked.at(-1) ?? 0) / width, column: most / width, share: columns[most] / height };
  }
  probe.remove();
  return found;
}, colours);

// A page of the demo; the test fails on any script error or stopped script besides.
const visit = (link, body, options = {}) => async () => {
  const session = await open(browser, home, { size: { width: 1280, height: 900 }, ...options });
  try {
    await session.page.goto(link);
    await body(session.page);
    session.check();
  } finally {
    await session.context.close();
  }
};

const tests = [
  ["the curves of both runs lie over each other", visit(links.curves, async (page) => {
    for (const title of ["loss", "accuracy"]) {
      const chart = figure(page, title);
      await chart.locator("canvas").waitFor();
      const legend = await until("all four curves", async () => {
        const text = await chart.locator("ul").innerText();
        return ["mnist-train/1 train", "mnist-train/1 validation", "mnist-train/2 train", "mnist-train/2 validation"].every((name) => text.includes(name)) && text;
      });
      assert.match(legend, /mnist-train\/2 validation\s+0\.\d+/);
      const drawn = await until("both are drawn", async () => {
        const found = await ink(chart, ["--chart-1", "--chart-2"]);
        return found["--chart-1"].pixels > 300 && found["--chart-2"].pixels > 15 && found;
      });
      // 2000 steps go through the whole chart, the 100 of the first run lie at its begin.
      assert.ok(drawn["--chart-1"].last - drawn["--chart-2"].last > 0.5, JSON.stringify(drawn));
    }
    // Two runs side by side: what they were given and what came of it; which of them serves.
    await page.getByRole("row", { name: /^TRAIN_STEPS 100 2000/ }).waitFor();
    await page.getByRole("row", { name: /^validation\/loss 0\.\d+ 0\.\d+ -0\.\d+ better/ }).waitFor();
    assert.match(await page.locator("tr", { hasText: "mnist-train/2" }).first().innerText(), /serves now/);
    assert.doesNotMatch(await page.locator("tr", { hasText: "mnist-train/1" }).first().innerText(), /serves now/);
    // And what is no curve.
    await page.locator("section.item canvas").first().waitFor();
    await page.locator("section.item img").first().waitFor();
    await until("the picture is loaded", () => page.locator("section.item img").first().evaluate((img) => img.naturalWidth === 280));
    await page.getByText(/2000 steps of 50 digits each/).waitFor();
  })],

  ["the switch of versions is marked on the latency of the server, and each version has its curve", visit(links.switch, async (page) => {
    for (const title of ["Requests by version", "Latency by version"]) {
      const chart = figure(page, title);
      await chart.locator("canvas").waitFor();
      const found = await until(`${title} is drawn`, async () => {
        const inked = await ink(chart, ["--chart-1", "--chart-2", "--good"]);
        return inked["--chart-1"].pixels > 20 && inked["--chart-2"].pixels > 20 && inked["--good"].share > 0.5 && inked;
      });
      // Lines from top to bottom at the begin of each version: version 2 has no point left of its own.
      assert.ok(found["--chart-1"].first < found["--good"].last, JSON.stringify(found));
      assert.ok(found["--chart-2"].last > found["--good"].last, JSON.stringify(found));
    }
    const box = await figure(page, "Latency by version").locator(".u-over").boundingBox();
    const at = await page.locator(".events li", { hasText: "version 2 serves now" }).innerText();
    const [hours, minutes, seconds] = /(\d\d):(\d\d):(\d\d)/.exec(at).slice(1).map(Number);
    const span = new URLSearchParams(links.switch.split("?")[1]);
    const [from, to] = [Number(span.get("from")), Number(span.get("to"))];
    const moment = new Date(from).setHours(hours, minutes, seconds, 500);
    await page.mouse.move(box.x + (box.width * (moment - from)) / (to - from), box.y + box.height / 2);
    // The pointer at the line says what happened there, on every chart of the page.
    for (const title of ["Latency by version", "CPU by instance", "Log lines"]) {
      await figure(page, title).locator("li.marker", { hasText: "version 2 serves now" }).first().waitFor();
    }
    for (const title of ["CPU by instance", "Memory by instance"]) {
      assert.ok((await ink(figure(page, title), ["--chart-1"]))["--chart-1"].pixels > 50, title);
    }
  })],

  ["the trainer's time line has its log, both runs' curves and the change of configuration", visit(links.training, async (page) => {
    await figure(page, "Log lines").locator("canvas").waitFor();
    await until("both runs are drawn, one after the other", async () => {
      const found = await ink(figure(page, "loss"), ["--chart-1", "--chart-2"]).catch(() => null);
      return found && found["--chart-1"].pixels > 5 && found["--chart-2"].pixels > 5 && found["--chart-2"].last > found["--chart-1"].last;
    });
    await page.locator(".events li", { hasText: "revision 2" }).first().waitFor();
  })],

  ["the client's time line has charts", visit(links.client, async (page) => {
    await until("its CPU is drawn", async () => {
      const found = await ink(figure(page, "CPU by instance"), ["--chart-1"]).catch(() => null);
      return found && found["--chart-1"].pixels > 30;
    });
  })],

  ...[["training", /exported \/models\/mnist\/00000002/], ["serving", /version 2 loaded/], ["client", /Inference error rate: [\d.]+%/]].map(([store, line]) =>
    [`the log store ${store} has its template's lines`, visit(links[`log store ${store}`], async (page) => {
      await page.locator(".line", { hasText: line }).first().waitFor();
      await page.locator(`nav a[aria-current]:text-is("${store}")`).waitFor();
      await until("the histogram is drawn", async () => (await ink(figure(page, "Log lines"), ["--chart-5"]).catch(() => null))?.["--chart-5"].pixels > 20);
    })]),

  ["the server's page tells which version serves and which run made it, and leads there", visit(links.versions, async (page) => {
    const row = page.locator("tr", { hasText: "mnist-train/2" });
    await row.getByText("serves now").waitFor();
    assert.equal(await page.locator("tr", { hasText: "mnist-train/1" }).getByText("serves now").count(), 0);
    await row.getByRole("link", { name: /mnist-train\/2/ }).click();
    await page.getByRole("checkbox", { name: "Show mnist-train/2" }).waitFor();
    assert.equal(await page.getByRole("checkbox", { name: "Show mnist-train/2" }).isChecked(), true);
    assert.equal(await page.getByRole("checkbox", { name: "Show mnist-train/1" }).isChecked(), false);
  })],

  ["TensorBoard opens with one click, with the runs of both revisions", visit(links.curves, async (page) => {
    const [board] = await Promise.all([page.context().waitForEvent("page"), page.getByRole("link", { name: "TensorBoard: mnist-train" }).click()]);
    await board.locator("tb-webapp").waitFor({ timeout: 60_000 });
    await board.getByText("r2/train").first().waitFor({ timeout: 60_000 });
    await board.getByText("r1/train").first().waitFor();
    await photograph(board, "demo-tensorboard");
    await board.close();
  })],
];

// Every page with the demo's data: within its window, accessible, photographed.
const PAGES = [["line", home], ["apps", `${home}#/apps`], ["train", `${home}#/apps/mnist-train`], ["train-log", `${home}#/apps/mnist-train/logs`], ["train-revisions", `${home}#/apps/mnist-train/revisions`],
  ["train-events", `${home}#/apps/mnist-train/events`], ["curves", links.curves], ["switch", links.switch], ["training", links.training], ["client", links.client], ["serve", links.versions], ["logs", links["log store serving"]],
  ["charts", `${home}#/charts`], ["charts-serving", `${home}#/charts/serving`], ["charts-apps", `${home}#/charts/apps?app=mnist-serve`], ["alerts", `${home}#/alerts`], ["volumes", `${home}#/volumes`], ["images", `${home}#/images`], ["system", `${home}#/system`]];
for (const [language, theme, width] of [["en", "light", 1280], ["zh", "dark", 390]]) {
  tests.push([`every page of the demo is sound: ${language}, ${theme}, ${width} px`, visit(home, async (page) => {
    const violations = [];
    for (const [name, link] of PAGES) {
      await page.goto(link);
      await page.locator("main .card, main .station").first().waitFor();
      await page.waitForLoadState("networkidle", { timeout: 1200 }).catch(() => {}); // a live page is never quite idle
      await photograph(page, `demo-${name}-${language}-${theme}-${width}`);
      violations.push(...(await sound(page, `${name} ${language} ${theme} ${width}`)));
    }
    assert.deepEqual(violations, []);
  }, { locale: language === "zh" ? "zh-CN" : "en-GB", colorScheme: theme, size: SIZES[width] })]);
}

let failed = 1;
try {
  failed = await runAll(tests);
} finally {
  await browser.close();
}
process.exit(failed ? 1 : 0);
