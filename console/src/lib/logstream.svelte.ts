// The live log of an app: the last lines, then each as it comes. Reading and filtering them is cut
// into pieces that fit into frames, so that 100,000 lines do not stop the page. A hidden tab lets its
// connection go and resumes at its cursor.
import { api, type LogLine } from "../api/client";
import { parseTime } from "./format";
import { foldProgress, levelOf, matcher, withoutColours, type Filter, type Level } from "./logs";
import { readSse } from "./sse";

export const MAX_LINES = 100_000;
const DROP_CHUNK = 10_000;
const HIDDEN_GRACE_MS = 20_000;
const RETRY_MS = 2000;
const MAX_UNREAD = 20_000; // beyond, the sender waits
const FRAME_BUDGET_MS = 6; // of work on lines; what is left waits for the next frame

export interface ShownLine {
  n: number; // rising, a key
  ms: number | null;
  service: string;
  instance: string;
  stderr: boolean;
  level: Level;
  text: string;
}

// A list that grows in place: each time it is shown, its length is told anew.
export interface Rows<T> {
  readonly length: number;
  slice(from: number, to?: number): readonly T[];
}

export class LogStream {
  shown = $state.raw<Rows<ShownLine>>([]); // what the filter keeps
  total = $state(0);
  dropped = $state(0); // oldest ones, beyond MAX_LINES
  waiting = $state(0); // come while paused
  connected = $state(false);
  filterError = $state("");

  #incoming: string[] = []; // as they came
  #read = 0; // how many of them are lines already
  #lines: ShownLine[] = [];
  #kept: ShownLine[] = []; // those that the filter keeps, of the first #tested
  #tested = 0;
  #test: (line: ShownLine) => boolean = () => true;
  #paused = false;
  #frame = 0;
  #next = 0;
  #cursor: string | undefined;
  #connection: AbortController | null = null;
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
    cancelAnimationFrame(this.#frame);
    document.removeEventListener("visibilitychange", this.#visibility);
    this.#disconnect();
  }
  setFilter(filter: Filter) {
    const { test, error } = matcher(filter);
    this.#test = test;
    this.filterError = error;
    this.#kept = [];
    this.#tested = 0;
    this.#schedule();
  }
  setPaused(paused: boolean) {
    this.#paused = paused;
    this.#schedule();
  }

  #visibility = () => {
    clearTimeout(this.#hidden);
    if (document.hidden) this.#hidden = setTimeout(() => this.#disconnect(), HIDDEN_GRACE_MS);
    else if (!this.#connection) this.#connect();
  };
  #disconnect() {
    clearTimeout(this.#retry);
    this.#connection?.abort();
    this.#connection = null;
    this.connected = false;
  }
  #connect() {
    this.#disconnect();
    if (this.#closed) return;
    const { tail, ...which } = this.query;
    const abort = new AbortController();
    this.#connection = abort;
    const url = api.logStreamUrl(this.app, this.#cursor ? { ...which, cursor: this.#cursor } : { ...which, tail });
    const again = () => {
      if (abort.signal.aborted) return;
      this.#disconnect();
      this.#retry = setTimeout(() => this.#connect(), RETRY_MS);
    };
    readSse(url, abort.signal, () => (this.connected = true), async (events) => {
      for (const event of events) {
        if (event.id) this.#cursor = event.id;
        if (event.type === "line") this.#incoming.push(event.data);
      }
      this.#schedule();
      while (this.#incoming.length - this.#read > (this.#paused ? MAX_LINES : MAX_UNREAD) && !abort.signal.aborted) {
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    }).then(again, again);
  }

  #schedule() {
    if (this.#frame !== 0 || this.#closed) return;
    this.#frame = requestAnimationFrame(() => {
      this.#frame = 0;
      this.#work();
    });
  }
  #work() {
    const end = performance.now() + FRAME_BUDGET_MS;
    const inTime = (i: number) => i % 64 !== 0 || performance.now() < end;
    if (!this.#paused) {
      for (let i = 0; this.#read < this.#incoming.length && inTime(i); i++) {
        this.#lines.push(this.#parse(this.#incoming[this.#read++]!));
      }
      if (this.#read === this.#incoming.length) {
        this.#incoming = [];
        this.#read = 0;
      }
      if (this.#lines.length > MAX_LINES) this.#drop(Math.max(this.#lines.length - MAX_LINES, DROP_CHUNK));
    }
    for (let i = 0; this.#tested < this.#lines.length && inTime(i); i++) {
      const line = this.#lines[this.#tested++]!;
      if (this.#test(line)) this.#kept.push(line);
    }
    this.waiting = this.#paused ? this.#incoming.length - this.#read : 0;
    this.total = this.#lines.length;
    const kept = this.#kept;
    this.shown = { length: kept.length, slice: (from, to) => kept.slice(from, to) };
    if (this.#tested < this.#lines.length || (!this.#paused && this.#incoming.length > 0)) this.#schedule();
  }
  #drop(count: number) {
    this.dropped += count;
    const first = this.#lines[count]?.n ?? this.#next;
    this.#lines = this.#lines.slice(count);
    this.#tested = Math.max(0, this.#tested - count);
    const from = this.#kept.findIndex((line) => line.n >= first);
    this.#kept = from < 0 ? [] : this.#kept.slice(from);
  }
  #parse(data: string): ShownLine {
    const line = JSON.parse(data) as LogLine;
    const text = withoutColours(foldProgress(line.text));
    return {
      n: this.#next++, ms: parseTime(line.time), service: line.service, instance: line.instance,
      stderr: line.stderr, level: levelOf(text), text,
    };
  }
}
