import { expect, test } from "vitest";
import type { Run } from "../api/client";
import { byRank, gpuSecondsOf, idOf, matches, pointsOf, secondsOf, sorted } from "./runs";

const run = (number: number, more: Partial<Run> = {}): Run => ({
  app: "t", number, service: "s", revision: number, values: { VERSION: String(number) }, why: "", author: "", state: "completed", reason: "",
  started: `2026-05-01T12:0${number}:00Z`, ended: `2026-05-01T12:0${number}:30Z`, exit_code: 0, signal: null, restarts: 0, cpu_seconds: 1, gpus: 0,
  node: "", note: "", tags: [], model: null, findings: [], hyperparameters: {}, metrics: [], ...more,
});
const loss = (last: number | string | null) => [{ writer: "train", tag: "loss", last_step: 1, last, best: last, best_is: "lowest" as const }];

test("a run that lives lasts up to now; how long one lasted that was lost is not known", () => {
  expect(secondsOf(run(1), 0)).toBe(30);
  expect([0, 2, -1].map((gpus) => gpuSecondsOf(run(1, { gpus }), 0))).toEqual([0, 60, null]);
  expect(secondsOf(run(1, { ended: null, state: "running" }), Date.parse("2026-05-01T12:02:00Z"))).toBe(60);
  expect(secondsOf(run(1, { ended: null, state: "failed" }), 0)).toBeNull();
});

test.each([["", true], ["t/1", true], ["version=1", true], ["VERSION=2", false], ["keep", true], ["completed", true], ["nothing", false]])(
  "a filter for %j", (text, found) => expect(matches(run(1, { tags: ["Keep"] }), text)).toBe(found));

test("runs are sorted by time or by a metric; what is unknown comes last, whichever way", () => {
  const runs = [run(1, { metrics: loss(0.5) }), run(2, { metrics: loss("NaN") }), run(3, { metrics: loss(0.1) }), run(4)];
  const order = (by: string, down: boolean) => sorted(runs, { by, down }, 0).map((r) => r.number);
  expect(order("started", true)).toEqual([4, 3, 2, 1]);
  expect(order("train/loss", false)).toEqual([3, 1, 2, 4]);
  expect(order("train/loss", true)).toEqual([1, 3, 2, 4]);
  expect(idOf(runs[0]!)).toBe("t/1");
});

test("losses and accuracies of validation come first", () => {
  expect(["train/lr", "train/loss", "weights", "validation/accuracy", "validation/loss"].sort(byRank)).toEqual([
    "validation/loss", "validation/accuracy", "train/loss", "weights", "train/lr",
  ]);
});

test("what is not a number is told apart, and is not drawn as zero", () => {
  const curve = { count: 3, steps: [1, 2, 3], times: [1000, 2000, 4000], values: [0.5, "NaN", null], smoothed: [] };
  const { points, broken } = pointsOf(curve, "relative", "values");
  expect(points).toEqual([[0, 0.5], [1, NaN], [3, null]]);
  expect(broken).toEqual([1]);
  expect(pointsOf(curve, "step", "values").points[0]).toEqual([1, 0.5]);
  expect(pointsOf(curve, "wall", "values").points[0]).toEqual([1000, 0.5]);
});
