// What of an app's events is marked on its charts, and which span of time tells most of it. Pure.
import type { App, TaktEvent } from "../api/client";
import { clock, parseTime } from "./format";
import type { Marker } from "./plot";
import { isLive } from "./states";

const SERVES = /: versions? ([\d, ]+) serves? now/;

// The version that an event says serves from then on: "2", "1, 2".
export const servedIn = (event: Pick<TaktEvent, "kind" | "message">): string | null =>
  event.kind === "serves" ? (SERVES.exec(event.message)?.[1] ?? null) : null;

export function markerOf(event: TaktEvent, kind: string, message: string, revision: (n: string) => string): Marker | null {
  const x = parseTime(event.time);
  if (x === null) return null;
  const label = `${clock(x)} ${kind}: ${message}`;
  const version = servedIn(event);
  if (version !== null) return { x, label, tone: "good", sign: `v${version.replace(/, /g, " v")}` };
  const tone = event.level === "error" ? "bad" : event.level === "warning" ? "warn" : /^(created|configured|rolled_back)$/.test(event.kind) ? "busy" : "idle";
  const changed = /^(configured|rolled_back)$/.test(event.kind) ? /\brevision (\d+)/.exec(event.message)?.[1] : undefined;
  return { x, label, tone, ...(changed ? { sign: revision(changed) } : {}), ...(event.kind === "restarted" ? { sign: "↻" } : {}) };
}

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;

// Follows the clock while something runs: an hour, less of a young app. Of an app that has been quiet
// for a while: the hour before its last change.
export function spanOf(app: App, nowMs: number): { spanMs: number; past?: [number, number] } {
  const created = parseTime(app.created_at) ?? nowMs;
  const spanMs = Math.min(HOUR, Math.max(MINUTE / 2, (nowMs - created) * 1.1));
  const last = Math.max(parseTime(app.updated_at) ?? created, ...app.services.flatMap((s) => s.instances.map((i) => parseTime(i.finished_at) ?? 0)));
  const runs = app.services.some((service) => service.instances.some(isLive));
  if (runs || nowMs - last < 5 * MINUTE) return { spanMs };
  const length = Math.min(HOUR, Math.max(MINUTE / 2, last - created));
  return { spanMs, past: [last - length * 1.02, last + length * 0.1] };
}
