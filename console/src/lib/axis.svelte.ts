// A time axis that several views share: hover or drag on one of them moves all. Times in milliseconds.
export class SharedAxis {
  from = $state(0);
  to = $state(0);
  cursor = $state<number | null>(null); // where the pointer is, on any of them
  zoomed = $state(false); // the user chose the span; it does not follow the clock

  constructor(spanMs: number, nowMs = Date.now()) {
    this.from = nowMs - spanMs;
    this.to = nowMs;
  }
  get spanMs() {
    return this.to - this.from;
  }
  // Moves on with the clock, as long as nobody zoomed.
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
    this.from = nowMs - spanMs;
    this.to = nowMs;
  }
  zoomOut() {
    const middle = (this.from + this.to) / 2;
    this.zoom(middle - this.spanMs, middle + this.spanMs);
  }
}
