import { describe, expect, test } from "vitest";
import { fill } from ".";
import { en } from "./en";
import { zh } from "./zh";

const keys = Object.keys(en);
const files = import.meta.glob<string>(["../**/*.{ts,svelte}", "!../**/*.test.ts", "!../i18n/**", "!../api/generated.ts"], {
  query: "?raw", import: "default", eager: true,
});
const code = Object.values(files).join("\n");

// Every quoted word of the sources, and every `a.${b}.c` as a pattern of keys.
const quoted = new Set([...code.matchAll(/"([\w.]+)"/g)].map((match) => match[1]!));
const patterns = [...code.matchAll(/\bt\(`([^`]+)`/g)].map(
  (match) => new RegExp(`^${match[1]!.replace(/\./g, "\\.").replace(/\$\{[^}]*\}/g, "[\\w.]+")}$`),
);

test("both languages have the same keys, and none is empty", () => {
  expect(Object.keys(zh).sort()).toEqual(keys.slice().sort());
  for (const [key, text] of [...Object.entries(en), ...Object.entries(zh)]) expect(text.trim(), key).not.toBe("");
});

test("every key is used somewhere", () => {
  const unused = keys.filter((key) => !quoted.has(key) && !patterns.some((pattern) => pattern.test(key)));
  expect(unused).toEqual([]);
});

test("every key that the sources name exists", () => {
  const named = [...code.matchAll(/\bt\(\s*"([^"]+)"/g)].map((match) => match[1]!);
  expect(named.length).toBeGreaterThan(100);
  expect(named.filter((key) => !(key in en))).toEqual([]);
  for (const pattern of patterns) expect(keys.some((key) => pattern.test(key)), String(pattern)).toBe(true);
});

test("both languages fill in the same values", () => {
  const names = (text: string) => [...new Set([...text.matchAll(/\{(\w+)/g)].map((match) => match[1]))].sort();
  for (const key of keys as (keyof typeof en)[]) {
    const [inEnglish, inChinese] = [names(en[key]), names(zh[key])];
    for (const name of inChinese) expect(inEnglish, `${key}: ${name}`).toContain(name);
  }
});

test("Chinese texts are Chinese", () => {
  const same = (keys as (keyof typeof en)[]).filter((key) => en[key] === zh[key]);
  expect(same).toEqual(["service.cpus"]); // CPU is CPU
});

describe("fill", () => {
  test.each([
    ["{n} {n|line|lines}", { n: 1 }, "1 line"],
    ["{n} {n|line|lines}", { n: 0 }, "0 lines"],
    ["{n} {n|line|lines}", { n: 7 }, "7 lines"],
    ["{app}: {app}", { app: "a" }, "a: a"],
    ["{missing} stays", {}, "{missing} stays"],
    ["{a}", { a: "{b}", b: "x" }, "{b}"], // what came from outside is not filled again
    ["{name}", { name: "$& <b>" }, "$& <b>"],
  ])("%s", (text, values, expected) => expect(fill(text, values)).toBe(expected));
});
