// Charts of what is measured: which metric, how it is asked for, how its series are called. Pure.
import type { MetricQuery, Schemas } from "../api/client";
import type { Series } from "./plot";
import type { Unit } from "./units";

type Labels = Record<string, string>;
export type Answer = Schemas["MetricAnswer"];

export const WORDS = ["all", "read", "written", "received", "sent", "free", "size"] as const;
export type Word = (typeof WORDS)[number];

export interface Ask {
  query: Omit<MetricQuery, "from" | "to">;
  name: (labels: Labels) => string;
  word?: Word; // said before the name, in the user's language
  scale?: number;
  dashed?: boolean;
  kin?: (labels: Labels) => string; // series of one kin share a colour
}
export interface ChartOf {
  id: string;
  unit: Unit;
  asks: Ask[];
  otherwise?: Ask[]; // asked where those have no series
  stacked?: boolean;
}

const COLOUR_COUNT = 8; // of tokens.css
export const MAX_SERIES = 12; // of one chart; beyond, those that are highest at the end

export function seriesOfAnswer(ask: Ask, answer: Answer, say: (word: Word) => string): Series[] {
  const from = Date.parse(answer.from);
  return answer.series.map((series) => ({
    name: [ask.word && say(ask.word), ask.name(series.labels)].filter(Boolean).join(" ") || (ask.query.name ?? ""),
    dashed: ask.dashed,
    kin: ask.kin?.(series.labels),
    points: series.values.map((value, i): [number, number | null] => [
      from + i * answer.step_ms,
      value === null ? null : value * (ask.scale ?? 1),
    ]),
  }));
}

// The most telling ones where there are too many, by name; empty series say nothing.
export function choose(series: readonly Series[], atMost = MAX_SERIES): { shown: Series[]; left: number } {
  const last = (s: Series) => s.points.findLast(([, y]) => y !== null)?.[1] ?? -Infinity;
  const known = series.filter((s) => s.points.some(([, y]) => y !== null));
  const shown = known.length <= atMost ? known : [...known].sort((a, b) => last(b) - last(a)).slice(0, atMost);
  const sorted = [...shown].sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true }));
  const kins = [...new Set(sorted.map((s) => s.kin ?? s.name))];
  return { shown: sorted.map((s) => (s.kin === undefined ? s : { ...s, colour: `--chart-${(kins.indexOf(s.kin) % COLOUR_COUNT) + 1}` })), left: known.length - shown.length };
}

const label = (...names: string[]) => (labels: Labels) => names.map((name) => labels[name]).filter(Boolean).join(" · ");
const match = (pairs: Labels) => Object.entries(pairs).map(([name, value]) => `${name}=${value}`).join(",") || undefined;

export const NODE_CHARTS: ChartOf[] = [
  { id: "node.cpu", unit: "cores", stacked: false, asks: [
    ...["user", "system", "nice", "iowait", "steal"].map((mode): Ask => ({
      query: { name: "takt_node_cpu_seconds_total", function: "rate", aggregate: "sum", by: "mode", match: `mode=${mode}` }, name: label("mode") })),
    { query: { name: "takt_node_cores" }, name: () => "", word: "all", dashed: true }] },
  { id: "node.load", unit: "number", asks: [
    { query: { name: "takt_node_load1" }, name: () => "1 min" }, { query: { name: "takt_node_load5" }, name: () => "5 min" },
    { query: { name: "takt_node_load15" }, name: () => "15 min" }] },
  { id: "node.memory", unit: "bytes", asks: [
    { query: { name: "takt_node_memory_bytes", match: "kind=available" }, name: label("kind") },
    { query: { name: "takt_node_memory_bytes", match: "kind=cached" }, name: label("kind") },
    { query: { name: "takt_node_memory_bytes", match: "kind=total" }, name: label("kind"), dashed: true }] },
  { id: "node.disk", unit: "bytes_per_second", asks: [
    { query: { name: "takt_node_disk_read_bytes_total", function: "rate", aggregate: "sum" }, name: () => "", word: "read" },
    { query: { name: "takt_node_disk_written_bytes_total", function: "rate", aggregate: "sum" }, name: () => "", word: "written" }] },
  { id: "node.network", unit: "bytes_per_second", asks: [
    { query: { name: "takt_node_network_receive_bytes_total", function: "rate", aggregate: "sum" }, name: () => "", word: "received" },
    { query: { name: "takt_node_network_transmit_bytes_total", function: "rate", aggregate: "sum" }, name: () => "", word: "sent" }] },
  { id: "node.space", unit: "bytes", asks: [
    { query: { name: "takt_node_filesystem_free_bytes" }, name: label("directory", "path", "device"), word: "free" },
    { query: { name: "takt_node_filesystem_size_bytes" }, name: label("directory", "path", "device"), word: "size", dashed: true }] },
  { id: "node.pressure", unit: "percent", asks: [
    { query: { name: "takt_node_pressure_waiting_seconds_total", function: "rate" }, name: label("resource") }] },
];

export const GPU_CHARTS: ChartOf[] = [
  { id: "gpu.utilization", unit: "percent", asks: [{ query: { name: "takt_gpu_utilization_ratio" }, name: label("gpu") }] },
  { id: "gpu.memory", unit: "bytes", asks: [{ query: { name: "takt_gpu_memory_used_bytes" }, name: label("gpu") }, { query: { name: "takt_gpu_memory_total_bytes" }, name: label("gpu"), word: "size", dashed: true }] },
  { id: "gpu.temperature", unit: "celsius", asks: [{ query: { name: "takt_gpu_temperature_celsius" }, name: label("gpu") }] },
  { id: "gpu.power", unit: "watts", asks: [{ query: { name: "takt_gpu_power_watts" }, name: label("gpu") }] },
];

export function appCharts(app: string): ChartOf[] {
  const of = match({ app });
  // Instances are named after their app, which everybody knows here.
  const nameOf = (labels: Labels) => (labels.instance ?? "").replace(`${app}.`, "");
  return [
    { id: "app.cpu", unit: "cores", asks: [
      { query: { name: "takt_instance_cpu_seconds_total", function: "rate", match: of }, name: nameOf }] },
    { id: "app.memory", unit: "bytes", asks: [
      { query: { name: "takt_instance_memory_bytes", function: "max", match: of }, name: nameOf }] },
  ];
}

export function servingCharts(app?: string): ChartOf[] {
  const of = app ? match({ app }) : undefined;
  const by = app ? "model,version" : "app,model,version";
  const name = (labels: Labels) => `${app ? "" : `${labels.app} · `}${labels.model ?? "–"} v${labels.version ?? "–"}`;
  const quantile = (q: number, metric: string): Ask => ({
    query: { name: `${metric}_bucket`, quantile: q, by, match: of }, name: (l) => `${name(l)} p${q * 100}`, dashed: q !== 0.5, kin: name,
  });
  // TensorFlow Serving's own figures, which know no versions.
  const stockBy = app ? "model_name" : "app,model_name";
  const stockName = (labels: Labels) => `${app ? "" : `${labels.app} · `}${labels.model_name ?? "–"}`;
  const stock = (q: number): Ask => ({
    query: { name: ":tensorflow:serving:request_latency_bucket", quantile: q, by: stockBy, match: of }, scale: 1e-6, name: (l) => `${stockName(l)} p${q * 100}`, dashed: q !== 0.5, kin: stockName,
  });
  return [
    { id: "serving.requests", unit: "per_second", asks: [
      { query: { name: "takt_serving_requests_total", function: "rate", aggregate: "sum", by, match: of }, name }],
      otherwise: [{ query: { name: ":tensorflow:serving:request_count", function: "rate", aggregate: "sum", by: stockBy, match: of }, name: stockName }] },
    { id: "serving.errors", unit: "per_second", asks: [
      { query: { name: "takt_serving_requests_total", function: "rate", aggregate: "sum", by: `${by},code`, match: [of, "code!=OK"].filter(Boolean).join(",") }, name: (l) => `${name(l)} ${l.code}` }],
      otherwise: [{ query: { name: ":tensorflow:serving:request_count", function: "rate", aggregate: "sum", by: `${stockBy},status`, match: [of, "status!=OK"].filter(Boolean).join(",") }, name: (l) => `${stockName(l)} ${l.status}` }] },
    { id: "serving.latency", unit: "seconds", asks: [quantile(0.5, "takt_serving_request_seconds"), quantile(0.99, "takt_serving_request_seconds")],
      otherwise: [stock(0.5), stock(0.99)] },
    { id: "serving.queue", unit: "seconds", asks: [quantile(0.99, "takt_serving_queue_seconds")] },
    { id: "serving.batch", unit: "number", asks: [
      { query: { name: "takt_serving_run_rows_total", function: "increase", aggregate: "sum", by, match: of, divided_by: "takt_serving_runs_total", divided_by_match: of }, name }] },
  ];
}
