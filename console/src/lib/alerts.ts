// How alerts look and where they lead. Pure.
import type { App, Schemas } from "../api/client";
import { parseTime } from "./format";
import { href } from "./router.svelte";
import { toneOfApp, type Tone } from "./states";

type Alert = Pick<Schemas["Alerts"]["alerts"][number], "labels" | "rule" | "since">;
export const TONE_OF_SEVERITY: Record<Schemas["Alerts"]["alerts"][number]["severity"], Tone> = { critical: "bad", warning: "warn", info: "busy" };
const AROUND_MS = 600_000;

// What is red opens where it is explained: the failure of an app that failed, the run that goes wrong,
// the time around it; without an app the alerts themselves.
export function whereOf(alert: Alert, apps: ReadonlyMap<string, App>, nowMs = Date.now()): string {
  const app = alert.labels.app;
  if (!app) return href(["alerts"]);
  const state = apps.get(app)?.state;
  if (state && toneOfApp(state) === "bad") return href(["apps", app, "failure"]);
  if (alert.labels.run) return href(["apps", app, "learning"], { runs: `${app}/${alert.labels.run}` });
  const since = parseTime(alert.since) ?? nowMs;
  return href(["apps", app, "timeline"], { from: String(since - AROUND_MS), to: String(Math.min(nowMs, since + AROUND_MS)) });
}
