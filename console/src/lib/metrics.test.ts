import { expect, test } from "vitest";
import { en } from "../i18n/en";
import { GPU_CHARTS, MAX_SERIES, NODE_CHARTS, appCharts, choose, seriesOfAnswer, servingCharts } from "./metrics";
import type { Series } from "./plot";

test("an answer becomes series with times; what is unknown stays unknown", () => {
  const ask = { query: { name: "x" }, name: (l: Record<string, string>) => `v${l.version}`, scale: 10 };
  expect(seriesOfAnswer(ask, { from: "1970-01-01T00:00:01Z", step_ms: 5, series: [{ labels: { version: "2" }, values: [1, null, 3] }] }, (word) => word)).toEqual([
    { name: "v2", dashed: undefined, kin: undefined, points: [[1000, 10], [1005, null], [1010, 30]] },
  ]);
});

test("of too many series the highest are drawn, and it is said how many are not", () => {
  const series: Series[] = Array.from({ length: 20 }, (_, i) => ({ name: `s${i}`, points: [[0, i]] }));
  const { shown, left } = choose([...series, { name: "empty", points: [[0, null]] }]);
  expect(shown.map((s) => s.name)).toEqual(Array.from({ length: MAX_SERIES }, (_, i) => `s${i + 8}`));
  expect(left).toBe(8);
});

test("series of one kin share a colour", () => {
  const { shown } = choose(["a p50", "a p99", "b p50"].map((name): Series => ({ name, kin: name.slice(0, 1), points: [[0, 1]] })));
  expect(shown.map((s) => s.colour)).toEqual(["--chart-1", "--chart-1", "--chart-2"]);
});

test("every chart has a title, and asks of one app only about that app", () => {
  for (const chart of [...NODE_CHARTS, ...GPU_CHARTS, ...appCharts("a"), ...servingCharts()]) expect(en, chart.id).toHaveProperty([`chart.${chart.id}`]);
  for (const ask of [...appCharts("a"), ...servingCharts("a")].flatMap((chart) => chart.asks)) expect(ask.query.match).toMatch(/(^|,)app=a(,|$)/);
});
