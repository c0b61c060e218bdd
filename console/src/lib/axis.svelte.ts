// An axis that several charts share: hover or drag on one of them moves all.
import { untrack } from "svelte";
import { router } from "./router.svelte";

export interface Axis {
  readonly range: [number, number] | null; // null = all of the data
  cursor: number | null; // where the pointer is, on any of them
  zoom(from: number, to: number): void;
  zoomOut(): void;
}

// Of steps, or of anything else whose whole is the data's.
export class DataAxis implements Axis {
  range = $state.raw<[number, number] | null>(null);
  cursor = $state<number | null>(null);
  zoom(from: number, to: number) {
    this.range = from < to ? [from, to] : [to, from];
  }
  zoomOut() {
    this.range = null;
  }
}

// Of time, in milliseconds; it follows the clock until somebody zooms.
export class SharedAxis implements Axis {
  from = $state(0);
  to = $state(0);
  cursor = $state<number | null>(null);
  zoomed = $state(false);
  chosen = $state(0); // the span that follows the clock

  constructor(spanMs: number, nowMs = Date.now()) {
    this.chosen = Math.round(spanMs);
    this.from = nowMs - spanMs;
    this.to = nowMs;
  }
  get range(): [number, number] {
    return [this.from, this.to];
  }
  get spanMs() {
    return this.to - this.from;
  }
  follow(nowMs: number) {
    if (this.zoomed) return;
    const span = this.spanMs;
    this.from = nowMs - span;
    this.to = nowMs;
  }
  zoom(from: number, to: number) {
    const MIN_SPAN_MS = 1000;
    if (to < from) [from, to] = [to, from];
    if (to - from < MIN_SPAN_MS) return;
    this.from = from;
    this.to = to;
    this.zoomed = true;
  }
  show(spanMs: number, nowMs = Date.now()) {
    this.zoomed = false;
    this.chosen = Math.round(spanMs);
    this.from = nowMs - spanMs;
    this.to = nowMs;
  }
  zoomOut() {
    const middle = (this.from + this.to) / 2;
    this.zoom(middle - this.spanMs, middle + this.spanMs);
  }
}

// The axis of a page, kept in its address: "?span=3600000", or "?from=…&to=…" when zoomed. Make it while
// a component is initialised.
// `past`: what is shown at first instead of a span that follows the clock.
export function pageAxis(defaultSpanMs: number, past?: readonly [number, number]): SharedAxis {
  const query = untrack(() => router.route.query);
  const number = (name: string) => Number(query.get(name)) || 0;
  const axis = new SharedAxis(number("span") || defaultSpanMs);
  if (number("from") && number("to")) axis.zoom(number("from"), number("to"));
  else if (past && !number("span")) axis.zoom(...past);
  $effect(() => {
    const zoomed = axis.zoomed && !(past && axis.from === past[0] && axis.to === past[1]);
    const span = zoomed ? 0 : axis.chosen;
    const [from, to] = zoomed ? [axis.from, axis.to] : [0, 0];
    // After this round of effects: changed within it, the address would make the page anew.
    let gone = false;
    queueMicrotask(() => {
      if (gone) return;
      router.setQuery({
        from: from ? String(Math.round(from)) : undefined,
        to: to ? String(Math.round(to)) : undefined,
        span: span && (past ? !axis.zoomed : span !== Math.round(defaultSpanMs)) ? String(span) : undefined,
      });
    });
    return () => (gone = true);
  });
  return axis;
}
