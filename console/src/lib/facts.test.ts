import { expect, test } from "vitest";
import { factsOf } from "./facts";

test.each<[string[], number | null]>([
  [[], null],
  [["Inference error rate: much", "error rate unknown", "5% of errors"], null],
  [["Inference error rate: 13.5%"], 0.135],
  [["Inference error rate: 13.5%", "120 of 1000 answered, 0 failed, error rate 8.4%"], 0.084],
])("%j", (lines, errorRate) => expect(factsOf(lines)).toEqual({ errorRate }));
