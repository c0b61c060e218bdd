import { describe, expect, test } from "vitest";
import type { Parameter } from "../api/client";
import { isComplete, problem, shown, suggestName, toSend } from "./parameters";

function parameter(name: string, more: Partial<Parameter> = {}): Parameter {
  return { name, default_value: null, required: false, message: "", type: "text", uses: [], ...more };
}
const version = parameter("VERSION", { required: true, message: "say which version", type: "integer" });
const steps = parameter("TRAIN_STEPS", { default_value: "1000", type: "integer" });

test("a default shows, and takes effect untouched", () => {
  expect(shown(steps, {})).toBe("1000");
  expect(problem(steps, {})).toBeNull();
  expect(toSend([steps], {})).toEqual({});
});

test("a value equal to the default is not sent, another is", () => {
  expect(toSend([steps], { TRAIN_STEPS: "1000" })).toEqual({});
  expect(toSend([steps], { TRAIN_STEPS: "2000" })).toEqual({ TRAIN_STEPS: "2000" });
});

test("values of parameters that the template lost are not sent", () => {
  expect(toSend([version], { VERSION: "1", OLD: "x" })).toEqual({ VERSION: "1" });
});

test("a required one without a value stops, with the template's words", () => {
  expect(problem(version, {})).toEqual({ kind: "required", message: "say which version" });
  expect(problem(version, { VERSION: "" })).toEqual({ kind: "required", message: "say which version" });
  expect(isComplete([version, steps], {})).toBe(false);
  expect(isComplete([version, steps], { VERSION: "1" })).toBe(true);
});

describe("a type warns and never stops", () => {
  test.each<[Parameter["type"], string, boolean]>([
    ["integer", "12", true], ["integer", "-3", true], ["integer", "1.5", false], ["integer", "x", false],
    ["number", "0.01", true], ["number", "1e-3", true], ["number", ".5", true], ["number", "fast", false],
    ["path", "/mnist_model", true], ["path", "a b", false],
    ["endpoint", "127.0.0.1:9000", true], ["endpoint", "serving:9000", true], ["endpoint", "http://a/b", true],
    ["endpoint", "[::1]:9000", true], ["endpoint", "not an address", false],
    ["text", "anything at all", true],
  ])("%s %s", (type, value, fine) => {
    const p = parameter("P", { type, required: true });
    expect(problem(p, { P: value })).toEqual(fine ? null : { kind: "type", type });
    expect(isComplete([p], { P: value })).toBe(true);
  });
});

test.each([
  ["training.yml", [], "training"], ["My Template.YAML", [], "my-template"], ["--", [], "app"], ["训练.yml", [], "app"],
  ["training.yml", ["training", "training-2"], "training-3"],
])("%s is called %s", (file, taken, name) => expect(suggestName(file, new Set(taken))).toBe(name));
