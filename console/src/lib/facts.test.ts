import { expect, test } from "vitest";
import { factsOf } from "./facts";

test("nothing said, nothing known", () => {
  expect(factsOf([])).toEqual({ errorRate: null, loadedVersion: null, exportedVersion: null });
  expect(factsOf(["Inference error rate: much", "error rate unknown", "export failed", "exported 12 rows"])).toEqual({
    errorRate: null, loadedVersion: null, exportedVersion: null,
  });
});

test("the newest word of each program counts", () => {
  expect(factsOf([
    "Inference error rate: 13.5%",
    "2026-11-24 20:13:05.1: I x] Successfully loaded servable version {name: mnist version: 1}",
    "2026-11-24 20:14:05.1: I x] Successfully loaded servable version {name: mnist version: 2}",
    "Exporting trained model to /tmp/mnist/1",
    "exported /models/mnist/00000002 in 1.2 s",
    "Inference error rate: 8.4%",
  ])).toEqual({ errorRate: 0.084, loadedVersion: 2, exportedVersion: 2 });
});
