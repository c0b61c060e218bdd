import { expect, test } from "vitest";
import type { App } from "../api/client";
import { whereOf } from "./alerts";

const since = "2026-01-31T12:00:00.000Z";
const at = Date.parse(since);
const apps = new Map([["bad", { state: "failed" }], ["good", { state: "running" }]] as unknown as [string, App][]);

test.each([
  [{ app: "bad" }, "#/apps/bad/failure"],
  [{ app: "good", run: "3" }, "#/apps/good/learning?runs=good%2F3"],
  [{ app: "good" }, `#/apps/good/timeline?from=${at - 600_000}&to=${at + 60_000}`],
  [{ directory: "/" }, "#/alerts"],
])("%o leads to %s", (labels, address) => expect(whereOf({ labels: labels as Record<string, string>, rule: "r", since }, apps, at + 60_000)).toBe(address));
