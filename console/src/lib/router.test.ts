import { expect, test } from "vitest";
import { urlOf } from "../api/client";
import { href, parseHash } from "./router.svelte";

test.each([
  ["", [], ""], ["#/", [], ""], ["#/apps/mnist/logs?q=a%20b", ["apps", "mnist", "logs"], "a b"],
  ["#/apps/a%2Fb", ["apps", "a/b"], ""], ["#/apps/%", ["apps", "%"], ""],
])("%s", (hash, segments, q) => {
  const route = parseHash(hash);
  expect(route.segments).toEqual(segments);
  expect(route.query.get("q") ?? "").toBe(q);
});

test("an address leads back to what it was made from", () => {
  const segments = ["apps", "训练 <b>/..", "logs"];
  const route = parseHash(href(segments, { q: "a&b=c#d", empty: undefined }));
  expect(route.segments).toEqual(segments);
  expect(Object.fromEntries(route.query)).toEqual({ q: "a&b=c#d" });
});

test("a name cannot leave its place in the API's path", () => {
  expect(urlOf("/apps/{name}/logs", { name: "../x?y" }, { tail: 5, service: "" })).toBe("api/v1/apps/..%2Fx%3Fy/logs?tail=5");
});
