// Training runs as tables and charts show them. Pure.
import type { Curve, Learning, Run, Schemas } from "../api/client";
import { parseTime } from "./format";

export type Metric = Schemas["RunMetric"];
export const idOf = (run: Run) => `${run.app}/${run.number}`;
export const isLive = (run: Run) => run.state === "running";

export function secondsOf(run: Run, nowMs: number): number | null {
  const from = parseTime(run.started);
  const to = run.ended ? parseTime(run.ended) : isLive(run) ? nowMs : null;
  return from === null || to === null ? null : Math.max(0, to - from) / 1000;
}

// GPUs times time; null where all of a machine were given, however many those are.
export function gpuSecondsOf(run: Run, nowMs: number): number | null {
  const seconds = secondsOf(run, nowMs);
  return seconds === null || run.gpus < 0 ? null : seconds * run.gpus;
}

export type ScalarSeries = Learning["series"][number];
export const scalars = (learning: Learning) => learning.series.filter((s) => s.kind === "scalar");
export const nameOf = (s: { writer: string; tag: string }) => (s.writer ? `${s.writer}/${s.tag}` : s.tag);

// What a person looks at first: losses and accuracies, of validation before training.
export function rank(name: string): number {
  let score = 0;
  if (/loss/i.test(name)) score -= 4;
  if (/acc|precision|recall|f1|auc/i.test(name)) score -= 3;
  if (/val|eval|test/i.test(name)) score -= 2;
  if (/learning_rate|\blr\b|steps?_per/i.test(name)) score += 2;
  return score;
}
export const byRank = (a: string, b: string) => rank(a) - rank(b) || a.localeCompare(b);

export function numberOf(value: number | string | null): number | null {
  if (typeof value === "number" || value === null) return value;
  return value === "Infinity" ? Infinity : value === "-Infinity" ? -Infinity : NaN;
}

// "VERSION=2", a tag, the app's name, its note: what a filter looks in.
export function matches(run: Run, text: string): boolean {
  const wanted = text.trim().toLowerCase();
  if (!wanted) return true;
  const values = Object.entries({ ...run.hyperparameters, ...run.values }).map(([key, value]) => `${key}=${value}`);
  return [idOf(run), run.state, run.note, ...run.tags, ...values].some((one) => one.toLowerCase().includes(wanted));
}

export type Order = { by: string; down: boolean }; // "started", "duration", "cpu", or a metric's name

export function sorted(runs: readonly Run[], order: Order, nowMs: number): Run[] {
  const key = (run: Run): number | null => {
    if (order.by === "started") return parseTime(run.started);
    if (order.by === "duration") return secondsOf(run, nowMs);
    if (order.by === "cpu") return run.cpu_seconds;
    const metric = run.metrics.find((m) => nameOf(m) === order.by);
    const value = metric ? numberOf(metric.last) : null;
    return value !== null && Number.isNaN(value) ? null : value;
  };
  // What is unknown comes last, whichever way.
  return [...runs].sort((a, b) => {
    const [x, y] = [key(a), key(b)];
    if (x === null || y === null) return Number(x === null) - Number(y === null);
    return order.down ? y - x : x - y;
  });
}

export type XAxis = "step" | "wall" | "relative";

// Points to draw of a curve, and where it began not to be a number.
export function pointsOf(curve: Curve, x: XAxis, which: "values" | "smoothed") {
  const first = curve.times[0] ?? 0;
  const points: [number, number | null][] = [];
  const broken: number[] = [];
  let was = false;
  for (const [i, raw] of curve[which].entries()) {
    const at = x === "step" ? curve.steps[i]! : x === "wall" ? curve.times[i]! : (curve.times[i]! - first) / 1000;
    const value = numberOf(raw);
    const is = value !== null && !Number.isFinite(value);
    if (is && !was) broken.push(at);
    was = is;
    points.push([at, value]);
  }
  return { points, broken };
}
