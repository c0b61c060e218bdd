// uPlot, loaded only where a chart is shown. A chart is told its data; the pointer, the chosen span and
// what is marked come and go through callbacks, so that several charts can move together.
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { absolute, clock, type Language } from "./format";
import { withUnit, type Unit } from "./units";

export interface Series {
  name: string;
  points: readonly (readonly [x: number, y: number | null])[]; // by rising x; ms or step
  colour?: string; // a CSS variable's name
  kin?: string; // series of one kin share a colour
  dashed?: boolean;
  faint?: boolean; // drawn behind: the unsmoothed curve
}
export interface Marker {
  x: number;
  label: string;
  tone: "good" | "busy" | "warn" | "bad" | "idle";
  sign?: string; // a word or two, written at its line
}
export interface PlotOptions {
  host: HTMLElement;
  series: readonly Series[];
  markers: readonly Marker[];
  unit: Unit;
  xUnit: "time" | "step" | "seconds";
  logY: boolean;
  logX: boolean;
  stacked: boolean;
  language: Language;
  range: [number, number] | null; // of x; null = all of the data
  onCursor: (x: number | null) => void;
  onZoom: (from: number, to: number) => void;
  onReset: () => void;
}
export interface Plot {
  setCursor(x: number | null): void;
  setSize(width: number, height: number): void;
  setRange(range: [number, number] | null): void;
  // The same series with other points.
  setData(series: readonly Series[], markers: readonly Marker[]): void;
  destroy(): void;
}

const POWERS_OF_TWO = Array.from({ length: 52 }, (_, i) => 2 ** i); // so that ticks stand at whole KiB, MiB

export const COLOURS = ["--chart-1", "--chart-2", "--chart-3", "--chart-4", "--chart-5", "--chart-6", "--chart-7", "--chart-8"];

export function createPlot(o: PlotOptions): Plot {
  const css = getComputedStyle(document.documentElement);
  const colour = (name: string) => css.getPropertyValue(name).trim();
  const font = `11px ${colour("--font")}`;

  const tablesOf = (all: readonly Series[]) => all.map((s): uPlot.AlignedData => {
    const xs = new Float64Array(s.points.length);
    const ys: (number | null)[] = new Array(s.points.length);
    for (const [i, [x, y]] of s.points.entries()) {
      xs[i] = x;
      // What cannot be drawn is a gap; it is never drawn as zero.
      ys[i] = y !== null && Number.isFinite(y) && !(o.logY && y <= 0) ? y : null;
    }
    return [xs, ys];
  });
  const dataOf = (all: readonly Series[]): uPlot.AlignedData => {
    const tables = tablesOf(all);
    const joined: uPlot.AlignedData =
      tables.length === 0 ? [[]] : tables.length === 1 ? tables[0]! : uPlot.join(tables);
    return o.stacked ? stack(joined) : joined;
  };
  // The highest stack is drawn first, so that it does not hide the others.
  let inside = false; // the pointer is over this very chart
  let data = dataOf(o.series);
  let markers = o.markers;
  const drawn = o.series.map((s, i) => ({ ...s, colour: s.colour ?? COLOURS[i % COLOURS.length]! }));
  if (o.stacked) drawn.reverse();

  let range = o.range;
  const axis = {
    font, stroke: colour("--text-faint"),
    grid: { stroke: colour("--line"), width: 1 },
    ticks: { stroke: colour("--line"), width: 1, size: 4 },
  };

  const plot = new uPlot(
    {
      width: Math.max(o.host.clientWidth, 100),
      height: Math.max(o.host.clientHeight, 80),
      legend: { show: false },
      ms: 1,
      cursor: { drag: { x: true, y: false, setScale: false, dist: 6 }, points: { size: 6 }, focus: { prox: 1e6 } },
      focus: { alpha: 1 },
      scales: {
        x: { time: o.xUnit === "time", distr: o.logX ? 3 : 1, range: (_, min, max) => range ?? spread(min, max) },
        y: o.logY
          ? { distr: 3 }
          : { range: (_, min, max) => (min == null || max == null ? [0, 1] : yRange(min, max, o.unit, o.stacked)) },
      },
      series: [
        {},
        ...drawn.map((s): uPlot.Series => {
          const stroke = colour(s.colour);
          return {
            label: s.name,
            stroke: s.faint ? `color-mix(in srgb, ${stroke} 28%, transparent)` : stroke,
            width: o.stacked ? 0 : s.faint ? 1 : 1.5,
            dash: s.dashed ? [5, 4] : undefined,
            fill: o.stacked ? stroke : undefined,
            paths: o.stacked ? uPlot.paths.bars!({ size: [0.9, 40], align: 1 }) : undefined,
            points: { show: false, size: 5, filter: (u, index) => alone(u.data[index] as (number | null)[]) },
            spanGaps: false, // rows that only other series have are no gaps
          };
        }),
      ],
      axes: [
        { ...axis, size: 30, space: 66, values: o.xUnit === "time" ? (u, ticks) => timeTicks(ticks, u) : (_, ticks) => ticks.map((v) => (v == null ? "" : withUnit(v, o.xUnit === "seconds" ? "seconds" : "number", o.language))) },
        { ...axis, size: 74, space: 26, incrs: o.unit.startsWith("bytes") ? POWERS_OF_TWO : undefined, values: (_, ticks) => ticks.map((v) => (v == null ? "" : withUnit(v, o.unit, o.language))) },
      ],
      hooks: {
        setCursor: [(u) => {
          if (!inside) return; // moved from outside, or by new data
          const at = u.cursor.left! >= 0 ? u.posToVal(u.cursor.left!, "x") : null;
          o.onCursor(at);
        }],
        setSelect: [(u) => {
          if (u.select.width < 6) return;
          const from = u.posToVal(u.select.left, "x");
          const to = u.posToVal(u.select.left + u.select.width, "x");
          u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
          o.onZoom(from, to);
        }],
        draw: [(u) => drawMarkers(u, markers, colour)],
      },
    },
    data,
    o.host,
  );
  plot.over.addEventListener("dblclick", () => o.onReset());
  plot.over.addEventListener("mouseenter", () => (inside = true));
  plot.over.addEventListener("mouseleave", () => {
    inside = false;
    o.onCursor(null);
  });

  return {
    setCursor(x) {
      const at = x === null ? { left: -10, top: -10 } : { left: plot.valToPos(x, "x"), top: plot.over.clientHeight / 2 };
      plot.setCursor(at, false); // it was moved from outside: nobody is told again
    },
    setSize: (width, height) => plot.setSize({ width, height }),
    setRange(next) {
      range = next;
      plot.setData(data, true);
    },
    setData(series, nextMarkers) {
      data = dataOf(series);
      markers = nextMarkers;
      plot.setData(data, true);
    },
    destroy: () => plot.destroy(),
  };
}

// A value between two gaps has no line: it is a dot.
function alone(ys: readonly (number | null | undefined)[]): number[] {
  const found: number[] = [];
  let before = -1; // the last value's index
  let run = 0; // of values without a gap (null; what is undefined only has no row of its own)
  for (let i = 0; i <= ys.length; i++) {
    const y = i < ys.length ? ys[i] : null;
    if (y === undefined) continue;
    if (y === null) {
      if (run === 1) found.push(before);
      run = 0;
    } else {
      before = i;
      run++;
    }
  }
  return found;
}

// Each series on top of those before it, the highest first.
function stack(data: uPlot.AlignedData): uPlot.AlignedData {
  const sum = new Array<number>(data[0].length).fill(0);
  const rows = data.slice(1).map((ys) => Array.from(sum, (_, i) => (sum[i]! += (ys[i] as number | null) ?? 0)));
  return [data[0], ...rows.reverse()];
}

function spread(min: number, max: number): [number, number] {
  return min === max ? [min - 1, max + 1] : [min, max];
}

// Quantities that cannot be negative stand on zero; curves fill their space.
export function yRange(min: number, max: number, unit: Unit, stacked: boolean): [number, number] {
  if (stacked || unit !== "number") return [Math.min(0, min), max <= 0 ? 1 : max * 1.08];
  const margin = (max - min || Math.abs(max) || 1) * 0.06;
  return [min - margin, max + margin];
}

function timeTicks(ticks: readonly number[], u: uPlot): string[] {
  const span = (u.scales.x!.max ?? 0) - (u.scales.x!.min ?? 0);
  const DAY = 86_400_000;
  return ticks.map((ms) => (span > 2 * DAY ? absolute(ms).slice(5, 16) : span > 600_000 ? clock(ms).slice(0, 5) : clock(ms)));
}

const TONES = { good: "--good", busy: "--busy", warn: "--warn", bad: "--bad", idle: "--idle" } as const;

function drawMarkers(u: uPlot, markers: readonly Marker[], colour: (name: string) => string) {
  const { ctx, bbox } = u;
  ctx.save();
  ctx.lineWidth = devicePixelRatio;
  ctx.font = `600 ${11 * devicePixelRatio}px system-ui, sans-serif`;
  ctx.textBaseline = "top";
  ctx.textAlign = "left";
  const GAP = 5 * devicePixelRatio;
  let written = -Infinity; // where the last sign ended
  for (const marker of [...markers].sort((a, b) => a.x - b.x)) {
    const x = Math.round(u.valToPos(marker.x, "x", true));
    if (x < bbox.left || x > bbox.left + bbox.width) continue;
    ctx.strokeStyle = ctx.fillStyle = colour(TONES[marker.tone]);
    ctx.setLineDash(marker.sign ? [] : [3 * devicePixelRatio, 3 * devicePixelRatio]);
    ctx.beginPath();
    ctx.moveTo(x + 0.5, bbox.top); // on whole pixels
    ctx.lineTo(x + 0.5, bbox.top + bbox.height);
    ctx.stroke();
    ctx.beginPath();
    ctx.arc(x, bbox.top + 3 * devicePixelRatio, 3 * devicePixelRatio, 0, 7);
    ctx.fill();
    if (!marker.sign) continue;
    const wide = ctx.measureText(marker.sign).width;
    const right = x + GAP + wide <= bbox.left + bbox.width;
    const left = right ? x + GAP : x - GAP - wide;
    if (left < written) continue; // there is no room; the list below has it
    ctx.fillText(marker.sign, left, bbox.top + GAP / 5);
    written = left + wide + GAP;
  }
  ctx.restore();
}
