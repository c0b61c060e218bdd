// The live log of an app: the last lines, then each as it comes. Lines gather between frames. A
// hidden tab lets its connection go and resumes at its cursor.
import { api, type LogLine } from "../api/client";
import { parseTime } from "./format";
import { foldProgress, levelOf, matcher, withoutColours, type Filter, type Level } from "./logs";

export const MAX_LINES = 100_000;
const DROP_CHUNK = 10_000;
const HIDDEN_GRACE_MS = 20_000;

export interface ShownLine {
  n: number; // rising, a key
  ms: number | null;
  service: string;
  instance: string;
  stderr: boolean;
  level: Level;
  text: string;
}

export class LogStream {
  shown = $state.raw<readonly ShownLine[]>([]); // what the filter keeps
  total = $state(0);
  dropped = $state(0); // oldest ones, beyond MAX_LINES
  waiting = $state(0); // come while paused
  connected = $state(false);
  filterError = $state("");

  #lines: ShownLine[] = [];
  #incoming: ShownLine[] = [];
  #test: (line: ShownLine) => boolean = () => true;
  #paused = false;
  #frame = false;
  #next = 0;
  #cursor: string | undefined;
  #source: EventSource | null = null;
  #retry: ReturnType<typeof setTimeout> | undefined;
  #hidden: ReturnType<typeof setTimeout> | undefined;
  #closed = false;

  constructor(
    private readonly app: string,
    private readonly query: { service?: string; instance?: string; tail: number },
  ) {
    document.addEventListener("visibilitychange", this.#visibility);
    this.#connect();
  }

  close() {
    this.#closed = true;
    document.removeEventListener("visibilitychange", this.#visibility);
    this.#disconnect();
  }
  setFilter(filter: Filter) {
    const { test, error } = matcher(filter);
    this.#test = test;
    this.filterError = error;
    this.shown = this.#lines.filter(test);
  }
  setPaused(paused: boolean) {
    this.#paused = paused;
    if (!paused) this.#take();
  }
  clear() {
    this.#lines = [];
    this.shown = [];
    this.total = 0;
  }

  #visibility = () => {
    clearTimeout(this.#hidden);
    if (document.hidden) this.#hidden = setTimeout(() => this.#disconnect(), HIDDEN_GRACE_MS);
    else if (!this.#source) this.#connect();
  };
  #disconnect() {
    clearTimeout(this.#retry);
    this.#source?.close();
    this.#source = null;
    this.connected = false;
  }
  #connect() {
    this.#disconnect();
    if (this.#closed) return;
    const { tail, ...which } = this.query;
    const source = new EventSource(
      api.logStreamUrl(this.app, this.#cursor ? { ...which, cursor: this.#cursor } : { ...which, tail }),
    );
    this.#source = source;
    source.onopen = () => (this.connected = true);
    source.addEventListener("line", (e) => {
      if (e.lastEventId) this.#cursor = e.lastEventId;
      const line = JSON.parse(e.data as string) as LogLine;
      const text = withoutColours(foldProgress(line.text));
      this.#incoming.push({
        n: this.#next++, ms: parseTime(line.time), service: line.service, instance: line.instance,
        stderr: line.stderr, level: levelOf(text), text,
      });
      if (!this.#frame) {
        this.#frame = true;
        requestAnimationFrame(() => {
          this.#frame = false;
          if (this.#paused) this.waiting = this.#incoming.length;
          else this.#take();
        });
      }
    });
    source.onerror = () => {
      if (source !== this.#source) return;
      this.#disconnect();
      this.#retry = setTimeout(() => this.#connect(), 2000);
    };
  }
  #take() {
    this.waiting = 0;
    if (this.#incoming.length === 0) return;
    const fresh = this.#incoming;
    this.#incoming = [];
    for (const line of fresh) this.#lines.push(line);
    let cut = false;
    if (this.#lines.length > MAX_LINES) {
      const surplus = Math.max(this.#lines.length - MAX_LINES, DROP_CHUNK);
      this.dropped += surplus;
      this.#lines = this.#lines.slice(surplus);
      cut = true;
    }
    this.total = this.#lines.length;
    this.shown = cut ? this.#lines.filter(this.#test) : [...this.shown, ...fresh.filter(this.#test)];
  }
}
