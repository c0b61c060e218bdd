// Where the user is. Every view is a deep link behind the hash, so that the page works under any
// path and the server needs no rule for it: "#/apps/mnist-train/logs?q=loss".
export interface Route {
  segments: string[]; // decoded: ["apps", "mnist-train", "logs"]
  query: URLSearchParams;
}

export function parseHash(hash: string): Route {
  const text = hash.replace(/^#\/?/, "");
  const mark = text.indexOf("?");
  const path = mark < 0 ? text : text.slice(0, mark);
  return {
    segments: path
      .split("/")
      .filter(Boolean)
      .map((segment) => {
        try {
          return decodeURIComponent(segment);
        } catch {
          return segment;
        }
      }),
    query: new URLSearchParams(mark < 0 ? "" : text.slice(mark + 1)),
  };
}

export function href(segments: readonly string[], query: Record<string, string | undefined> = {}): string {
  const filled = Object.entries(query).filter((entry): entry is [string, string] => !!entry[1]);
  const search = new URLSearchParams(filled).toString();
  return `#/${segments.map(encodeURIComponent).join("/")}${search ? `?${search}` : ""}`;
}

let current = $state.raw<Route>({ segments: [], query: new URLSearchParams() });

// Asked before leaving a page with unsaved work; false keeps the user there.
let guard: (() => boolean) | null = null;
let shownHash = "";

export const router = {
  get route() {
    return current;
  },
  start() {
    shownHash = location.hash;
    current = parseHash(shownHash);
    addEventListener("hashchange", () => {
      if (location.hash === shownHash) return;
      if (guard && !guard()) {
        history.replaceState(null, "", shownHash || "#/");
        return;
      }
      guard = null;
      const samePage = parseHash(location.hash).segments.slice(0, 2).join("/") === current.segments.slice(0, 2).join("/");
      shownHash = location.hash;
      current = parseHash(shownHash);
      if (!samePage) scrollTo(0, 0);
    });
  },
  go(target: string) {
    location.hash = target;
  },
  // Changes the query in place: a filter, a selection. Not a step in the history.
  setQuery(changes: Record<string, string | undefined>) {
    const query = Object.fromEntries(current.query);
    const next = href(current.segments, { ...query, ...changes });
    if (next === shownHash) return;
    history.replaceState(null, "", next);
    shownHash = next;
    current = parseHash(next);
  },
  guard(ask: (() => boolean) | null) {
    guard = ask;
  },
};
