import { expect, test } from "vitest";
import { heat } from "./heat";

test("buckets are spread over the cells that they cover, and the fullest cell is 1", () => {
  const h = heat([{ buckets: [[0, 30, 30], [10, 11, 9]] }, { buckets: [[5, 5, 2]] }])!;
  expect([h.low, h.high, h.bins, h.columns.length]).toEqual([0, 30, 30, 2]);
  expect(h.columns[0]!.map((share) => Math.round(share * 10))).toEqual(Array.from({ length: 30 }, (_, i) => (i === 10 ? 10 : 1)));
  expect(h.columns[1]!.filter((share) => share > 0).length).toBe(1);
});

test("what is not finite or empty is left out; nothing left is nothing to draw", () => {
  expect(heat([])).toBeNull();
  expect(heat([{ buckets: [["-Infinity", 0, 3], [0, 1, 0]] }, {}])).toBeNull();
  expect(heat([{ buckets: [[2, 2, 1]] }])).toMatchObject({ low: 1.5, high: 2.5 });
});
