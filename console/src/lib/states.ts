// How states look and where apps stand on the line. Pure.
import type { App, AppState, Instance, Service } from "../api/client";

export type Tone = "good" | "busy" | "warn" | "bad" | "idle";

const TONES: Record<AppState, Tone> = {
  running: "good",
  completed: "good",
  starting: "busy",
  pending: "warn",
  degraded: "warn",
  failed: "bad",
  stopping: "busy",
  stopped: "idle",
  removing: "busy",
};
export const toneOfApp = (state: AppState): Tone => TONES[state] ?? "idle";

export type InstanceWord = Instance["state"] | "ended_well" | "killed" | "out_of_memory" | "unhealthy";

// An exited instance is told apart by how it ended; a running one by its health.
export function wordOfInstance(instance: Instance): InstanceWord {
  if (instance.state === "running" && instance.health === "unhealthy") return "unhealthy";
  if (instance.state !== "exited") return instance.state;
  if (instance.oom_killed) return "out_of_memory";
  if (instance.exit_code === 0) return "ended_well";
  if (instance.signal != null) return "killed";
  return "exited";
}

export function toneOfInstance(instance: Instance): Tone {
  switch (wordOfInstance(instance)) {
    case "running":
    case "ended_well":
      return "good";
    case "starting":
    case "stopping":
      return "busy";
    case "backing_off":
    case "unhealthy":
      return "warn";
    case "killed":
      return "idle";
    default:
      return "bad";
  }
}

export const isLive = (instance: Instance) => instance.state !== "exited";

export type Station = "train" | "check" | "serve" | "watch" | "other";
export const STATIONS: readonly Station[] = ["train", "check", "serve", "watch"];

const STATION_OF_ROLE: Record<string, Station> = {
  training: "train",
  check: "check",
  serving: "serve",
  client: "watch",
};
export const stationOfService = (service: Service): Station => STATION_OF_ROLE[service.role] ?? "other";

// An app stands at every station at which one of its services works.
export function stationsOfApp(app: App): Station[] {
  const found = new Set(app.services.map(stationOfService));
  if (found.size > 1) found.delete("other");
  return found.size === 0 ? ["other"] : [...found];
}

// What needs a look comes first, then what moves, then by name.
const ORDER: Record<Tone, number> = { bad: 0, warn: 1, busy: 2, good: 3, idle: 4 };
export function byUrgency(a: App, b: App): number {
  return ORDER[toneOfApp(a.state)] - ORDER[toneOfApp(b.state)] || a.name.localeCompare(b.name);
}

export function mayStop(app: App): boolean {
  return !app.stopped && !["completed", "failed", "stopping", "removing"].includes(app.state);
}
export function mayStart(app: App): boolean {
  return app.stopped || app.state === "completed" || app.state === "failed";
}
