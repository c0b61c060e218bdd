import { expect, test } from "vitest";
import { languageOf } from "./preferences.svelte";

test.each([
  ["zh", ["en-US"], "zh"], ["en", ["zh-CN"], "en"], [null, ["zh-CN", "en"], "zh"], [null, ["de-DE", "zh-TW"], "zh"],
  [null, ["de-DE"], "en"], [null, [], "en"], ["fr", ["zh"], "zh"],
] as const)("remembered %s, browser %j: %s", (remembered, browser, language) =>
  expect(languageOf(remembered, browser)).toBe(language));
