import { expect, test } from "vitest";
import { withUnit, type Unit } from "./units";

test.each<[number | null, Unit, string]>([
  [null, "bytes", "–"], [NaN, "number", "NaN"], [Infinity, "number", "∞"], [0, "number", "0"],
  [0.0846123, "number", "0.08461"], [0.00001234, "number", "1.23e-5"], [1234.56, "number", "1,235"], [1_250_000, "number", "1.25M"],
  [2048, "bytes_per_second", "2.0 KiB/s"], [0.135, "percent", "13.5%"], [0.0123, "seconds", "12.3 ms"],
  [0.000042, "seconds", "42 µs"], [75, "seconds", "1 min 15 s"], [0, "seconds", "0 s"], [12.5, "per_second", "12.5/s"],
  [1, "cores", "1 core"], [1.5, "cores", "1.5 cores"], [61.4, "celsius", "61 °C"], [250.2, "watts", "250 W"],
])("%d %s is %s", (value, unit, text) => expect(withUnit(value, unit, "en")).toBe(text));
