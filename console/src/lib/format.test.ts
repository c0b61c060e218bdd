import { describe, expect, test } from "vitest";
import { UNKNOWN, bytes, duration, number, parseTime, percent, relative, shortImage } from "./format";

describe("what is unknown is never zero", () => {
  test.each([[null], [undefined], [NaN], [Infinity]])("%s", (value) => {
    expect(bytes(value)).toBe(UNKNOWN);
    expect(number(value, "en")).toBe(UNKNOWN);
    expect(percent(value)).toBe(UNKNOWN);
    expect(duration(value, "zh")).toBe(UNKNOWN);
  });
  test("times", () => {
    expect(parseTime(null)).toBeNull();
    expect(parseTime("")).toBeNull();
    expect(parseTime("yesterday")).toBeNull();
    expect(parseTime("1970-01-01T00:00:00Z")).toBeNull();
    expect(relative(null, 0, "en")).toBe(UNKNOWN);
  });
});

test.each([
  [0, "0 B"], [1023, "1023 B"], [1024, "1.0 KiB"], [1536, "1.5 KiB"], [200 * 1024, "200 KiB"],
  [5 * 1024 ** 3, "5.0 GiB"], [2 ** 70, "1048576 PiB"],
])("%d bytes are %s", (value, text) => expect(bytes(value)).toBe(text));

test.each([
  [0, "0 s", "0 秒"], [0.25, "0.3 s", "0.3 秒"], [12.4, "12 s", "12 秒"], [60, "1 min", "1 分"],
  [3725, "1 h 2 min", "1 小时 2 分"], [3600, "1 h", "1 小时"], [90_061, "1 d 1 h", "1 天 1 小时"],
])("%d seconds are %s", (value, en, zh) => {
  expect(duration(value, "en")).toBe(en);
  expect(duration(value, "zh")).toBe(zh);
});

test.each([
  [0, "now", "现在"], [-3, "now", "现在"], [-42, "42 seconds ago", "42秒钟前"], [-180, "3 minutes ago", "3分钟前"],
  [-86_400, "yesterday", "昨天"], [7200, "in 2 hours", "2小时后"],
])("%d seconds from now is %s", (offset, en, zh) => {
  const now = Date.parse("2026-05-01T12:00:00Z");
  expect(relative(now + offset * 1000, now, "en")).toBe(en);
  expect(relative(now + offset * 1000, now, "zh").replace(/\s/g, "")).toBe(zh);
});

test.each([[0.135, "13.5%"], [0.0846, "8.46%"], [0, "0%"], [1, "100%"]])("%d is %s", (value, text) =>
  expect(percent(value)).toBe(text));

test.each([
  ["registry-vpc.cn-hangzhou.aliyuncs.com/cheyang/mnist-export", "mnist-export"], ["mnist", "mnist"], ["a/", "a/"],
])("%s is called %s", (image, short) => expect(shortImage(image)).toBe(short));
