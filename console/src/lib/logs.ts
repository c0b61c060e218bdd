// Log lines for people: their level, what a filter keeps, progress bars folded. Pure.
export type Level = "error" | "warn" | "info" | "debug" | "";
export const LEVELS: readonly Exclude<Level, "">[] = ["error", "warn", "info", "debug"];

const WORDS = new Map<string, Level>(Object.entries({
  fatal: "error", critical: "error", crit: "error", panic: "error", error: "error", err: "error", severe: "error",
  warning: "warn", warn: "warn",
  info: "info", notice: "info", information: "info",
  debug: "debug", trace: "debug", verbose: "debug",
}));
const LETTERS: Record<string, Level> = { F: "error", E: "error", W: "warn", I: "info", D: "debug" };

// {"level":"warn"}, level=warn, severity: "ERROR"
const FIELD = /\b(?:level|lvl|severity|levelname)"?\s*[=:]\s*"?([A-Za-z]+)/i;
// glog "E0712 10:11:12.1", TensorFlow "2026-11-24 20:13:05.1: W tensorflow/core"
const LETTER = /^([FEWID])\d{4}\s|^\d{4}-\d\d-\d\d[ T][\d:.,]+Z?:? ([FEWID]) /;
// "[ERROR]", "ERROR:", "2026-11-24 ... WARNING ..."; capitals only, so that prose is not a level.
const WORD = /(?:^|[\s[(<|])(FATAL|CRITICAL|PANIC|ERROR|WARNING|WARN|INFO|NOTICE|DEBUG|TRACE)(?=$|[\s\]):>|,])/;
const PYTHON = /^(?:\w+\.)*\w*(?:Error|Exception)(?::|$)|^Traceback \(most recent call last\)/;
const HEAD = 400; // a level stands at the beginning of a line

export function levelOf(text: string): Level {
  const head = text.length > HEAD ? text.slice(0, HEAD) : text;
  const field = FIELD.exec(head);
  if (field) {
    const level = WORDS.get(field[1]!.toLowerCase());
    if (level) return level;
  }
  const letter = LETTER.exec(head);
  if (letter) return LETTERS[(letter[1] ?? letter[2])!] ?? "";
  const word = WORD.exec(head);
  if (word) return WORDS.get(word[1]!.toLowerCase()) ?? "";
  return PYTHON.test(head) ? "error" : "";
}

// A list that has columns for time and level does not say them again: what a line begins with of them.
const HEADS = /^(?:\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d[\d.,]*(?:Z|[+-]\d\d:?\d\d)?:?\s+(?:\[?(?:FATAL|ERROR|WARN(?:ING)?|INFO|DEBUG|TRACE)\]?:?\s+)?|[FEWI]\d{4} [\d:.]+\s+\d+ )/;
export const withoutHead = (text: string) => {
  const rest = text.replace(HEADS, "");
  return rest.trim() ? rest : text;
};

// A progress bar writes over itself with carriage returns: what a terminal would show at the end.
export function foldProgress(text: string): string {
  if (!text.includes("\r")) return text;
  const parts = text.split("\r");
  for (let i = parts.length - 1; i >= 0; i--) if (parts[i]) return parts[i]!;
  return "";
}

export function withoutColours(text: string): string {
  // eslint-disable-next-line no-control-regex
  return text.includes("\x1b") ? text.replace(/\x1b\[[0-9;?]*[ -/]*[@-~]/g, "") : text;
}

export interface Filter {
  text: string;
  level: Level; // this level and above; "" = all
}
export interface Filterable {
  text: string;
  level: Level;
}

const RANK: Record<Level, number> = { error: 3, warn: 2, info: 1, debug: 0, "": 1 };

// "/loss: \d+/i" is a regular expression, anything else a substring without regard to case. A broken
// expression is said in `error` and keeps everything.
export function matcher(filter: Filter): { test: (line: Filterable) => boolean; error: string } {
  const least = filter.level === "" ? -1 : RANK[filter.level];
  const expression = /^\/(.+)\/([i]?)$/.exec(filter.text);
  if (expression) {
    try {
      const regex = new RegExp(expression[1]!, expression[2]);
      return { test: (l) => RANK[l.level] >= least && regex.test(l.text), error: "" };
    } catch (e) {
      return { test: () => true, error: e instanceof Error ? e.message : String(e) };
    }
  }
  const wanted = filter.text.toLowerCase();
  return {
    test: (l) => RANK[l.level] >= least && (!wanted || l.text.toLowerCase().includes(wanted)),
    error: "",
  };
}
