import { describe, expect, test } from "vitest";
import type { App, Instance, Service } from "../api/client";
import { byUrgency, mayStart, mayStop, stationsOfApp, toneOfInstance, wordOfInstance } from "./states";

const instance = (more: Partial<Instance>): Instance => ({
  id: "a-web-0-1", replica: 0, restarts: 0, revision: 1, node: "", state: "running", health: "none", reason: "",
  exit_code: null, signal: null, oom_killed: false, pid: 1, created_at: null, started_at: null, finished_at: null,
  endpoints: [], cpu_seconds: 0, memory_bytes: 0, ...more,
});
const service = (role: Service["role"]): Service => ({
  name: role || "x", role, state: "running", reason: "", image: "", replicas: 1, instances: [],
});
const app = (name: string, more: Partial<App> = {}): App => ({
  name, state: "running", reason: "", stopped: false, created_at: "", updated_at: "", values: {}, services: [],
  revision: { number: 1, created_at: "", author: "", why: "", rollback_of: 0, image_digests: {} }, ...more,
});

describe("an instance is told by how it is or how it ended", () => {
  test.each<[Partial<Instance>, string, string]>([
    [{}, "running", "good"],
    [{ health: "unhealthy" }, "unhealthy", "warn"],
    [{ state: "exited", exit_code: 0 }, "ended_well", "good"],
    [{ state: "exited", exit_code: 1 }, "exited", "bad"],
    [{ state: "exited", signal: 15 }, "killed", "idle"],
    [{ state: "exited", signal: 9, oom_killed: true }, "out_of_memory", "bad"],
    [{ state: "exited" }, "exited", "bad"], // could not be started
    [{ state: "backing_off" }, "backing_off", "warn"],
  ])("%j", (more, word, tone) => {
    expect(wordOfInstance(instance(more))).toBe(word);
    expect(toneOfInstance(instance(more))).toBe(tone);
  });
});

test.each([
  [["training"], ["train"]], [["serving", "client"], ["serve", "watch"]], [["training", ""], ["train"]],
  [[""], ["other"]], [[], ["other"]],
] as [Service["role"][], string[]][])("services %j stand at %j", (roles, stations) =>
  expect(stationsOfApp(app("a", { services: roles.map(service) }))).toEqual(stations));

test("what needs a look comes first", () => {
  const order = [app("d"), app("c", { state: "failed" }), app("b", { state: "pending" }), app("a")].sort(byUrgency);
  expect(order.map((a) => a.name)).toEqual(["c", "b", "a", "d"]);
});

test("what can be done depends on the state", () => {
  expect([mayStop(app("a")), mayStart(app("a"))]).toEqual([true, false]);
  const stopped = app("a", { state: "stopped", stopped: true });
  expect([mayStop(stopped), mayStart(stopped)]).toEqual([false, true]);
  expect(mayStart(app("a", { state: "completed" }))).toBe(true);
  expect(mayStop(app("a", { state: "removing" }))).toBe(false);
});
