// Log entries counted over time: the store's seven levels as three groups to draw. Pure.
import type { Schemas } from "../api/client";
import type { Series } from "./plot";

export const LEVEL_GROUPS = ["error", "warn", "other"] as const;
export type LevelGroup = (typeof LEVEL_GROUPS)[number];

const COLOURS: Record<LevelGroup, string> = { error: "--bad", warn: "--chart-2", other: "--chart-5" };

export function seriesOfCounts(counts: Schemas["LogHistogram"], name: (group: LevelGroup) => string): Series[] {
  const from = Date.parse(counts.from);
  const sum = (...levels: (keyof Schemas["LogHistogram"]["levels"])[]) =>
    counts.levels.unknown.map((_, i): [number, number] => [
      from + i * counts.bucket_ms,
      levels.reduce((total, level) => total + (counts.levels[level][i] ?? 0), 0),
    ]);
  const rows = { error: sum("error", "fatal"), warn: sum("warn"), other: sum("unknown", "trace", "debug", "info") };
  return LEVEL_GROUPS.map((group) => ({ name: name(group), colour: COLOURS[group], points: rows[group] }));
}
