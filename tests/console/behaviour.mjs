// How the console behaves, against a daemon made of data. Usage: behaviour.mjs --build DIR
import assert from "node:assert/strict";
import { join } from "node:path";
import { SIZES, launch, open, options, runAll, sound, until } from "./browser.mjs";
import { app, fakeDaemon, instance, line, mnist, service } from "./fake.mjs";

const { build } = options();
const dist = join(build, "console/dist");
const browser = await launch();

// One daemon and one page per test; the test fails on any script error or stopped script besides.
function scenario(name, options, body) {
  return [name, async () => {
    const daemon = await fakeDaemon({ dist, ...(options.state ? { state: options.state() } : {}) });
    const session = await open(browser, daemon.url, options);
    try {
      await body(session.page, daemon, session);
      session.check();
    } finally {
      await session.context.close();
      await daemon.close();
    }
  }];
}
const go = (page, daemon, path) => page.goto(`${daemon.url}#/${path}`);
const empty = () => ({ ...mnist(), apps: [], events: [], volumes: [] });

const EVIL = `<img src=x onerror=alert(1)><script>alert(2)</script>"'\`\${7*7}javascript:alert(3)`;

const tests = [
  scenario("the stations tell the version that a trainer made, that a server serves, and the error rate", {}, async (page) => {
    for (const [name, fact] of [["mnist-serving", /Serves version 2/], ["mnist-client", /Error rate 8\.4%/]]) {
      await page.locator("a.app", { hasText: name }).filter({ hasText: fact }).waitFor();
    }
    await page.locator("a.app", { hasText: /^mnist-train\b(?!-)/ }).filter({ hasText: /Newest version 2/ }).first().waitFor();
    await page.locator("a.app", { hasText: "mnist-train-wide" }).filter({ hasText: /Newest version –/ }).waitFor(); // unknown is no number
  }),

  scenario("an empty line offers the three examples, and one opens in the form", { state: empty }, async (page) => {
    const links = page.locator("a.example");
    await links.first().waitFor();
    assert.equal(await links.count(), 3);
    await links.first().click();
    await page.locator("#parameter-VERSION").waitFor();
    assert.match(page.url(), /#\/deploy\?example=training/);
    assert.equal(await page.locator("#parameter-VERSION").inputValue(), "1"); // the template's default
  }),

  scenario("deploying: error at its line, required fields, the missing volume, then exactly what the form says", { state: empty }, async (page, daemon) => {
    await go(page, daemon, "deploy");
    const editor = page.locator(".cm-content");
    await editor.waitFor();
    const write = async (text) => {
      await editor.click();
      await page.keyboard.press("Control+A");
      await page.keyboard.press("Delete"); // Chromium would style what it replaces, and the policy stops that
      await page.keyboard.insertText(text);
    };
    const template = "services:\n  tensor:\n    image: mnist\n    command: run ${VERSION:?say which version} ${STEPS:-100}\n    volumes:\n      - mnist_model:/m\n";
    await write(template.replace("command:", "comand:"));
    const issue = page.locator("li.error button");
    await issue.waitFor();
    assert.match(await issue.innerText(), /4:5[\s\S]*unknown field[\s\S]*did you mean command\?/);
    await page.locator(".cm-lint-marker-error").waitFor();
    await issue.click(); // leads to the place
    await until("the cursor is on line 4", async () => (await page.locator(".cm-activeLine").innerText()).includes("comand"));
    const deploy = page.locator("form button.primary");
    assert.equal(await deploy.isDisabled(), true);

    await write(template);
    await page.locator("#name").fill("trial");
    const version = page.locator("#parameter-VERSION");
    await version.waitFor();
    await until("no error is left", async () => (await issue.count()) === 0);
    await version.focus();
    await page.locator("#parameter-STEPS").focus();
    await page.getByText("say which version").first().waitFor(); // the template's own words
    assert.equal(await deploy.isDisabled(), true);
    await version.fill("7");
    await page.locator(".plan li").first().waitFor();
    assert.match(await page.locator("#blocked").innerText(), /volumes/);
    await page.locator("label.create input").check();
    await until("the button is free", async () => !(await deploy.isDisabled()));
    await page.getByText("Volume mnist_model is created.").waitFor();
    await deploy.click();
    await page.locator("h1", { hasText: "trial" }).waitFor();
    const sent = daemon.calls.filter((c) => c.method === "POST" && c.path === "/apps" && !c.dryRun).at(-1).body;
    assert.deepEqual(sent, { name: "trial", template, template_name: "template", values: { VERSION: "7" }, volume_options: {}, create_volumes: true });
  }),

  scenario("a value's wrong type warns and does not stop", {}, async (page, daemon) => {
    await go(page, daemon, "apps/mnist-train/change");
    await page.locator("#parameter-VERSION").fill("latest");
    await page.getByText("Expected here: integer").waitFor();
    await until("apply is free", async () => !(await page.locator("form button.primary").isDisabled()));
  }),

  scenario("change configuration is prefilled, shows what restarts, and sends all values with the reason", {}, async (page, daemon) => {
    await go(page, daemon, "apps/mnist-train/change");
    const version = page.locator("#parameter-VERSION");
    await version.waitFor();
    assert.equal(await version.inputValue(), "2");
    assert.equal(await page.locator("#parameter-TRAIN_STEPS").inputValue(), "2000");
    await version.fill("3");
    await page.locator(".plan ins", { hasText: "--export_version=3" }).waitFor();
    assert.match(await page.locator(".plan").innerText(), /restarts\s*tensor[\s\S]*unchanged\s*board/);
    assert.match(await page.locator(".field.changed").innerText(), /VERSION[\s\S]*now 2/);
    await page.locator("#why").fill("a better one");
    await page.locator("form button.primary").click();
    await page.locator("table").first().waitFor();
    const sent = daemon.calls.filter((c) => c.method === "PUT" && !c.dryRun).at(-1).body;
    assert.deepEqual(sent.values, { VERSION: "3", TRAIN_STEPS: "2000" });
    assert.equal(sent.why, "a better one");
  }),

  scenario("roll back asks first and shows what it does", {}, async (page, daemon) => {
    await go(page, daemon, "apps/mnist-train/revisions");
    await page.getByRole("button", { name: "Roll back to 1" }).click();
    const dialog = page.getByRole("dialog");
    await dialog.waitFor();
    assert.match(await dialog.innerText(), /restarts\s*tensor/);
    assert.equal(daemon.calls.some((c) => c.path.endsWith("/rollback") && !c.dryRun), false);
    await dialog.getByRole("button", { name: "Roll back" }).click();
    await page.locator(".toast.good").waitFor();
    assert.deepEqual(daemon.calls.filter((c) => c.path.endsWith("/rollback") && !c.dryRun).at(-1).body, { revision: 1 });
  }),

  scenario("removing says which volumes stay; Escape leaves everything", {}, async (page, daemon) => {
    await go(page, daemon, "apps/mnist-serving");
    await page.getByRole("button", { name: "Remove" }).click();
    await page.getByRole("dialog").getByText("mnist_model", { exact: true }).waitFor();
    await page.keyboard.press("Escape");
    await until("the dialog is closed", async () => (await page.getByRole("dialog").count()) === 0);
    assert.equal(daemon.calls.some((c) => c.method === "DELETE"), false);
  }),

  scenario("what changes on the daemon shows without a reload", {}, async (page, daemon) => {
    const card = page.locator("a.app", { hasText: "mnist-serving" });
    await card.waitFor();
    const serving = daemon.state.apps.find((a) => a.name === "mnist-serving");
    daemon.push("app", { ...serving, state: "degraded", reason: "1 of 2 instances is not healthy" });
    await card.getByText("1 of 2 instances is not healthy").waitFor();
    assert.match(await card.innerText(), /degraded/);
    daemon.push("app_removed", { name: "mnist-serving" });
    await until("the card is gone", async () => (await card.count()) === 0);
    daemon.push("event", { id: 99, time: new Date().toISOString(), app: "", kind: "note", message: "a new event", level: "info" }, 99);
    await page.getByText("a new event").waitFor();
  }),

  scenario("a lost connection is said, and comes back by itself", { allowStatus: ["ERR_"] }, async (page, daemon) => {
    await page.locator("a.app").first().waitFor();
    await page.context().setOffline(true);
    daemon.drop();
    await page.getByText("The connection to the daemon is lost").waitFor();
    await page.context().setOffline(false);
    await until("the warning is gone", async () => (await page.getByText("The connection to the daemon is lost").count()) === 0);
  }),

  scenario("the log follows, pauses, filters, and a level is told", {}, async (page, daemon) => {
    await go(page, daemon, "apps/mnist-train/logs");
    await page.locator(".line", { hasText: "exported /models" }).waitFor();
    daemon.pushLines([line("level=error msg=first")]);
    const last = page.locator(".line", { hasText: "msg=first" });
    await last.waitFor();
    assert.match(await last.innerText(), /ERROR/);
    await until("one stream a tab, the log's lines on it too", () => daemon.openStreams() === 1);
    await page.getByRole("button", { name: "Pause" }).click();
    daemon.pushLines([line("second"), line("third")]);
    await page.getByRole("button", { name: /Resume\s*\+2/ }).click();
    await page.locator(".line", { hasText: "third" }).waitFor();
    await page.getByRole("searchbox").fill("/^step=1[05]00 /");
    await until("two lines stay", async () => (await page.locator(".line").count()) === 2);
    assert.match(page.url(), /logs\?q=/); // a deep link
    await page.getByRole("searchbox").fill("");
    await page.getByLabel("Level", { exact: true }).selectOption("warn");
    await until("warnings and errors", async () => (await page.locator(".line").count()) === 2);
  }),

  scenario("logs are searched, narrowed by a field, looked at with what was around, and the address says it all", {}, async (page, daemon) => {
    await go(page, daemon, "logs");
    await page.locator(".line").first().waitFor();
    await page.getByRole("searchbox").fill("valueerror");
    await page.getByRole("searchbox").press("Enter");
    await until("one matches", async () => (await page.locator(".line").count()) === 1);
    assert.match(page.url(), /logs\?.*q=valueerror/);
    await page.locator(".line").click();
    await page.locator(".near", { hasText: "Traceback" }).waitFor();
    await page.locator(".detail .linkish", { hasText: "mnist-train-wide" }).first().click();
    await until("the question is narrower", () => /app%3Dmnist-train-wide/.test(page.url()));
    const address = page.url();
    await page.getByRole("button", { name: "Saved searches" }).click();
    const dialog = page.getByRole("dialog");
    await dialog.getByLabel("Name").fill("the bad rate");
    await dialog.getByRole("button", { name: "Save" }).click();
    await dialog.getByRole("button", { name: /^the bad rate/ }).waitFor(); // the daemon told that its list changed
    assert.deepEqual(daemon.calls.find((c) => c.method === "PUT" && c.path === "/logs/searches/the%20bad%20rate").body, { query: "valueerror app=mnist-train-wide", span_seconds: 3600 });
    await dialog.getByRole("button", { name: /^errors of training/ }).click();
    await until("the kept question is asked", () => daemon.calls.some((c) => c.path === "/logs" && c.query.query === "level>=error app=mnist-train"));

    await go(page, daemon, "");
    await page.goto(address);
    assert.equal(await page.getByRole("searchbox").inputValue(), "valueerror app=mnist-train-wide");
  }),

  scenario("a chart is dragged and every chart of the page moves with it", {}, async (page, daemon) => {
    await go(page, daemon, "apps/mnist-train/timeline");
    await page.locator(".u-over").nth(5).waitFor();
    const box = await page.locator(".u-over").nth(1).boundingBox();
    await page.mouse.move(box.x + box.width * 0.3, box.y + 20);
    await page.mouse.down();
    await page.mouse.move(box.x + box.width * 0.6, box.y + 25, { steps: 5 });
    await page.mouse.up();
    await until("the span is in the address", () => /from=\d+&to=\d+/.test(page.url()));
    const [from, to] = [/from=(\d+)/, /to=(\d+)/].map((r) => Number(r.exec(page.url())[1]));
    assert.ok(to - from < 30 * 60_000, String(to - from));
    await until("the others were asked about it", () => daemon.calls.some((c) => c.path === "/metrics/query" && Math.abs(Date.parse(c.query.from) - from) < 1000));
    const now = await page.locator(".u-over").nth(1).boundingBox();
    await page.mouse.move(now.x + now.width * 0.5, now.y + 40);
    await until("all of them read the same moment", async () => {
      const times = await page.locator("figure .num.xs").allInnerTexts();
      return times.length === 6 && times[0] !== "" && times.every((time) => time === times[0]);
    });
  }),

  scenario("what changes the address alone leaves the page and the focus in place", {}, async (page, daemon) => {
    const acts = [["apps", () => page.getByRole("searchbox").pressSequentially("mn")], ["apps/mnist-train/logs", () => page.getByRole("searchbox").pressSequentially("st")],
      ["apps/mnist-train/timeline", () => page.getByRole("button", { name: "6 hours" }).click()], ["learning", () => page.getByRole("button", { name: "Log y" }).click()]];
    for (const [path, act] of acts) {
      await go(page, daemon, path);
      await page.locator("main .card").first().waitFor();
      if (path === "learning") await page.getByRole("button", { name: "Log y" }).waitFor();
      await page.evaluate(() => (globalThis.heading = document.querySelector("h1")));
      await act();
      await until("the address says it", () => /\?(q|span|log)=/.test(page.url()));
      assert.deepEqual(await page.evaluate(() => [globalThis.heading.isConnected, document.activeElement === document.body]), [true, false], path);
    }
  }),

  scenario("an alert is told on every page, silenced, and heard again; a rule is switched off", {}, async (page, daemon) => {
    const badge = page.locator("nav .badge", { hasText: "1 alert fires" });
    await badge.waitFor();
    await go(page, daemon, "alerts");
    await page.getByText("mnist-train-wide has failed").waitFor();
    await page.getByLabel("Silence for app_failed").selectOption("60");
    await page.getByText("silenced", { exact: true }).waitFor();
    assert.deepEqual(daemon.calls.find((c) => c.path === "/alerts/silences").body, { rule: "app_failed", labels: { app: "mnist-train-wide" }, minutes: 60 });
    await page.getByRole("button", { name: "End app_failed" }).click();
    await page.getByText("firing", { exact: true }).waitFor();
    await page.getByRole("button", { name: "low_disk: on" }).click();
    await page.getByRole("button", { name: "low_disk: off" }).waitFor();
  }),

  scenario("a rule is made, tried before it is kept, changed and removed; a receiver is tested and kept", {}, async (page, daemon) => {
    await go(page, daemon, "alerts");
    await page.getByRole("button", { name: "Add a rule" }).click();
    const dialog = page.getByRole("dialog");
    await dialog.getByLabel("Name").fill("many_requests");
    await dialog.getByLabel("Metric", { exact: true }).fill("takt_serving_requests_total");
    await dialog.getByLabel("What of it").selectOption("rate");
    await dialog.getByLabel("Threshold").fill("1000");
    await dialog.getByLabel("What it says").fill("{app} answers {value} requests a second");
    await dialog.getByRole("button", { name: "Try" }).click();
    await dialog.getByText("Reads 2 series now; 1 would fire.").waitFor();
    assert.equal(daemon.state.alerts.rules.some((r) => r.name === "many_requests"), false);
    await dialog.getByRole("button", { name: "Save" }).click();
    await until("it was sent", () => daemon.state.alerts.rules.some((r) => r.name === "many_requests" && r.threshold === 1000 && r.function === "rate"));
    await page.getByRole("button", { name: "Edit many_requests" }).click();
    await dialog.getByLabel("Threshold").fill("2000");
    await dialog.getByRole("button", { name: "Save" }).click();
    await page.getByText("above 2,000").waitFor();
    await page.getByRole("button", { name: "Remove many_requests" }).click();
    await until("it is gone", () => !daemon.state.alerts.rules.some((r) => r.name === "many_requests"));

    await page.getByRole("button", { name: "Edit mail" }).click();
    await dialog.getByLabel("Server").fill("smtp.example:465");
    await dialog.getByRole("button", { name: "Send a test" }).click();
    await dialog.getByText("The test was delivered.").waitFor();
    await dialog.getByRole("button", { name: "Save" }).click();
    await until("it was kept", () => daemon.calls.some((c) => c.method === "PUT" && c.path === "/alerts/receivers/mail" && c.body.server === "smtp.example:465" && !("password" in c.body)));
    await page.getByRole("button", { name: "Silence alerts" }).click();
    await dialog.getByLabel("Labels (optional)").fill("app=mnist-train-wide");
    await dialog.getByRole("button", { name: "Silence", exact: true }).click();
    await until("it was sent", () => daemon.calls.some((c) => c.path === "/alerts/silences" && c.body.labels.app === "mnist-train-wide" && c.body.rule === ""));
  }),

  scenario("what a run wrote besides curves: distributions, images by step, texts that are text", {}, async (page, daemon) => {
    await go(page, daemon, "learning?runs=mnist-train/2");
    await page.locator("canvas").first().waitFor();
    const image = page.locator("section.item img");
    await image.waitFor();
    assert.match(await image.getAttribute("src"), /learning\/image\?.*step=1900/);
    await page.getByLabel("Step train/digit").fill("3");
    await until("another step is shown", async () => /step=300$/.test(await image.getAttribute("src")));
    await page.getByText("<img src=x onerror=alert(1)>").waitFor();
    assert.match(await page.getByRole("link", { name: "TensorBoard: mnist-train" }).getAttribute("href"), /^tensorboard\/mnist-train\/$/);
  }),

  scenario("runs are chosen, overlaid and compared", {}, async (page, daemon) => {
    await go(page, daemon, "learning?runs=-");
    await page.getByRole("checkbox", { name: "Show mnist-train/2" }).check();
    await page.locator(".u-over").first().waitFor();
    await page.getByRole("checkbox", { name: "Show mnist-train/1" }).check();
    await page.getByRole("row", { name: "VERSION 1 2", exact: true }).waitFor();
    await until("both runs are in the legend", async () => {
      const legend = await page.locator("figure").first().innerText();
      return legend.includes("mnist-train/1 train") && legend.includes("mnist-train/2 validation");
    });
    assert.match(page.url(), /runs=mnist-train%2F2%2Cmnist-train%2F1/);
    await page.getByLabel("X axis").selectOption("relative");
    await page.getByRole("button", { name: "Log y" }).click();
    await until("it is in the address", () => /x=relative/.test(page.url()) && /log=1/.test(page.url()));
  }),

  scenario("a hundred thousand lines are a few dozen elements; the oldest beyond that are said to be gone", {}, async (page, daemon) => {
    await go(page, daemon, "apps/mnist-client/logs");
    await page.locator(".line").first().waitFor();
    for (let i = 0; i < 24; i++) daemon.pushLines(Array.from({ length: 5000 }, (_, k) => line(`line ${i * 5000 + k}`)));
    await page.locator(".line", { hasText: /line 119999$/ }).waitFor({ timeout: 60_000 });
    assert.ok((await page.locator(".line").count()) < 120);
    assert.match(await page.locator("section.log footer").innerText(), /older ones are not kept here/);
  }),

  scenario("a thousand apps: found by name, few elements", { state: () => ({ ...mnist(), apps: Array.from({ length: 1000 }, (_, i) => app(`app-${String(i).padStart(4, "0")}`, { services: [service("s", i % 2 ? "serving" : "training", {})] })) }) }, async (page, daemon) => {
    await page.getByText("492 more").first().waitFor();
    await go(page, daemon, "apps");
    await page.locator("a.app").first().waitFor();
    assert.ok((await page.locator("a.app").count()) < 80);
    await page.getByRole("searchbox").fill("0777");
    await until("one is left", async () => (await page.locator("a.app").count()) === 1);
    assert.match(await page.locator("a.app").innerText(), /app-0777/);
  }),

  scenario("hostile text is text, everywhere", {
    state: () => {
      const state = mnist();
      const evil = app(EVIL, { state: "failed", reason: EVIL, values: { [EVIL]: EVIL }, services: [service(EVIL, "training", { state: "failed", reason: EVIL, image: EVIL, instances: [instance("x", "y", { id: EVIL, state: "exited", exit_code: 1, reason: EVIL, finished_at: new Date().toISOString() })] })] });
      evil.revision.why = EVIL;
      evil.revision.author = EVIL;
      evil.revision.number = 2;
      state.apps.push(evil);
      state.logs[EVIL] = [line(EVIL), line(`level=error ${EVIL}`, { service: EVIL })];
      state.events.push({ id: 50, time: new Date().toISOString(), app: EVIL, kind: EVIL, message: EVIL, level: "error" });
      state.volumes.push({ ...state.volumes[0], name: EVIL, host_path: EVIL, reason: EVIL, users: [EVIL] });
      return state;
    },
  }, async (page, daemon) => {
    const name = encodeURIComponent(EVIL);
    for (const path of ["", "apps", `apps/${name}`, `apps/${name}/logs`, `apps/${name}/revisions`, `apps/${name}/events`, `apps/${name}/failure`, `apps/${name}/change`, "volumes"]) {
      await go(page, daemon, path);
      await page.locator("main", { hasText: "onerror=alert(1)" }).waitFor();
      assert.equal(await page.locator('img[src="x"], main script').count(), 0, path);
    }
    assert.equal(await page.evaluate(() => document.querySelectorAll("script:not([src])").length), 0);
  }),

  scenario("every page is two clicks away from the front page", {}, async (page, daemon) => {
    await page.locator("a.app").first().waitFor();
    const links = () => page.locator("a[href^='#/']").evaluateAll((all) => all.map((a) => a.getAttribute("href").split("?")[0]));
    const first = new Set(await links());
    const all = new Set(first);
    for (const address of first) {
      await page.goto(`${daemon.url}${address}`);
      await page.locator("main h1").waitFor();
      for (const next of await links()) all.add(next);
    }
    const wanted = ["#/apps", "#/deploy", "#/logs", "#/learning", "#/charts", "#/charts/serving", "#/charts/apps", "#/alerts", "#/volumes", "#/images", "#/system",
      ...["", "/logs", "/learning", "/timeline", "/revisions", "/events", "/change"].map((tab) => `#/apps/mnist-train${tab}`), "#/apps/mnist-serving/timeline", "#/apps/mnist-train-wide/failure"];
    assert.deepEqual(wanted.filter((address) => !all.has(address)), []);
  }),

  scenario("the language comes from the browser, is switched and remembered", { locale: "zh-CN" }, async (page) => {
    await page.getByRole("heading", { name: "流水线" }).waitFor();
    await page.getByRole("button", { name: "English" }).click();
    await page.getByRole("heading", { name: "The line" }).waitFor();
    await page.reload();
    await page.getByRole("heading", { name: "The line" }).waitFor();
    assert.equal(await page.locator("html").getAttribute("lang"), "en");
  }),

  scenario("the theme is switched and remembered", {}, async (page) => {
    await page.getByRole("button", { name: "Dark theme" }).click();
    assert.equal(await page.locator("html").getAttribute("data-theme"), "dark");
    await page.reload();
    await page.locator("a.app").first().waitFor();
    assert.equal(await page.locator("html").getAttribute("data-theme"), "dark");
  }),

  scenario("all of it works by keyboard", {}, async (page) => {
    await page.locator("a.app").first().waitFor();
    await page.keyboard.press("Tab");
    assert.equal(await page.evaluate(() => document.activeElement.className.split(" ")[0]), "skip");
    await page.keyboard.press("Enter");
    await page.keyboard.press("Tab"); // into the content
    await page.keyboard.press("Tab");
    assert.equal(await page.evaluate(() => !!document.activeElement.closest("main a.app")), true);
    await page.keyboard.press("Enter");
    await page.getByRole("link", { name: "Log", exact: true }).focus();
    await page.keyboard.press("Enter");
    await page.locator(".line").first().waitFor();
    const remove = page.getByRole("button", { name: "Remove" });
    await remove.focus();
    await page.keyboard.press("Enter");
    await page.getByRole("dialog").waitFor();
    for (let i = 0; i < 6; i++) {
      await page.keyboard.press("Tab");
      assert.equal(await page.evaluate(() => document.activeElement === document.body || !!document.activeElement.closest("dialog")), true);
    }
    await page.keyboard.press("Escape");
    await until("focus is back where it was", () => page.evaluate(() => document.activeElement.textContent.includes("Remove")));
  }),

  scenario("a template that was changed is not lost by a slip", {}, async (page, daemon) => {
    await go(page, daemon, "apps/mnist-train/change");
    await page.locator("#parameter-VERSION").fill("9");
    await page.locator(".plan li").first().waitFor();
    page.removeAllListeners("dialog");
    let asked = 0;
    page.on("dialog", (dialog) => { asked++; void dialog.dismiss(); });
    await page.getByRole("link", { name: "Volumes" }).click();
    await until("it was asked", () => asked === 1);
    await until("the page is still there", () => /mnist-train\/change$/.test(page.url()));
    assert.equal(await page.locator("#parameter-VERSION").inputValue(), "9");
    page.removeAllListeners("dialog");
    page.on("dialog", (dialog) => void dialog.accept());
    await page.getByRole("link", { name: "Volumes" }).click();
    await page.locator("h1", { hasText: "Volumes" }).waitFor();
  }),

  scenario("a volume is created, with the directory that was named", {}, async (page, daemon) => {
    await go(page, daemon, "volumes");
    await page.getByRole("button", { name: "Create a volume" }).click();
    await page.getByLabel("Name").fill("data");
    await page.getByLabel("Directory (optional)").fill("/data/nas");
    await page.getByRole("button", { name: "Create", exact: true }).click();
    await until("it was sent", () => daemon.calls.some((c) => c.method === "POST" && c.path === "/volumes"));
    assert.deepEqual(daemon.calls.find((c) => c.method === "POST" && c.path === "/volumes").body, { name: "data", driver: "local", options: { device: "/data/nas" } });
  }),

  scenario("what the daemon refuses is said in its own words", { allowStatus: [404] }, async (page, daemon) => {
    daemon.state.volumes.push({ ...daemon.state.volumes[1], name: "gone", users: [] });
    await go(page, daemon, "volumes");
    await page.getByRole("button", { name: "Remove gone" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Remove" }).click();
    await page.locator(".toast.bad", { hasText: "no DELETE /volumes/gone" }).waitFor();
  }),

  ...[320, 390, 700, 861, 1024, 1920, 2560].map((width) =>
    scenario(`nothing is wider than a window of ${width} px`, { size: { width, height: 900 } }, async (page, daemon) => {
      for (const [path, ready] of [["", "a.app"], ["apps", "a.app"], ["apps/mnist-train", "table"], ["apps/mnist-train/revisions", "table"], ["apps/mnist-train-wide/failure", ".line"], ["apps/mnist-train/change", ".plan li"], ["deploy?example=serving", ".cm-line"], ["volumes", "table"], ["system", "dl"],
        ["logs", ".line"], ["learning", ".u-over"], ["alerts", "table"], ["charts", ".u-over"], ["apps/mnist-train/timeline", ".u-over"], ["apps/mnist-serving", "figure"]]) {
        await go(page, daemon, path);
        await page.locator(`main ${ready}`).first().waitFor();
        assert.deepEqual(await sound(page, `${path} at ${width}`), []);
      }
    })),
];

const failed = await runAll(tests);
await browser.close();
process.exit(failed ? 1 : 0);
