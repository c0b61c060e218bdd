// Distributions over the steps as cells of equal size: a column a step, a bin an interval of values,
// in each the share that it has of the fullest bin. Pure.
import type { Schemas } from "../api/client";
import { numberOf } from "./runs";

export interface Heat {
  low: number;
  high: number; // of all values
  bins: number;
  columns: number[][]; // from the first step on; from `low` upwards; 0 to 1
}
const BINS = 30;

export function heat(items: readonly Pick<Schemas["LearningItem"], "buckets">[]): Heat | null {
  const all = items.map((item) => (item.buckets ?? []).map((b) => b.map((x) => numberOf(x) ?? NaN) as [number, number, number]).filter(([left, right, count]) => Number.isFinite(left) && Number.isFinite(right) && count > 0));
  const edges = all.flat();
  if (edges.length === 0) return null;
  let low = Infinity;
  let high = -Infinity;
  for (const [left, right] of edges) {
    low = Math.min(low, left);
    high = Math.max(high, right);
  }
  if (low === high) [low, high] = [low - 0.5, high + 0.5];
  const width = (high - low) / BINS;
  const counts = all.map((buckets) => {
    const column = new Array<number>(BINS).fill(0);
    for (const [left, right, count] of buckets) {
      // Spread over the bins that it covers; one without width is in one.
      const first = Math.min(BINS - 1, Math.floor((left - low) / width));
      const last = right > left ? Math.min(BINS - 1, Math.ceil((right - low) / width) - 1) : first;
      for (let i = first; i <= last; i++) {
        const covered = right > left ? (Math.min(right, low + (i + 1) * width) - Math.max(left, low + i * width)) / (right - left) : 1;
        column[i]! += count * Math.max(0, covered);
      }
    }
    return column;
  });
  const most = Math.max(...counts.flat(), Number.MIN_VALUE);
  return { low, high, bins: BINS, columns: counts.map((column) => column.map((n) => n / most)) };
}
