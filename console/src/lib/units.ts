// Units of charts: what an axis and a tooltip say. What is unknown is "–", never zero. Pure.
import { UNKNOWN, bytes, duration, number, type Language } from "./format";

export type Unit = "number" | "bytes" | "bytes_per_second" | "percent" | "seconds" | "per_second" | "cores" | "celsius" | "watts";

export function withUnit(value: number | null | undefined, unit: Unit, language: Language): string {
  if (value == null || !Number.isFinite(value)) return value != null && Number.isNaN(value) ? "NaN" : value != null ? (value > 0 ? "∞" : "-∞") : UNKNOWN;
  switch (unit) {
    case "bytes":
      return bytes(value);
    case "bytes_per_second":
      return `${bytes(value)}/s`;
    case "percent":
      return `${number(value * 100, language, 1)}%`;
    case "seconds":
      return value !== 0 && Math.abs(value) < 1 ? small(value, language) : duration(value, language);
    case "per_second":
      return `${significant(value, language)}/s`;
    case "cores":
      return `${Math.abs(value) < 0.1 ? significant(value, language) : number(value, language, 2)} ${language === "zh" ? "核" : Math.abs(value) === 1 ? "core" : "cores"}`;
    case "celsius":
      return `${number(value, language, 0)} °C`;
    case "watts":
      return `${number(value, language, 0)} W`;
    case "number":
      return significant(value, language);
  }
}

function small(seconds: number, language: Language): string {
  if (Math.abs(seconds) >= 1e-3) return `${number(seconds * 1e3, language, 1)} ms`;
  return `${number(seconds * 1e6, language, 1)} µs`;
}

// Four significant digits, without a tail of noise: 0.08461, 1,235, 1.2M.
export function significant(value: number, language: Language): string {
  const size = Math.abs(value);
  if (size >= 1e6) return new Intl.NumberFormat(language === "zh" ? "zh-CN" : "en-US", { notation: "compact", maximumSignificantDigits: 4 }).format(value);
  if (size >= 1000) return number(value, language, 0);
  if (size !== 0 && size < 1e-4) return value.toExponential(2);
  return String(Number(value.toPrecision(4)));
}
