// Runs of training: each from a start to the next start of the same app, over restarts. Pure.
import type { App, Curve, Learning, Revision } from "../api/client";
import { parseTime } from "./format";

export interface Run {
  id: string; // "app/3", "app/3.2" for the second run of one revision
  app: string;
  revision: number;
  values: Record<string, string>;
  fromMs: number;
  toMs: number | null; // where the next run begins; null for the newest
  startedMs: number;
  finishedMs: number | null; // null: it runs, or it is not known
  live: boolean;
}

// Newest first. Instances tell when a run began; where none is kept any more, its revision does.
export function runsOf(app: App, revisions: readonly Revision[]): Run[] {
  const instances = app.services.filter((s) => s.role === "training").flatMap((s) => s.instances);
  const starts: { revision: Revision; at: number; finished: number | null; live: boolean }[] = [];
  for (const revision of revisions) {
    const own = instances
      .filter((i) => i.revision === revision.number)
      .map((i) => ({ i, at: parseTime(i.started_at) ?? parseTime(i.created_at) }))
      .filter((x): x is { i: (typeof instances)[number]; at: number } => x.at !== null)
      .sort((a, b) => a.at - b.at);
    if (own.length === 0) {
      const at = parseTime(revision.created_at);
      if (at !== null) starts.push({ revision, at, finished: null, live: false });
      continue;
    }
    for (const { i, at } of own) {
      const last = starts.at(-1);
      const ended = i.state === "exited" ? parseTime(i.finished_at) : null;
      // A restart goes on with the run that it restarts.
      if (i.restarts > 0 && last?.revision === revision) {
        last.finished = ended;
        last.live = i.state !== "exited";
      } else {
        starts.push({ revision, at, finished: ended, live: i.state !== "exited" });
      }
    }
  }
  starts.sort((a, b) => a.at - b.at);
  const seen = new Map<number, number>();
  return starts
    .map((start, k): Run => {
      const nth = (seen.get(start.revision.number) ?? 0) + 1;
      seen.set(start.revision.number, nth);
      return {
        id: `${app.name}/${start.revision.number}${nth > 1 ? `.${nth}` : ""}`,
        app: app.name,
        revision: start.revision.number,
        values: start.revision.configuration.values,
        fromMs: start.at - 1000,
        toMs: starts[k + 1] ? starts[k + 1]!.at - 1000 : null,
        startedMs: start.at,
        finishedMs: start.finished,
        live: start.live,
      };
    })
    .reverse();
}

export const windowOf = (run: Run) => ({
  from: new Date(run.fromMs).toISOString(),
  ...(run.toMs === null ? {} : { to: new Date(run.toMs).toISOString() }),
});

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

// Loss is best when least, everything else when greatest.
export const best = (s: ScalarSeries): number | null => (/loss|error|perplexity/i.test(s.tag) ? s.min : s.max);

export function numberOf(value: number | string | null): number | null {
  if (typeof value === "number" || value === null) return value;
  return value === "Infinity" ? Infinity : value === "-Infinity" ? -Infinity : NaN;
}

export type XAxis = "step" | "wall" | "relative";

// Points to draw of a curve, and where it was not a number.
export function pointsOf(curve: Curve, x: XAxis, which: "values" | "smoothed") {
  const first = curve.times[0] ?? 0;
  const points: [number, number | null][] = [];
  const broken: number[] = [];
  for (const [i, raw] of curve[which].entries()) {
    const at = x === "step" ? curve.steps[i]! : x === "wall" ? curve.times[i]! : (curve.times[i]! - first) / 1000;
    const value = numberOf(raw);
    if (value !== null && !Number.isFinite(value)) broken.push(at);
    points.push([at, value]);
  }
  return { points, broken };
}
