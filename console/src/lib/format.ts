// Text for numbers and times. What is unknown is "–", never zero. Pure functions; the language comes in.
export type Language = "en" | "zh";
export const UNKNOWN = "–";

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

export function bytes(value: number | null | undefined): string {
  if (value == null || !Number.isFinite(value) || value < 0) return UNKNOWN;
  let unit = 0;
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${UNITS[unit]}`;
}

export function number(value: number | null | undefined, language: Language, digits = 2): string {
  if (value == null || !Number.isFinite(value)) return UNKNOWN;
  return new Intl.NumberFormat(language === "zh" ? "zh-CN" : "en-GB", {
    maximumFractionDigits: digits,
  }).format(value);
}

// A fraction of one as a percentage: 0.1352 -> "13.52%".
export function percent(fraction: number | null | undefined, digits = 2): string {
  if (fraction == null || !Number.isFinite(fraction)) return UNKNOWN;
  return `${Number((fraction * 100).toFixed(digits))}%`;
}

// Milliseconds of an RFC 3339 time; null for what is none.
export function parseTime(text: string | null | undefined): number | null {
  if (!text) return null;
  const ms = Date.parse(text);
  return Number.isNaN(ms) || ms <= 0 ? null : ms;
}

const STEPS: [Intl.RelativeTimeFormatUnit, number][] = [
  ["year", 365 * 86_400],
  ["month", 30 * 86_400],
  ["day", 86_400],
  ["hour", 3600],
  ["minute", 60],
  ["second", 1],
];

const relativeFormats: Partial<Record<Language, Intl.RelativeTimeFormat>> = {};

// "3 minutes ago"; under five seconds "now".
export function relative(ms: number | null, nowMs: number, language: Language): string {
  if (ms == null) return UNKNOWN;
  const format = (relativeFormats[language] ??= new Intl.RelativeTimeFormat(
    language === "zh" ? "zh-CN" : "en-GB",
    { numeric: "auto" },
  ));
  const seconds = (ms - nowMs) / 1000;
  if (Math.abs(seconds) < 5) return format.format(0, "second");
  for (const [unit, length] of STEPS) {
    if (Math.abs(seconds) >= length) return format.format(Math.trunc(seconds / length), unit);
  }
  return format.format(0, "second");
}

const two = (value: number) => String(value).padStart(2, "0");

// Local time, "2026-11-24 20:13:05", the same in both languages and sortable by eye.
export function absolute(ms: number | null): string {
  if (ms == null) return UNKNOWN;
  const d = new Date(ms);
  return `${d.getFullYear()}-${two(d.getMonth() + 1)}-${two(d.getDate())} ${clock(ms)}`;
}

export function clock(ms: number | null, millis = false): string {
  if (ms == null) return UNKNOWN;
  const d = new Date(ms);
  const text = `${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}`;
  return millis ? `${text}.${String(d.getMilliseconds()).padStart(3, "0")}` : text;
}

// A length of time by its two largest units: "2 h 5 min".
export function duration(seconds: number | null | undefined, language: Language): string {
  if (seconds == null || !Number.isFinite(seconds) || seconds < 0) return UNKNOWN;
  const names = language === "zh" ? ["天", "小时", "分", "秒"] : ["d", "h", "min", "s"];
  if (seconds < 10) return `${Number(seconds.toFixed(1))} ${names[3]}`;
  let rest = Math.round(seconds);
  const parts: string[] = [];
  for (const [i, length] of [86_400, 3600, 60, 1].entries()) {
    const count = Math.floor(rest / length);
    rest -= count * length;
    if (count > 0) parts.push(`${count} ${names[i]}`);
    if (parts.length === 2 || (parts.length === 1 && count === 0)) break;
  }
  return parts.join(" ") || `0 ${names[3]}`;
}

// The short name of an image: "registry-vpc.cn-x.aliyuncs.com/cheyang/mnist-export" -> "mnist-export".
export function shortImage(image: string): string {
  return image.slice(image.lastIndexOf("/") + 1) || image;
}
