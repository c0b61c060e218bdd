// What the daemon says, kept current: one read of all apps, then one server-sent event stream per
// tab. Changes are gathered and shown once a frame, so that a thousand apps that change at once are
// one update. What a page wants besides, an app's log or what a search finds, comes on the same
// stream: it is connected anew with the page's topic, the new connection before the old one goes, so
// that no change is missed between. A hidden tab lets its connection go (a browser has six per host)
// and catches up later.
import { api, toApiError, type App, type ApiError, type StreamQuery, type TaktEvent } from "../api/client";
import { readSse, SseRefused, type SseEvent } from "./sse";

export const MAX_EVENTS = 1000;
const HIDDEN_GRACE_MS = 30_000;
const MAX_RETRY_MS = 15_000;

type Connection = "connecting" | "live" | "lost";

export interface Topic {
  types: readonly string[]; // of the events that are its
  query: () => StreamQuery; // asked at each connection
  event: (event: SseEvent) => Promise<void> | void; // waited for: who is behind slows the sender
  connected?: (connected: boolean) => void;
  refused?: (status: number) => void; // the daemon will not have it; it is not asked again
}

class Live {
  apps = $state.raw<ReadonlyMap<string, App>>(new Map());
  events = $state.raw<readonly TaktEvent[]>([]); // oldest first
  loaded = $state(false);
  connection = $state<Connection>("connecting");
  error = $state.raw<ApiError | null>(null);
  volumesChanged = $state(0); // counts up
  searchesChanged = $state(0); // likewise

  #stream: AbortController | null = null; // of the connection that counts
  #earlier: AbortController[] = []; // those that go once it has begun
  #topics = new Set<Topic>();
  #changed = false; // topics were, and the connection is to be made anew
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
      else if (!this.#stream) this.#connect();
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

  // Until the result is called.
  follow(topic: Topic): () => void {
    this.#topics.add(topic);
    this.#topicsChanged();
    return () => {
      if (!this.#topics.delete(topic)) return;
      this.#topicsChanged();
    };
  }
  // A page that goes and one that comes are one change.
  #topicsChanged() {
    if (this.#changed) return;
    this.#changed = true;
    queueMicrotask(() => {
      this.#changed = false;
      if (this.#stream) this.#connect();
    });
  }

  #close() {
    clearTimeout(this.#retryTimer);
    this.#endEarlier();
    this.#stream?.abort();
    this.#stream = null;
    for (const topic of this.#topics) topic.connected?.(false);
  }

  #endEarlier() {
    for (const each of this.#earlier) each.abort();
    this.#earlier = [];
  }

  #connect() {
    clearTimeout(this.#retryTimer);
    const seamless = this.#stream !== null && this.connection === "live";
    if (this.#stream) this.#earlier.push(this.#stream);
    const abort = new AbortController();
    this.#stream = abort;
    if (!seamless) {
      this.#endEarlier();
      if (this.connection !== "lost") this.connection = "connecting";
    }
    const topics = [...this.#topics];
    const query = Object.assign({ after: this.#lastId }, ...topics.map((topic) => topic.query())) as StreamQuery;
    const ended = (e?: unknown) => {
      if (abort !== this.#stream) return; // an earlier one, which may end
      this.#close();
      if (e instanceof SseRefused && e.status >= 400 && e.status < 500 && topics.length > 0) {
        for (const topic of topics) {
          if (this.#topics.delete(topic)) topic.refused?.(e.status);
        }
        this.#connect();
      } else {
        this.#lost();
      }
    };
    readSse(api.streamUrl(query), abort.signal, () => {}, async (events) => {
      for (const event of events) {
        if (abort.signal.aborted) return;
        if (event.type === "hello") {
          if (abort === this.#stream) this.#endEarlier();
          for (const topic of topics) topic.connected?.(true);
          if (!seamless) void this.#read();
        } else {
          await this.#take(event, abort === this.#stream ? topics : []);
        }
      }
    }).then(ended, (e: unknown) => {
      if (!abort.signal.aborted) ended(e);
    });
  }
  async #take(event: SseEvent, topics: readonly Topic[]) {
    if (event.type === "app") this.put(JSON.parse(event.data) as App);
    else if (event.type === "app_removed") this.drop((JSON.parse(event.data) as { name: string }).name);
    else if (event.type === "volumes") this.volumesChanged++;
    else if (event.type === "searches") this.searchesChanged++;
    else if (event.type === "event") {
      this.#newEvents.push(JSON.parse(event.data) as TaktEvent);
      this.#schedule();
    } else {
      for (const topic of topics) {
        if (topic.types.includes(event.type) && this.#topics.has(topic)) await topic.event(event);
      }
    }
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
