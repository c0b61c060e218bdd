// What the daemon says, kept current: one read of all apps, then one server-sent event stream per
// tab. Changes are gathered and shown once a frame, so that a thousand apps that change at once are
// one update. A hidden tab lets its connection go (a browser has six per host) and catches up later.
import { api, toApiError, type App, type ApiError, type TaktEvent } from "../api/client";

export const MAX_EVENTS = 1000;
const HIDDEN_GRACE_MS = 30_000;
const MAX_RETRY_MS = 15_000;

type Connection = "connecting" | "live" | "lost";

class Live {
  apps = $state.raw<ReadonlyMap<string, App>>(new Map());
  events = $state.raw<readonly TaktEvent[]>([]); // oldest first
  loaded = $state(false);
  connection = $state<Connection>("connecting");
  error = $state.raw<ApiError | null>(null);
  volumesChanged = $state(0); // counts up
  searchesChanged = $state(0); // likewise

  #source: EventSource | null = null;
  #lastId: number | undefined;
  #retryMs = 500;
  #retryTimer: ReturnType<typeof setTimeout> | undefined;
  #hiddenTimer: ReturnType<typeof setTimeout> | undefined;
  #changes = new Map<string, App | null>(); // null = removed
  #newEvents: TaktEvent[] = [];
  #frame = false;

  start() {
    this.#connect();
    document.addEventListener("visibilitychange", () => {
      clearTimeout(this.#hiddenTimer);
      if (document.hidden) this.#hiddenTimer = setTimeout(() => this.#close(), HIDDEN_GRACE_MS);
      else if (!this.#source) this.#connect();
    });
  }

  // What an own action answered, without waiting for the stream.
  put(app: App) {
    this.#changes.set(app.name, app);
    this.#schedule();
  }
  drop(name: string) {
    this.#changes.set(name, null);
    this.#schedule();
  }
  retryNow() {
    this.#close();
    this.#retryMs = 500;
    this.#connect();
  }

  #close() {
    clearTimeout(this.#retryTimer);
    this.#source?.close();
    this.#source = null;
  }

  #connect() {
    this.#close();
    if (this.connection !== "lost") this.connection = "connecting";
    const source = new EventSource(api.streamUrl(this.#lastId));
    this.#source = source;
    source.addEventListener("hello", () => void this.#read());
    source.addEventListener("app", (e) => this.put(JSON.parse(e.data as string) as App));
    source.addEventListener("app_removed", (e) => this.drop((JSON.parse(e.data as string) as { name: string }).name));
    source.addEventListener("volumes", () => this.volumesChanged++);
    source.addEventListener("searches", () => this.searchesChanged++);
    source.addEventListener("event", (e) => {
      this.#newEvents.push(JSON.parse(e.data as string) as TaktEvent);
      this.#schedule();
    });
    source.onerror = () => {
      if (source !== this.#source) return;
      this.#close();
      this.#lost();
    };
  }

  #lost() {
    this.connection = "lost";
    this.#retryTimer = setTimeout(() => this.#connect(), this.#retryMs);
    this.#retryMs = Math.min(this.#retryMs * 2, MAX_RETRY_MS);
    // The stream does not say why; a plain request does.
    if (!this.loaded) void api.system().catch((e: unknown) => (this.error = toApiError(e)));
  }

  async #read() {
    try {
      const apps = await api.apps();
      this.apps = new Map(apps.map((app) => [app.name, app]));
      if (this.#lastId === undefined) {
        const { events, last_id } = await api.events({ limit: MAX_EVENTS });
        this.events = events;
        this.#lastId = last_id;
      }
      this.loaded = true;
      this.connection = "live";
      this.error = null;
      this.#retryMs = 500;
      this.#schedule();
    } catch (e) {
      this.error = toApiError(e);
      this.#close();
      this.#lost();
    }
  }

  #schedule() {
    if (this.#frame) return;
    this.#frame = true;
    requestAnimationFrame(() => {
      this.#frame = false;
      if (this.#changes.size > 0) {
        const apps = new Map(this.apps);
        for (const [name, app] of this.#changes) {
          if (app) apps.set(name, app);
          else apps.delete(name);
        }
        this.#changes.clear();
        this.apps = apps;
      }
      if (this.#newEvents.length > 0) {
        const last = this.#lastId ?? 0;
        const fresh = this.#newEvents.filter((event) => event.id > last);
        this.#newEvents = [];
        if (fresh.length > 0) {
          this.#lastId = fresh[fresh.length - 1]!.id;
          this.events = [...this.events, ...fresh].slice(-MAX_EVENTS);
        }
      }
    });
  }
}

export const live = new Live();
