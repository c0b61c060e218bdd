// Facts of the apps that are on the screen, read from the ends of their logs. Asked for again when an
// app changed, and every few seconds while one runs.
import { untrack } from "svelte";
import { api, type App } from "../api/client";
import { factsOf, type Facts } from "./facts";

const TAIL = 300;
const EVERY_MS = 8000;
const MAX_AT_ONCE = 24;

export class FactsOf {
  byApp = $state.raw<ReadonlyMap<string, Facts>>(new Map());
  #seen = new Map<string, { stamp: string; at: number }>();
  #busy = false;

  // Called from an effect with the apps shown and the current time.
  refresh(apps: readonly App[], nowMs: number) {
    if (this.#busy) return;
    const due = apps.slice(0, MAX_AT_ONCE).filter((app) => {
      if (app.state === "removing") return false;
      const seen = this.#seen.get(app.name);
      const stamp = `${app.updated_at} ${app.state} ${app.revision.number}`;
      const old = !seen || (app.state === "running" && nowMs - seen.at > EVERY_MS);
      return old || seen.stamp !== stamp;
    });
    if (due.length === 0) return;
    this.#busy = true;
    void this.#read(due, nowMs).finally(() => (this.#busy = false));
  }

  async #read(apps: readonly App[], nowMs: number) {
    const found = new Map(untrack(() => this.byApp));
    for (const app of apps) {
      this.#seen.set(app.name, { stamp: `${app.updated_at} ${app.state} ${app.revision.number}`, at: nowMs });
      try {
        const { lines } = await api.logs(app.name, { tail: TAIL });
        found.set(app.name, factsOf(lines.map((line) => line.text)));
      } catch {
        found.delete(app.name); // gone, or its log cannot be read: nothing is known
      }
    }
    this.byApp = found;
  }
}
