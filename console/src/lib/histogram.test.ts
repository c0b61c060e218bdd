import { expect, test } from "vitest";
import { seriesOfCounts } from "./histogram";

test("seven levels become three groups, at the times of their buckets", () => {
  const from = Date.parse("2026-05-01T12:00:00Z");
  const series = seriesOfCounts({
    from: "2026-05-01T12:00:00Z", bucket_ms: 500, total: 28, complete: true,
    levels: { unknown: [1, 0], trace: [2, 0], debug: [3, 0], info: [4, 1], warn: [5, 2], error: [6, 3], fatal: [7, 4] },
  }, (group) => group);
  expect(series.map((s) => [s.name, s.points])).toEqual([
    ["error", [[from, 13], [from + 500, 7]]], ["warn", [[from, 5], [from + 500, 2]]], ["other", [[from, 10], [from + 500, 1]]],
  ]);
});
