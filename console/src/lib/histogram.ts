// Lines counted over time, by level. Pure.
import type { Level } from "./logs";
import type { Series } from "./plot";

export interface Counted {
  ms: number | null;
  level: Level;
}

// "Nice" lengths of a bucket, so that bars stand at round times.
const STEPS_MS = [
  1000, 2000, 5000, 10_000, 15_000, 30_000, 60_000, 120_000, 300_000, 600_000, 900_000, 1_800_000, 3_600_000, 7_200_000,
  21_600_000, 43_200_000, 86_400_000,
];
export function bucketMs(spanMs: number, atMost = 90): number {
  return STEPS_MS.find((step) => spanMs / step <= atMost) ?? Math.ceil(spanMs / atMost / 86_400_000) * 86_400_000;
}

export const LEVEL_GROUPS = ["error", "warn", "other"] as const;
export type LevelGroup = (typeof LEVEL_GROUPS)[number];

export function histogram(lines: Iterable<Counted>, fromMs: number, toMs: number): Map<LevelGroup, [number, number][]> {
  const step = bucketMs(toMs - fromMs);
  const first = Math.floor(fromMs / step) * step;
  const count = Math.max(1, Math.ceil((toMs - first) / step));
  const rows = new Map(LEVEL_GROUPS.map((group) => [group, new Array<number>(count).fill(0)]));
  for (const { ms, level } of lines) {
    if (ms === null || ms < fromMs || ms >= toMs) continue;
    rows.get(level === "error" || level === "warn" ? level : "other")![Math.floor((ms - first) / step)]!++;
  }
  return new Map([...rows].map(([group, values]) => [group, values.map((n, i) => [first + i * step, n])]));
}

const COLOURS: Record<LevelGroup, string> = { error: "--bad", warn: "--chart-2", other: "--chart-5" };
export function seriesOf(rows: Map<LevelGroup, [number, number][]>, name: (group: LevelGroup) => string): Series[] {
  return LEVEL_GROUPS.map((group) => ({ name: name(group), colour: COLOURS[group], points: rows.get(group) ?? [] }));
}
