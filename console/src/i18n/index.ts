import { eventKind, phrase } from "../lib/phrases";
import { preferences } from "../lib/preferences.svelte";
import { en } from "./en";
import { zh } from "./zh";

export type Key = keyof typeof en;
type Arguments = Record<string, string | number>;

// "{n} {n|instance|instances}": a placeholder, and a choice by number (the first form for one).
export function fill(text: string, values: Arguments): string {
  return text.replace(/\{(\w+)(?:\|([^|}]*)\|([^|}]*))?\}/g, (whole, name: string, one?: string, many?: string) => {
    const value = values[name];
    if (value === undefined) return whole;
    if (one !== undefined && many !== undefined) return Number(value) === 1 ? one : many;
    return String(value);
  });
}

// The text of `key` in the language chosen; reading it in a component follows the language.
export function t(key: Key, values: Arguments = {}): string {
  return fill((preferences.language === "zh" ? zh : en)[key], values);
}

// A sentence of the daemon, in the language chosen as far as it is known.
export const said = (text: string): string => phrase(text, preferences.language);
export const kindOf = (kind: string): string => eventKind(kind, preferences.language);
