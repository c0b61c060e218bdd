// The live log of an app: the last lines, then each as it comes, on the tab's one stream (live). Reading
// and filtering them is cut into pieces that fit into frames, so that 100,000 lines do not stop the
// page. A connection that was lost is resumed at its cursor.
import type { LogLine } from "../api/client";
import { parseTime } from "./format";
import { foldProgress, levelOf, matcher, withoutColours, type Filter, type Level } from "./logs";
import { live } from "./live.svelte";
import type { SseEvent } from "./sse";

export const MAX_LINES = 100_000;
const DROP_CHUNK = 10_000;
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

  #incoming: LogLine[] = []; // as they came
  #read = 0; // how many of them are lines already
  #lines: ShownLine[] = [];
  #kept: ShownLine[] = []; // those that the filter keeps, of the first #tested
  #tested = 0;
  #test: (line: ShownLine) => boolean = () => true;
  #paused = false;
  #frame = 0;
  #next = 0;
  #cursor: string | undefined;
  #unfollow: () => void;
  #closed = false;

  constructor(
    app: string,
    query: { service?: string; instance?: string; tail: number },
  ) {
    const { tail, ...which } = query;
    this.#unfollow = live.follow({
      types: ["lines"],
      query: () => ({ app, ...which, ...(this.#cursor === undefined ? { tail } : { cursor: this.#cursor }) }),
      connected: (connected) => (this.connected = connected),
      event: (event) => this.#take(event),
    });
  }

  close() {
    this.#closed = true;
    cancelAnimationFrame(this.#frame);
    this.#unfollow();
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

  async #take(event: SseEvent) {
    const { lines, cursor } = JSON.parse(event.data) as { lines: LogLine[]; cursor: string };
    this.#cursor = cursor;
    for (const line of lines) this.#incoming.push(line);
    this.#schedule();
    // Frames come between pieces, and the sender waits for who is behind.
    do {
      await new Promise((resolve) => setTimeout(resolve, 0));
    } while (this.#incoming.length - this.#read > (this.#paused ? MAX_LINES : MAX_UNREAD) && !this.#closed);
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
  #parse(line: LogLine): ShownLine {
    const text = withoutColours(foldProgress(line.text));
    return {
      n: this.#next++, ms: parseTime(line.time), service: line.service, instance: line.instance,
      stderr: line.stderr, level: levelOf(text), text,
    };
  }
}
