import { describe, expect, test } from "vitest";
import type { App, Instance, Revision } from "../api/client";
import { byRank, pointsOf, runsOf, windowOf } from "./runs";

const time = (s: number) => new Date(1_700_000_000_000 + s * 1000).toISOString();
const revision = (number: number, at: number): Revision => ({
  number, created_at: time(at), author: "", why: "", rollback_of: 0, image_digests: {},
  configuration: { template: "", template_name: "", values: { VERSION: String(number) }, volume_options: {} },
});
const instance = (revision: number, at: number, more: Partial<Instance> = {}): Instance => ({
  id: `i${at}`, replica: 0, restarts: 0, revision, node: "", state: "exited", health: "none", reason: "", exit_code: 0, signal: null,
  oom_killed: false, pid: 0, created_at: time(at), started_at: time(at), finished_at: time(at + 5), endpoints: [], cpu_seconds: 0,
  memory_bytes: 0, ...more,
});
const app = (instances: Instance[]): App => ({
  name: "t", state: "running", reason: "", stopped: false, created_at: time(0), updated_at: time(0), values: {},
  revision: { number: 1, created_at: time(0), author: "", why: "", rollback_of: 0, image_digests: {} },
  services: [{ name: "s", role: "training", state: "running", reason: "", image: "", replicas: 1, instances }],
});

describe("runs", () => {
  test("each revision is one, newest first, each up to the next", () => {
    const runs = runsOf(app([instance(1, 10), instance(2, 100)]), [revision(2, 99), revision(1, 9)]);
    expect(runs.map((r) => [r.id, r.values.VERSION, r.live])).toEqual([["t/2", "2", false], ["t/1", "1", false]]);
    expect(windowOf(runs[1]!)).toEqual({ from: time(9), to: time(99) });
    expect(windowOf(runs[0]!)).toEqual({ from: time(99) });
  });
  test("a second start of one revision is a second run, a restart is not", () => {
    const again = [instance(1, 10), instance(1, 50), instance(1, 60, { restarts: 1, state: "running", finished_at: null })];
    expect(runsOf(app(again), [revision(1, 9)]).map((r) => [r.id, r.live])).toEqual([["t/1.2", true], ["t/1", false]]);
  });
  test("where no instance is kept any more, the revision tells", () => {
    expect(runsOf(app([]), [revision(1, 9)]).map((r) => [r.id, r.startedMs])).toEqual([["t/1", Date.parse(time(9))]]);
  });
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
