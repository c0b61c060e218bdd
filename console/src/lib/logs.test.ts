import { describe, expect, test } from "vitest";
import { foldProgress, levelOf, matcher, withoutColours, withoutHead, type Level } from "./logs";

test.each<[string, Level]>([
  ["2026-11-24 20:13:05,123 - ERROR - disk full", "error"],
  ["[WARN] slow", "warn"],
  ['{"ts":1,"level":"warning","msg":"x"}', "warn"],
  ["ts=1 level=debug msg=x", "debug"],
  ['{"severity": "CRITICAL"}', "error"],
  ["E0712 10:11:12.123456 17 file.cc:12] bad", "error"],
  ["I0712 10:11:12.123456 17 file.cc:12] fine", "info"],
  ["2026-11-24 20:13:05.123456: W tensorflow/core/x.cc:1] hm", "warn"],
  ["ValueError: no such column", "error"],
  ["tensorflow.python.framework.errors_impl.NotFoundError: x", "error"],
  ["Traceback (most recent call last):", "error"],
  ["Inference error rate: 13.5%", ""], // prose is no level
  ["no errors, no warnings", ""],
  ["level=7", ""],
  ["level=constructor", ""],
  ["", ""],
])("%s is %s", (text, level) => expect(levelOf(text)).toBe(level));

test("a level far behind in a line of a megabyte is not sought", () => {
  expect(levelOf("x".repeat(1_000_000) + " ERROR ")).toBe("");
});

test.each([
  ["10%\r50%\r100%", "100%"], ["10%\r100%\r", "100%"], ["plain", "plain"], ["\r\r", ""],
])("%j shows %j", (text, shown) => expect(foldProgress(text)).toBe(shown));

test("colours of a terminal are left out", () => {
  expect(withoutColours("\x1b[31mred\x1b[0m <b>")).toBe("red <b>");
});

describe("a filter", () => {
  const lines = [
    { text: "Loss: 0.5", level: "" as const },
    { text: "loss is NaN", level: "error" as const },
    { text: "slow", level: "warn" as const },
    { text: "detail", level: "debug" as const },
  ];
  const kept = (text: string, level: Level = "") => {
    const { test, error } = matcher({ text, level });
    expect(error).toBe("");
    return lines.filter(test).map((line) => line.text);
  };
  test("keeps all without a wish", () => expect(kept("")).toHaveLength(4));
  test("finds a substring in any case", () => expect(kept("LOSS")).toEqual(["Loss: 0.5", "loss is NaN"]));
  test("takes an expression", () => expect(kept("/loss: \\d/i")).toEqual(["Loss: 0.5"]));
  test("takes an expression that minds case", () => expect(kept("/^loss/")).toEqual(["loss is NaN"]));
  test("keeps a level and what is above it", () => expect(kept("", "warn")).toEqual(["loss is NaN", "slow"]));
  test("says what is wrong with an expression and keeps everything", () => {
    const { test, error } = matcher({ text: "/(/", level: "" });
    expect(error).toContain("(");
    expect(lines.filter(test)).toHaveLength(4);
  });
});

test.each([
  ["2026-11-25T00:15:08.943Z INFO  model \"mnist\": version 2 loaded", 'model "mnist": version 2 loaded'],
  ["I0000 00:00:1795565708.921044      10 loader.cc:471] SavedModel load", "loader.cc:471] SavedModel load"],
  ["2026-11-24 20:13:05,123 [ERROR] it broke", "it broke"],
  ["2026-11-24 is a date in prose", "2026-11-24 is a date in prose"],
  ["2026-11-25T00:15:08Z ", "2026-11-25T00:15:08Z "],
  ["step 100/2000: loss 0.3", "step 100/2000: loss 0.3"],
])("without what its columns say: %s", (text, expected) => expect(withoutHead(text)).toBe(expected));
