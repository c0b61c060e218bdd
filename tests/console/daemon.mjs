// The console against a real daemon, in both languages: deploy from the form, watch the log, change the
// configuration, roll back, see a failure, stop, start, remove. Usage: daemon.mjs --build DIR
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { SIZES, launch, open, options, photographer, runAll, sound, until } from "./browser.mjs";

const { build } = options();
const photograph = photographer(join(build, "screenshots"));
const EVIL = `<img src=x onerror=alert(1)><script>alert(2)</script>`;

// A daemon of its own on a free port; ends with all of its instances.
async function startDaemon() {
  const data = mkdtempSync(join(tmpdir(), "takt-console-"));
  const child = spawn(join(build, "bin/takt"), ["daemon", "--data-dir", data, "--listen", "127.0.0.1:0"], { stdio: ["ignore", "pipe", "pipe"] });
  let said = "";
  child.stdout.on("data", (text) => (said += text));
  child.stderr.on("data", (text) => (said += text));
  const url = await until("the daemon says where it listens", () => {
    if (child.exitCode !== null) throw new Error(`takt daemon ended: ${said}`);
    return /^(http:\/\/127\.0\.0\.1:\d+)/m.exec(said)?.[1];
  });
  const call = async (method, path, body) => {
    const response = await fetch(`${url}/api/v1${path}`, { method, headers: { "Content-Type": "application/json" }, body: body && JSON.stringify(body) });
    const text = await response.text();
    return { status: response.status, body: text ? JSON.parse(text) : undefined };
  };
  return {
    url: `${url}/`, call,
    async stop() {
      for (const app of (await call("GET", "/apps")).body.apps) await call("DELETE", `/apps/${encodeURIComponent(app.name)}`);
      await until("all apps are removed", async () => (await call("GET", "/apps")).body.apps.length === 0);
      const ended = new Promise((resolve) => child.on("exit", resolve));
      child.kill("SIGTERM");
      await ended;
      rmSync(data, { recursive: true, force: true });
    },
  };
}

const TEMPLATE = `services:
  ticker:
    image: takt/host
    command:
      - sh
      - -c
      - 'echo "level=error msg=\${MESSAGE:-hello}"; i=0; while :; do i=$$((i+1)); echo "tick $$i version=\${VERSION:?say which version}"; sleep 0.2; done'
    volumes:
      - trial_data:/data
`;
const FAILING = `services:
  once:
    image: takt/host
    command: ["sh", "-c", "echo before the end; echo 'ERROR: it broke' >&2; exit 3"]
`;

const browser = await launch();
const daemon = await startDaemon();

async function write(page, text) {
  await page.locator(".cm-content").click();
  await page.keyboard.press("Control+A");
  await page.keyboard.press("Delete");
  await page.keyboard.insertText(text);
}

// Everything is found by its place, not by its words, so that it holds in both languages.
const walk = (locale) => async () => {
  const name = `trial-${locale.slice(0, 2)}`;
  const session = await open(browser, daemon.url, { locale });
  const { page } = session;
  const revision = async () => (await daemon.call("GET", `/apps/${name}`)).body.revision;
  const photo = (what) => photograph(page, `daemon-${what}-${locale.slice(0, 2)}`);
  try {
    // Deploy: an error first, then the form.
    await page.goto(`${daemon.url}#/deploy`);
    await page.locator(".cm-content").waitFor();
    await write(page, TEMPLATE.replace("command:", "comand:"));
    await page.locator("li.error button", { hasText: "command" }).waitFor();
    assert.match(await page.locator("li.error button").first().innerText(), /4:5/);
    await write(page, TEMPLATE);
    await page.locator("#name").fill(name);
    await page.locator("#parameter-VERSION").fill("1");
    assert.equal(await page.locator("#parameter-MESSAGE").inputValue(), "hello");
    const go = page.locator("form button.primary");
    if (locale.startsWith("en")) {
      await page.locator("label.create input").check(); // the second walk finds the volume there
    }
    await until("the button is free", async () => !(await go.isDisabled()));
    await photo("deploy");
    await go.click();
    await page.locator("h1", { hasText: name }).waitFor();
    await page.locator(".state.good").first().waitFor();
    await until("an instance is shown", async () => (await page.locator("table tbody tr").count()) === 1);
    await photo("app");

    // The log, live.
    await page.goto(`${daemon.url}#/apps/${name}/logs`);
    await page.locator(".line", { hasText: /tick \d+ version=1/ }).first().waitFor();
    await page.locator(".line.error", { hasText: "msg=hello" }).first().waitFor();
    const count = await page.locator(".line").count();
    await until("more lines come", async () => (await page.locator(".line").count()) > count);
    await photo("log");

    // Change configuration: hostile text is text.
    await page.goto(`${daemon.url}#/apps/${name}/change`);
    await page.locator("#parameter-VERSION").fill("2");
    await page.locator("#parameter-MESSAGE").fill(EVIL);
    await page.locator(".plan ins", { hasText: "version=2" }).waitFor();
    await page.locator("#why").fill("the second");
    await until("apply is free", async () => !(await go.isDisabled()));
    await photo("change");
    await go.click();
    await page.locator(".card table").first().waitFor(); // on the app's page again
    await until("there is a second revision", async () => (await revision()).number === 2);
    assert.deepEqual((await revision()).configuration.values, { VERSION: "2", MESSAGE: EVIL });
    assert.equal((await revision()).why, "the second");
    await page.goto(`${daemon.url}#/apps/${name}/logs`);
    await page.locator(".line", { hasText: /tick \d+ version=2/ }).first().waitFor();
    await page.locator(".line", { hasText: "onerror=alert(1)" }).first().waitFor();

    // Revisions, compared; roll back.
    await page.goto(`${daemon.url}#/apps/${name}/revisions`);
    await page.locator("td", { hasText: "VERSION" }).first().waitFor();
    await photo("revisions");
    await page.locator("td.right button").first().click();
    await page.locator("dialog .plan li").first().waitFor();
    await page.locator("dialog footer button.primary").click();
    await until("there is a third revision", async () => (await revision()).number === 3);
    assert.equal((await revision()).rollback_of, 1);
    await page.goto(`${daemon.url}#/apps/${name}/logs`);
    await until("version 1 ticks again, after version 2", async () => {
      const lines = (await page.locator(".line").allInnerTexts()).filter((line) => line.includes("tick "));
      return lines.some((line) => line.includes("version=1")) && lines.at(-1)?.includes("version=1");
    });

    await page.goto(`${daemon.url}#/apps/${name}/timeline`);
    await page.locator(".u-over").first().waitFor();
    await photo("timeline");
    await page.goto(`${daemon.url}#/apps/${name}/events`);
    await page.locator("main li").first().waitFor();
    await photo("events");

    // Stop, start.
    await page.goto(`${daemon.url}#/apps/${name}`);
    await page.locator(".actions button").first().click();
    await until("it is stopped", async () => (await daemon.call("GET", `/apps/${name}`)).body.state === "stopped");
    await page.locator("h1 + .state.idle").waitFor();
    await page.locator(".actions button").first().click();
    await until("it runs again", async () => (await daemon.call("GET", `/apps/${name}`)).body.state === "running");

    // What fails leads to its page.
    const failing = `${name}-failing`;
    assert.equal((await daemon.call("POST", "/apps", { name: failing, template: FAILING })).status, 201);
    await page.goto(daemon.url);
    await page.locator("a.app.bad", { hasText: failing }).first().click();
    await page.locator(".line", { hasText: "it broke" }).waitFor();
    assert.match(await page.locator("dl").first().innerText(), /\b3\b/); // its exit code
    assert.deepEqual(await sound(page, "failure"), []);
    await photo("failure");
    await page.goto(daemon.url);
    await page.locator("a.app").first().waitFor();
    await photo("line");

    // Removing says what stays.
    await page.goto(`${daemon.url}#/apps/${name}`);
    await page.locator(".actions button.danger").click();
    await page.locator("dialog", { hasText: "trial_data" }).waitFor();
    await page.locator("dialog footer button.danger").click();
    await until("it is gone", async () => (await daemon.call("GET", `/apps/${name}`)).status === 404);
    assert.equal((await daemon.call("GET", "/volumes/trial_data")).status, 200);

    for (const path of ["volumes", "images", "system"]) {
      await page.goto(`${daemon.url}#/${path}`);
      await page.locator("main table, main dl").first().waitFor();
      await photo(path);
      assert.deepEqual(await sound(page, path), []);
    }
    session.check();
  } catch (error) {
    await photo("at-the-failure");
    throw error;
  } finally {
    await session.context.close();
  }
};

const tests = [
  ["the page comes under a strict policy, compressed, and nothing of it from elsewhere", async () => {
    const response = await fetch(daemon.url);
    const policy = response.headers.get("content-security-policy");
    assert.match(policy, /default-src 'none'/);
    assert.doesNotMatch(policy, /unsafe/);
    assert.equal(response.headers.get("x-content-type-options"), "nosniff");
    assert.equal(response.headers.get("content-encoding"), "gzip");
    assert.doesNotMatch(await response.text(), /https?:\/\//);
  }],
  ["from deploying to removing, in English", walk("en-GB")],
  ["from deploying to removing, in Chinese", walk("zh-CN")],
  ["a name that the daemon refuses is refused in its words", async () => {
    const session = await open(browser, daemon.url, { allowStatus: [400] });
    try {
      await session.page.goto(`${daemon.url}#/deploy`);
      await session.page.locator(".cm-content").waitFor();
      await write(session.page, FAILING);
      await session.page.locator("#name").fill(EVIL);
      await session.page.locator(".notice.bad").first().waitFor();
      assert.equal(await session.page.locator("form button.primary").isDisabled(), true);
      session.check();
    } finally {
      await session.context.close();
    }
  }],
  ["a narrow window shows the real line without scrolling sideways", async () => {
    const session = await open(browser, daemon.url, { size: SIZES[390] });
    try {
      await session.page.locator("a.app").first().waitFor();
      assert.deepEqual(await sound(session.page, "line at 390"), []);
      await photograph(session.page, "daemon-line-390");
      session.check();
    } finally {
      await session.context.close();
    }
  }],
];

let failed = 1;
try {
  failed = await runAll(tests);
} finally {
  await browser.close();
  await daemon.stop();
}
process.exit(failed ? 1 : 0);
