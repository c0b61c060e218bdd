import { expect, test } from "vitest";
import type { App, TaktEvent } from "../api/client";
import { markerOf, servedIn, spanOf } from "./moments";

const event = (kind: string, message: string, level = "info"): TaktEvent => ({ id: 1, time: "2026-01-31T12:00:00.000Z", app: "a", kind, message, level }) as TaktEvent;
const mark = (e: TaktEvent) => markerOf(e, e.kind, e.message, (n) => `r${n}`);

test.each([
  ["serves", 'model "mnist": version 2 serves now, before it 1', "2"],
  ["serves", 'model "mnist": versions 1, 2 serve now', "1, 2"],
  ["serves", 'model "mnist": no version serves any more', null],
  ["started", 'version 2 serves now', null],
])("%s %s", (kind, message, version) => expect(servedIn({ kind, message })).toBe(version));

test("switches, changes and restarts are signed at their line; the rest is told in the list only", () => {
  expect(mark(event("serves", 'model "m": versions 1, 2 serve now'))).toMatchObject({ sign: "v1 v2", tone: "good" });
  expect(mark(event("configured", "revision 3 by ann"))).toMatchObject({ sign: "r3", tone: "busy" });
  expect(mark(event("restarted", "web restarted (revision 3)", "warning"))).toMatchObject({ sign: "↻", tone: "warn" });
  expect(mark(event("started", "web started (revision 3)"))).not.toHaveProperty("sign");
  expect(mark({ ...event("started", ""), time: "never" })).toBeNull();
});

test("what runs follows the clock; what has ended a while ago is shown when it ended", () => {
  const START = Date.parse("2026-01-31T12:00:00Z");
  const at = (minutes: number) => new Date(START + minutes * 60_000).toISOString();
  const app = (state: string, updated: number) => ({ created_at: at(0), updated_at: at(updated), services: [{ instances: [{ state, finished_at: null }] }] }) as unknown as App;
  expect(spanOf(app("running", 1), START + 600 * 60_000)).toEqual({ spanMs: 3_600_000 });
  expect(spanOf(app("exited", 10), START + 11 * 60_000).past).toBeUndefined(); // just now
  expect(spanOf(app("exited", 10), START + 600 * 60_000).past!.map((x) => Math.round((x - START) / 60_000))).toEqual([expect.closeTo(0), 11]);
});
