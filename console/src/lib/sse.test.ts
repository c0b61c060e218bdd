import { expect, test } from "vitest";
import { SseSplitter } from "./sse";

const STREAM = ': hello\n\nevent: line\nid: 7\ndata: {"a":1}\n\ndata: x\ndata: y\n\nevent: none\n\n:\n\nevent: line\nid: 8\ndata: 训练\n\n';
const EVENTS = [
  { type: "line", id: "7", data: '{"a":1}' }, { type: "message", id: "", data: "x\ny" }, { type: "line", id: "8", data: "训练" },
];

test("events come whole, however the text is cut", () => {
  for (let cut = 0; cut <= STREAM.length; cut++) {
    const splitter = new SseSplitter();
    expect([...splitter.push(STREAM.slice(0, cut)), ...splitter.push(STREAM.slice(cut))]).toEqual(EVENTS);
  }
  const splitter = new SseSplitter();
  expect([...STREAM].flatMap((c) => splitter.push(c))).toEqual(EVENTS);
});

test("what has not ended is not told", () => {
  expect(new SseSplitter().push("data: half\n")).toEqual([]);
});
