// A daemon made of data: it serves the built console and answers the public API from memory, so that
// tests can show the console what a real machine shows rarely: a thousand apps, hostile names, faults.
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";

const TYPES = { ".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml" };
export const CSP =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const ago = (seconds) => new Date(Date.now() - seconds * 1000).toISOString();

export function instance(app, service, more = {}) {
  return {
    id: `${app}-${service}-0-1`, replica: 0, restarts: 0, revision: 1, node: "node1", state: "running", health: "none",
    reason: "", exit_code: null, signal: null, oom_killed: false, pid: 4711, created_at: ago(3700), started_at: ago(3600),
    finished_at: null, endpoints: [], cpu_seconds: 12.5, memory_bytes: 180 << 20, ...more,
  };
}
export function service(name, role, more = {}) {
  return { name, role, state: "running", reason: "", image: `registry.example.com/team/${name}`, replicas: 1, instances: [], ...more };
}
export function app(name, more = {}) {
  return {
    name, state: "running", reason: "", stopped: false, created_at: ago(86400), updated_at: ago(3600), values: {}, services: [],
    revision: { number: 1, created_at: ago(3600), author: "local", why: "", rollback_of: 0, image_digests: {} }, ...more,
  };
}
export const line = (text, more = {}) => ({ time: ago(60), service: "tensor", instance: "x-tensor-0-1", stderr: false, text, ...more });

const TEMPLATE = `version: '2'
services:
  tensor:
    image: registry-vpc.cn-hangzhou.aliyuncs.com/cheyang/mnist-export
    command:
       - "python"
       - "/mnist_export.py"
       - "--training_iteration=\${TRAIN_STEPS}"
       - "--export_version=\${VERSION}"
    volumes:
       - mnist_model:/mnist_export
    labels:
       - aliyun.log_store_mnist=stdout
`;

const spec = (name) => ({
  name, image: "registry-vpc.cn-hangzhou.aliyuncs.com/cheyang/mnist-export", entrypoint: null,
  command: ["python", "/mnist_export.py", "--training_iteration=2000", "--export_version=2"],
  environment: { CUDA_VISIBLE_DEVICES: "-1" }, labels: { "aliyun.log_store_mnist": "stdout" },
  ports: [{ host_ip: "", published: 9000, target: 9000, protocol: "tcp" }],
  mounts: [{ kind: "volume", source: "mnist_model", target: "/mnist_export", read_only: false, subdirectory: "" }],
  depends_on: {}, restart: "no", replicas: 1, cpus: 0, memory_bytes: 2 << 30, gpus: 0, health_check: "none",
  log_stores: [{ name: "mnist", source: "stdout", ttl_days: 2 }], model: "mnist", model_path: "/mnist_export/mnist_model",
  serves: "", learning: "", checkpoint: "",
});

export function mnist() {
  const trained = instance("mnist-train", "tensor", { state: "exited", exit_code: 0, finished_at: ago(3300), revision: 2 });
  const apps = [
    app("mnist-train", {
      state: "completed", reason: "every service ended with exit code 0", values: { VERSION: "2", TRAIN_STEPS: "2000" },
      services: [service("tensor", "training", { state: "completed", instances: [trained, instance("mnist-train", "tensor", { id: "mnist-train-tensor-0-0", state: "exited", exit_code: 0, started_at: ago(9000), finished_at: ago(8900) })] })],
      revision: { number: 2, created_at: ago(3600), author: "local", why: "more steps", rollback_of: 0, image_digests: { tensor: "sha256:1c5a" } },
    }),
    app("mnist-train-wide", {
      state: "failed", reason: "service tensor: exit code 1 after 12 s: ValueError: learning rate must be positive",
      values: { VERSION: "3", TRAIN_STEPS: "2000" },
      services: [service("tensor", "training", { state: "failed", reason: "exit code 1 after 12 s: ValueError: learning rate must be positive", instances: [instance("mnist-train-wide", "tensor", { state: "exited", exit_code: 1, started_at: ago(612), finished_at: ago(600), reason: "exit code 1" })] })],
      revision: { number: 3, created_at: ago(620), author: "local", why: "", rollback_of: 0, image_digests: {} },
    }),
    app("mnist-serving", {
      services: [service("serving", "serving", { instances: [instance("mnist-serving", "serving", { endpoints: [{ host: "127.0.0.1", port: 9000, target: 9000, protocol: "tcp", address: "127.0.0.1:9000" }, { host: "127.0.0.1", port: 8501, target: 8501, protocol: "tcp", address: "127.0.0.1:8501" }] })] })],
    }),
    app("mnist-client", {
      values: { NUM_TESTS: "1000", SERVER: "127.0.0.1:9000", CONCURRENCY: "10" },
      services: [service("tensor", "client", { instances: [instance("mnist-client", "tensor")] })],
    }),
    app("cache", { state: "pending", reason: "waiting for volume cache: /data/nas is not mounted", services: [service("redis", "", { state: "pending", reason: "waiting for volume cache: /data/nas is not mounted" })] }),
  ];
  const logs = {
    "mnist-train": [
      line("2026-11-24 20:13:05.123456: I tensorflow/core/platform/cpu_feature_guard.cc:210] This TensorFlow binary is optimized to use available CPU instructions"),
      line("Training model..."), ...Array.from({ length: 40 }, (_, i) => line(`step=${i * 50} loss=${(2.3 / (1 + i / 6)).toFixed(4)} accuracy=${(0.98 - 0.9 / (1 + i)).toFixed(4)}`)),
      line("WARNING: checkpoint took 2.1 s"), line("exported /models/mnist/00000002 in 1.2 s"),
    ],
    "mnist-train-wide": [line("Training model..."), line("Traceback (most recent call last):", { stderr: true }), line('  File "/mnist_export.py", line 88, in main', { stderr: true }), line("ValueError: learning rate must be positive", { stderr: true })],
    "mnist-serving": [line("2026-11-24 20:13:05.1: I x] Successfully loaded servable version {name: mnist version: 1}"), line("2026-11-24 20:18:05.1: I x] Successfully loaded servable version {name: mnist version: 2}")],
    "mnist-client": [line("..........1000"), line("Inference error rate: 8.4%")],
  };
  const events = [
    ["mnist-train", "created", "revision 1 by local", "info"], ["mnist-train", "exited", "tensor: exit code 0 after 100 s", "info"],
    ["mnist-serving", "created", "revision 1 by local", "info"], ["mnist-serving", "serves", 'model "mnist": version 2 serves now, before it 1', "info"], ["mnist-train", "configured", "revision 2: VERSION 1 → 2", "info"],
    ["", "warning", "no memory cgroup: limits are kept by RLIMIT_AS", "warning"],
    ["mnist-train-wide", "failed", "tensor: exit code 1 after 12 s", "error"],
  ].map(([name, kind, message, level], i) => ({ id: i + 1, time: ago(4000 - i * 560), app: name, kind, message, level }));
  return {
    apps, logs, events,
    alerts: {
      alerts: [
        { rule: "app_failed", severity: "critical", state: "firing", silenced: false, labels: { app: "mnist-train-wide" }, since: ago(600), value: 1, summary: "mnist-train-wide has failed", summary_zh: "mnist-train-wide 失败" },
        { rule: "low_disk", severity: "warning", state: "pending", silenced: false, labels: { directory: "/var/lib/takt" }, since: ago(30), value: 0.06, summary: "less than 10 % of the disk is free", summary_zh: "磁盘剩余不足 10%" },
      ],
      rules: [
        { ...RULE, name: "app_failed", metric: "takt_apps", match: "state=failed", above: true, threshold: 0, window_seconds: 60, for_seconds: 0, severity: "critical", summary: "an app has failed", enabled: true },
        { ...RULE, name: "low_disk", metric: "takt_node_filesystem_free_bytes", divided_by: "takt_node_filesystem_size_bytes", above: false, threshold: 0.1, window_seconds: 300, for_seconds: 600, severity: "warning", summary: "the disk under {directory} has {percent} left", summary_zh: "{directory} 所在磁盘剩余 {percent}", enabled: true },
        { ...RULE, name: "slow", origin: "own", metric: "takt_serving_request_seconds_sum", function: "increase", aggregate: "sum", by: ["app"], threshold: 3, window_seconds: 300, for_seconds: 120, severity: "info", summary: "{app} is slow", enabled: false, problem: "there is no metric takt_serving_request_seconds_sum" },
      ],
      silences: [],
    },
    receivers: [
      { ...RECEIVER, name: "on-call", kind: "dingtalk", url: "https://robot.example/send?...", secret_set: true, language: "zh", delivered: 3 },
      { ...RECEIVER, name: "mail", kind: "email", server: "smtp.example:587", from: "takt@example", to: ["ann@example", "bob@example"], last_error: "connect to smtp.example:587: connection refused", waiting: 2, given_up: 1 },
      { ...RECEIVER, name: "webhook-1", url: "http://alertmanager:9093/hook", fixed: true },
    ],
    searches: [{ name: "errors of training", query: "level>=error app=mnist-train", span_seconds: 3600, changed_at: ago(5000) }],
    volumes: [{ name: "mnist_model", driver: "local", options: {}, created_at: ago(90000), host_path: "/var/lib/takt/volumes/mnist_model", ready: true, reason: "", users: ["mnist-serving", "mnist-train"] },
      { name: "nas", driver: "local", options: { device: "/data/nas" }, created_at: ago(90000), host_path: "/data/nas", ready: false, reason: "/data/nas is not mounted", users: [] }],
  };
}

const PIXEL = Buffer.from("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==", "base64");
const FORWARD = { name: "loki", kind: "loki", url: "http://loki:3100/loki/api/v1/push", query: "", headers: [], enabled: true, fixed: false, state: "idle", sent_entries: 120345, sent_batches: 300, refused_entries: 0, removed_entries: 0, failed_attempts: 0, behind_entries: 0, lag_seconds: 0, last_error: "", last_error_at: null, last_sent_at: ago(3) };
const RULE = { origin: "built_in", match: "", function: "avg", aggregate: "none", by: [], divided_by: "", divided_by_match: "", above: true, window_seconds: 60, for_seconds: 0, summary_zh: "", problem: "" };
const RECEIVER = { kind: "alertmanager", url: "", server: "", security: "starttls", user: "", from: "", to: [], ca_file: "", language: "en", least_severity: "warning", send_resolved: true, enabled: true, secret_set: false, password_set: false, fixed: false, waiting: 0, delivered: 0, given_up: 0, last_error: "" };

// Waves for whatever is asked about; names of the labels that the real metrics have.
function metric(query) {
  const name = query.get("name");
  const from = Date.parse(query.get("from"));
  const to = Date.parse(query.get("to"));
  const step = Math.max(1000, Math.round((to - from) / 300));
  const count = Math.floor((to - from) / step);
  const wave = (base, k) => Array.from({ length: count }, (_, i) => (i < count / 10 ? null : base * (1 + 0.4 * Math.sin(i / 17 + k) + 0.05 * Math.sin(i * 1.7))));
  const app = /app=([^,]+)/.exec(query.get("match") ?? "")?.[1] ?? "mnist-serving";
  const rows = {
    takt_node_cpu_seconds_total: [[{ mode: /mode=(\w+)/.exec(query.get("match") ?? "")?.[1] ?? "user" }, 0.4]],
    takt_node_memory_bytes: [[{ kind: /kind=(\w+)/.exec(query.get("match") ?? "")?.[1] ?? "total" }, 8 * 2 ** 30]],
    takt_instance_cpu_seconds_total: [[{ app, service: "tensor", instance: `${app}.tensor.1.abc` }, 0.9]],
    takt_instance_memory_bytes: [[{ app, service: "tensor", instance: `${app}.tensor.1.abc` }, 4e8]],
    takt_serving_requests_total: query.get("by")?.includes("code") ? [] : [[{ app, model: "mnist", version: "1" }, 800], [{ app, model: "mnist", version: "2" }, 900]],
    takt_serving_request_seconds_bucket: [[{ app, model: "mnist", version: "1" }, 0.0012 * (1 + Number(query.get("quantile")))], [{ app, model: "mnist", version: "2" }, 0.0009]],
    takt_serving_queue_seconds_bucket: [[{ app, model: "mnist", version: "2" }, 0.0001]],
    takt_serving_run_rows_total: query.get("divided_by") === "takt_serving_runs_total" ? [[{ app, model: "mnist", version: "1" }, 12], [{ app, model: "mnist", version: "2" }, 25]] : [],
    ":tensorflow:serving:request_count": [],
  }[name] ?? [[{}, 1e6]];
  return { from: new Date(from).toISOString(), step_ms: step, series: rows.map(([labels, base], k) => ({ labels, values: wave(base, k) })) };
}

function runsOf(apps) {
  return apps.filter((a) => a.services.some((s) => s.role === "training")).flatMap((a) => [2, 1].map((number) => {
    const metric = (writer, tag, last, best) => ({ writer, tag, last_step: 2000, last: last + number / 100, best, best_is: tag === "loss" ? "lowest" : tag === "accuracy" ? "highest" : null });
    const failed = a.state === "failed" && number === 2;
    return {
      app: a.name, number, service: "tensor", revision: number, values: { ...a.values, VERSION: String(number) }, why: "", author: "local",
      state: failed ? "failed" : "completed", reason: failed ? "failed with exit code 1" : "", started: ago(9000 - number * 2700), ended: ago(8900 - number * 2700),
      exit_code: failed ? 1 : 0, signal: null, restarts: 0, cpu_seconds: 120.5, gpus: number === 2 ? 1 : 0, node: "node1", note: number === 2 ? "the longer one" : "", tags: number === 2 ? ["keep"] : [],
      model: { name: "mnist", volume: "mnist_model", path: "mnist", newest_version: 2, versions: failed ? [] : [{ number, modified: ago(3300), complete: true, exists: true, serves: number === 2 && !failed }], loaded_by: [] },
      findings: failed ? [{ kind: "not_finite", alert: true, message: "the loss is NaN since step 1200" }] : [], hyperparameters: { batch: "50" },
      metrics: [metric("train", "loss", 0.31, 0.3), metric("validation", "loss", 0.33, 0.32), metric("train", "accuracy", 0.9, 0.93), metric("validation", "accuracy", 0.9, 0.918), metric("train", "learning_rate", 0.01, null)],
    };
  }));
}

function learning(a, url) {
  if (!a.services.some((s) => s.role === "training")) return { series: [], hyperparameters: {}, corrupt_records: 0, skipped_values: 0, unknown_plugins: {} };
  const scalar = (writer, tag, last, min, max) => ({ service: "tensor", writer, tag, kind: "scalar", count: 200, last_step: 2000, last_time: ago(3300), last_value: last, min, max });
  return {
    series: [scalar("train", "loss", 0.31, 0.3, 2.3), scalar("validation", "loss", 0.33, 0.32, 2.3), scalar("train", "accuracy", 0.92, 0.1, 0.93), scalar("validation", "accuracy", 0.915, 0.1, 0.918), scalar("train", "learning_rate", 0.01, 0.01, 0.01),
      ...["weights:histogram", "digit:image", "setup:text"].map((one) => ({ ...scalar("train", one.split(":")[0], null, null, null), kind: one.split(":")[1] }))],
    hyperparameters: { batch: "50" }, corrupt_records: 0, skipped_values: 0, unknown_plugins: {},
  };
}

function items(url) {
  const kind = { weights: "histogram", digit: "image", setup: "text" }[url.searchParams.get("tag")];
  return { items: Array.from({ length: kind === "text" ? 1 : 20 }, (_, k) => ({
    step: k * 100, time: ago(3400 - k), kind, bytes: 100,
    ...(kind === "text" ? { text: "learning rate 0.01\n<img src=x onerror=alert(1)>" } : {}),
    ...(kind === "histogram" ? { buckets: Array.from({ length: 30 }, (__, i) => [(i - 15) * (0.02 + k / 400), (i - 14) * (0.02 + k / 400), Math.round(900 * Math.exp(-(((i - 15) / (3 + k / 6)) ** 2)))]) } : {}),
  })) };
}

function curve(a, url) {
  const seed = (url.searchParams.get("from")?.length ?? 0) + a.name.length + (url.searchParams.get("writer") === "train" ? 0 : 1);
  const falls = /loss/.test(url.searchParams.get("tag"));
  const n = 200;
  const steps = Array.from({ length: n }, (_, i) => (i + 1) * 10);
  const values = steps.map((s, i) => (falls ? 2.3 / (1 + s / 150) + 0.02 * Math.sin(i * 2.1 + seed) : 0.95 - 0.85 / (1 + s / 120) + 0.01 * Math.sin(i * 1.9 + seed)));
  if (falls && seed % 2) values[50] = "NaN";
  const smoothing = Number(url.searchParams.get("smoothing") ?? 0);
  const begin = Date.now() - 3_600_000;
  return { count: n, steps, times: steps.map((s) => begin + s * 900), values, smoothed: smoothing > 0 ? values.map((v) => (v === "NaN" ? v : v * 0.99)) : [] };
}

export function parametersOf(template) {
  const found = new Map();
  template.split("\n").forEach((text, row) => {
    for (const m of text.matchAll(/\$\{(\w+)(?::-([^}]*)|:\?([^}]*))?\}/g)) {
      const entry = found.get(m[1]) ?? {
        name: m[1], default_value: m[2] ?? null, required: m[2] === undefined, message: m[3] ?? "",
        type: /VERSION|STEPS|NUM|CONCURRENCY/.test(m[1]) ? "integer" : m[1] === "SERVER" ? "endpoint" : "text", uses: [],
      };
      entry.uses.push({ path: `services.tensor.command[${row}]`, line: row + 1, column: m.index + 1 });
      found.set(m[1], entry);
    }
  });
  return [...found.values()];
}

export function fakeDaemon({ dist, state = mnist() }) {
  const streams = new Set();
  const logStreams = new Set();
  const calls = [];
  const revisionsOf = (a) => Array.from({ length: a.revision.number }, (_, i) => {
    const number = a.revision.number - i;
    return {
      ...a.revision, number, created_at: ago(600 + i * 3000), why: number === 1 ? "" : a.revision.why,
      configuration: {
        template: number === 1 ? TEMPLATE.replace("    labels:\n       - aliyun.log_store_mnist=stdout\n", "") : TEMPLATE,
        template_name: "training.yml", values: Object.fromEntries(Object.entries(a.values).map(([k, v]) => [k, k === "VERSION" ? String(number) : v])), volume_options: {},
      },
    };
  });
  const check = (body) => {
    const issues = [];
    const at = body.template.split("\n").findIndex((l) => /\bcomand:/.test(l));
    if (at >= 0) issues.push({ severity: "error", file: "template", line: at + 1, column: 5, path: "services.tensor.comand", message: "unknown field", suggestion: "did you mean command?", text: `template:${at + 1}:5: services.tensor.comand: unknown field` });
    const volumes = /mnist_model:\//.test(body.template) ? [{ name: "mnist_model", actual_name: "mnist_model", external: true, driver: "", exists: state.volumes.some((v) => v.name === "mnist_model") }] : [];
    return { ok: issues.length === 0, name: "", parameters: parametersOf(body.template), issues, services: [], volumes, unsupported: [], resolved: null };
  };
  const preview = (body, creating) => {
    const c = check(body);
    return {
      anything_changes: creating || JSON.stringify(body.values) !== "{}", issues: c.issues, parameters: c.parameters, template_diff: "", suggestions: [],
      missing_volumes: c.volumes.filter((v) => !v.exists).map((v) => v.actual_name),
      changes: creating ? [] : [{ kind: "changed", path: "values.VERSION", before: "2", after: body.values?.VERSION ?? "2" }],
      services: [{ service: "tensor", action: creating ? "start" : "restart", changes: creating ? [] : [{ kind: "changed", path: "services.tensor.command[3]", before: "--export_version=2", after: `--export_version=${body.values?.VERSION}` }] },
        ...(creating ? [] : [{ service: "board", action: "unchanged", changes: [] }])],
    };
  };
  const detail = (a) => ({ ...a, revision: revisionsOf(a)[0], services: a.services.map((s) => ({ ...s, spec: spec(s.name) })) });

  const routes = {
    "GET /system": () => ({ version: "0.1.0", started_at: ago(90000), uptime_seconds: 90000, pid: 4242, data_dir: "/var/lib/takt", listen: "127.0.0.1:8080", runtime: { name: "embedded", features: ["privileged", "ulimits"], pulls_images: false, many_nodes: false, private_mounts: true, warnings: ["no memory cgroup: memory limits are kept by RLIMIT_AS"] }, counts: { apps: state.apps.length, running_apps: 2, instances: 3, volumes: state.volumes.length }, memory_bytes: 30 << 20, cpu_seconds: 95.2 }),
    "GET /apps": () => ({ apps: state.apps }),
    "POST /apps": (body, url) => {
      if (url.searchParams.get("dry_run")) return preview(body, true);
      const made = app(body.name, { state: "starting", reason: "starting", values: body.values, services: [service("tensor", "training", { state: "starting" })], updated_at: ago(0), created_at: ago(0) });
      state.apps.push(made);
      push("app", made);
      return [201, detail(made)];
    },
    "GET /events": () => ({ events: state.events, last_id: state.events.at(-1)?.id ?? 0 }),
    "POST /templates/check": check,
    "POST /volumes": (body) => {
      const made = { ...body, created_at: ago(0), host_path: body.options.device ?? `/var/lib/takt/volumes/${body.name}`, ready: true, reason: "", users: [] };
      state.volumes.push(made);
      return [201, made];
    },
    "GET /runs": (_, url) => ({ runs: runsOf(state.apps).filter((r) => !url.searchParams.get("app") || r.app === url.searchParams.get("app")) }),
    "GET /models": () => ({ models: [{ name: "mnist", volume: "mnist_model", path: "mnist", made_by: ["mnist-train"], loaded_by: [{ app: "mnist-serving", service: "serving", live: true, versions: [], serving: [2] }],
      versions: [{ number: 2, modified: ago(3300), complete: true, served_by: ["mnist-serving"], run: { app: "mnist-train", number: 2 } }, { number: 1, modified: ago(8900), complete: true, served_by: [], run: { app: "mnist-train", number: 1 } }] }] }),
    "PUT /runs/mnist-train/2": (body) => Object.assign(runsOf(state.apps).find((r) => r.app === "mnist-train" && r.number === 2), body),
    "GET /alerts": () => state.alerts,
    "POST /alerts/silences": (body) => {
      const made = { id: "s1", rule: body.rule ?? "", labels: body.labels ?? {}, until: new Date(Date.now() + body.minutes * 60_000).toISOString(), why: body.why ?? "" };
      state.alerts.silences.push(made);
      for (const a of state.alerts.alerts) if (a.rule === made.rule) a.silenced = true;
      return [201, made];
    },
    "DELETE /alerts/silences/s1": () => {
      state.alerts.silences = [];
      for (const a of state.alerts.alerts) a.silenced = false;
      return state.alerts;
    },
    "GET /alerts/receivers": () => ({ receivers: state.receivers }),
    "GET /logs/forwards": () => ({ forwards: [FORWARD, { ...FORWARD, name: "archive", kind: "otlp", url: "http://collector:4318/v1/logs", query: "level>=warn", state: "failing", behind_entries: 1234, lag_seconds: 340, last_error: "connect to collector:4318: connection refused", fixed: true }] }),
    "GET /logs/searches": () => ({ searches: state.searches }),
    "GET /logs": (_, url) => ({ entries: entriesOf(url.searchParams.get("query") ?? "").reverse().slice(0, Number(url.searchParams.get("limit") ?? 500)), next: null, complete: true, scanned: 100 }),
    "GET /logs/histogram": (_, url) => {
      const from = Date.parse(url.searchParams.get("from"));
      const buckets = Number(url.searchParams.get("buckets"));
      const zeros = () => new Array(buckets).fill(0);
      const levels = Object.fromEntries(["unknown", "trace", "debug", "info", "warn", "error", "fatal"].map((l) => [l, zeros()]));
      for (let i = 0; i < buckets; i++) {
        levels.info[i] = Math.round(20 + 15 * Math.sin(i / 5));
        levels.warn[i] = i % 9 === 0 ? 4 : 0;
        levels.error[i] = i > buckets - 6 ? 6 : 0;
      }
      return { from: new Date(from).toISOString(), bucket_ms: (Date.parse(url.searchParams.get("to")) - from) / buckets, total: 2000, complete: true, levels };
    },
    "GET /logs/context": (_, url) => {
      const all = entriesOf("");
      const at = all.findIndex((e) => e.id === url.searchParams.get("id"));
      return { entries: all.filter((e) => e.app === all[at].app).slice(0, 30) };
    },
    "GET /logs/stores": () => ({ stores: [{ app: "mnist-train", service: "tensor", store: "mnist", streams: 2 }, { app: "mnist-serving", service: "serving", store: "serving", streams: 1 }], entries: 100, text_bytes: 1000, disk_bytes: 500, dropped_entries: 0 }),
    "GET /metrics": () => ({ metrics: [{ name: "takt_node_load1", type: "gauge" }], series: 1, disk_bytes: 100, refused_series: 0 }),
    "GET /metrics/query": (_, url) => metric(url.searchParams),
    "GET /volumes": () => ({ volumes: state.volumes }),
    "GET /images": () => ({ pulls_images: false, images: [{ name: "*/mnist-export", role: "training", description: "the example's trainer, Python with TensorFlow", available: true, reason: "" }, { name: "*/tensorflow-serving", role: "serving", description: "takt-serving and mnist_client", available: true, reason: "" }, { name: "redis", role: "", description: "/opt/images/redis", available: false, reason: "the directory /opt/images/redis is not there" }] }),
  };
  const entriesOf = (query) => Object.entries(state.logs).flatMap(([name, lines]) => lines.map((l, i) => ({
    id: `${name}-${i}`, time: l.time, app: name, service: l.service, instance: l.instance, store: "stdout", node: "node1", revision: 1, file: "",
    level: /error|traceback/i.test(l.text) ? "error" : /warn/i.test(l.text) ? "warn" : "unknown", stderr: l.stderr, text: l.text,
  }))).filter((e) => query.split(" ").filter(Boolean).every((word) => {
    const field = /^(app|service|instance)=(.+)$/.exec(word);
    return field ? e[field[1]] === field[2].replace(/"/g, "") : e.text.toLowerCase().includes(word.toLowerCase());
  }));
  const ofApp = {
    "GET /learning": (a, _, url) => learning(a, url),
    "GET /learning/items": (_, __, url) => items(url),
    "GET /learning/curve": (a, _, url) => curve(a, url),
    "GET ": (a) => detail(a),
    "GET /logs": (a) => ({ lines: state.logs[a.name] ?? [], cursor: "1" }),
    "GET /revisions": (a) => ({ revisions: revisionsOf(a) }),
    "GET /removal": () => ({ volumes_kept: ["mnist_model"], shared_with: ["mnist_model: apps mnist-serving"] }),
    "PUT /configuration": (a, body, url) => (url.searchParams.get("dry_run") ? preview(body, false) : detail(a)),
    "POST /rollback": (a, body, url) => (url.searchParams.get("dry_run") ? preview({ template: TEMPLATE, values: { VERSION: String(body.revision) } }, false) : detail(a)),
    "POST /stop": (a) => detail(Object.assign(a, { state: "stopped", stopped: true, reason: "stopped by local" })),
    "POST /start": (a) => detail(Object.assign(a, { state: "running", stopped: false, reason: "" })),
  };

  function push(type, data, id) {
    const text = `event: ${type}\n${id === undefined ? "" : `id: ${id}\n`}data: ${JSON.stringify(data)}\n\n`;
    for (const stream of streams) stream.write(text);
  }
  function linesEvent(lines) {
    return `event: lines\ndata: ${JSON.stringify({ lines, cursor: "i:1" })}\n\n`;
  }
  function sse(response) {
    response.writeHead(200, { "Content-Type": "text/event-stream", "Cache-Control": "no-store" });
    response.write(":\n\n");
  }

  const server = createServer(async (request, response) => {
    const url = new URL(request.url, "http://localhost");
    const send = (status, type, body) => response.writeHead(status, { "Content-Type": type, "Content-Security-Policy": CSP, "X-Content-Type-Options": "nosniff" }).end(body);
    if (!url.pathname.startsWith("/api/v1")) {
      const path = normalize(url.pathname === "/" ? "/index.html" : url.pathname);
      try {
        send(200, TYPES[extname(path)] ?? "application/octet-stream", await readFile(join(dist, path)));
      } catch {
        send(404, "text/plain", "not found");
      }
      return;
    }
    let text = "";
    for await (const chunk of request) text += chunk;
    const body = text ? JSON.parse(text) : undefined;
    const path = url.pathname.slice("/api/v1".length);
    calls.push({ method: request.method, path, dryRun: url.searchParams.has("dry_run"), query: Object.fromEntries(url.searchParams), body });
    const json = (answer) => (Array.isArray(answer) ? send(answer[0], "application/json", JSON.stringify(answer[1])) : send(200, "application/json", JSON.stringify(answer)));
    if (path === "/stream") {
      sse(response);
      streams.add(response);
      response.on("close", () => streams.delete(response));
      response.write(`event: hello\ndata: {"last_event_id": ${state.events.at(-1)?.id ?? 0}}\n\n`);
      const app = url.searchParams.get("app");
      if (app) {
        logStreams.add(response);
        response.on("close", () => logStreams.delete(response));
        if (!url.searchParams.has("cursor")) response.write(linesEvent(state.logs[app] ?? []));
      }
      return;
    }
    if (path.endsWith("/learning/image")) return send(200, "image/png", PIXEL);
    const match = /^\/apps\/([^/]+)(\/.*)?$/.exec(path);
    if (match) {
      const found = state.apps.find((a) => a.name === decodeURIComponent(match[1]));
      if (!found) return json([404, { code: "NOT_FOUND", message: `no app ${match[1]}`, details: {} }]);
      const act = ofApp[`${request.method} ${match[2] ?? ""}`];
      if (act) return json(act(found, body, url));
    }
    // Rules, receivers and searches by name.
    const named = /^\/(alerts\/rules|alerts\/receivers|logs\/searches)\/([^/]+)(\/test)?$/.exec(path);
    if (named) {
      const list = { "alerts/rules": state.alerts.rules, "alerts/receivers": state.receivers, "logs/searches": state.searches }[named[1]];
      const name = decodeURIComponent(named[2]);
      const at = list.findIndex((one) => one.name === name);
      if (named[3]) return json(named[1] === "alerts/rules" ? { rule: { ...RULE, ...body, name }, readings: [{ labels: { app: "mnist-serving" }, value: 4.2, holds: true }, { labels: { app: "other" }, value: null, holds: false }] } : { delivered: true });
      if (request.method === "DELETE") list.splice(at, 1);
      else if (at >= 0) Object.assign(list[at], body);
      else list.push({ ...(named[1] === "alerts/rules" ? { ...RULE, origin: "own", enabled: true } : named[1] === "alerts/receivers" ? RECEIVER : { changed_at: ago(0) }), ...body, name });
      if (named[1] === "logs/searches") push("searches", {});
      return json({});
    }
    const act = routes[`${request.method} ${path}`];
    if (act) return json(act(body, url));
    json([404, { code: "NOT_FOUND", message: `no ${request.method} ${path}`, details: {} }]);
  });

  return new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve({
    url: `http://127.0.0.1:${server.address().port}/`,
    state, calls, push,
    openStreams: () => streams.size,
    drop: () => { for (const stream of streams) stream.destroy(); },
    pushLines(lines) {
      for (let i = 0; i < lines.length; i += 500) {
        const text = linesEvent(lines.slice(i, i + 500));
        for (const stream of logStreams) stream.write(text);
      }
    },
    close: () => new Promise((done) => { server.closeAllConnections(); server.close(done); }),
  })));
}
