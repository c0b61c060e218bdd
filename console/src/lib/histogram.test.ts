import { expect, test } from "vitest";
import { bucketMs, histogram } from "./histogram";

test.each([[60_000, 1000], [900_000, 10_000], [3_600_000, 60_000], [86_400_000, 1_800_000], [7 * 86_400_000, 7_200_000]])(
  "a span of %d ms has buckets of %d ms", (span, step) => expect(bucketMs(span)).toBe(step));

test("every line within the span is counted once, at its level", () => {
  const from = Date.parse("2026-05-01T12:00:00Z");
  const rows = histogram([
    { ms: from, level: "error" }, { ms: from + 999, level: "" }, { ms: from + 59_999, level: "info" }, { ms: from + 60_000, level: "error" },
    { ms: from - 1, level: "warn" }, { ms: null, level: "warn" },
  ], from, from + 60_000);
  expect(rows.get("error")!.filter(([, n]) => n > 0)).toEqual([[from, 1]]);
  expect(rows.get("warn")!.every(([, n]) => n === 0)).toBe(true);
  expect(rows.get("other")!.filter(([, n]) => n > 0)).toEqual([[from, 1], [from + 59_000, 1]]);
});
