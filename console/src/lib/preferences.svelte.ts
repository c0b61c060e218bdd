// Language and theme: remembered in the browser, else what the browser says.
import type { Language } from "./format";

export type Theme = "auto" | "light" | "dark";

function read(key: string): string | null {
  try {
    return localStorage.getItem(key);
  } catch {
    return null; // storage may be forbidden; then the choice lasts for the page only
  }
}

function write(key: string, value: string) {
  try {
    localStorage.setItem(key, value);
  } catch {
    // as above
  }
}

export function languageOf(remembered: string | null, browser: readonly string[]): Language {
  if (remembered === "en" || remembered === "zh") return remembered;
  for (const tag of browser) {
    if (/^zh\b/i.test(tag)) return "zh";
    if (/^en\b/i.test(tag)) return "en";
  }
  return "en";
}

class Preferences {
  language = $state<Language>("en");
  theme = $state<Theme>("auto");
  dark = $state(false);

  start() {
    this.language = languageOf(read("takt.language"), navigator.languages);
    const theme = read("takt.theme");
    this.theme = theme === "light" || theme === "dark" ? theme : "auto";
    const query = matchMedia("(prefers-color-scheme: dark)");
    query.addEventListener("change", () => this.#show(query.matches));
    this.#show(query.matches);
  }
  setLanguage(language: Language) {
    this.language = language;
    write("takt.language", language);
    document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  }
  setTheme(theme: Theme) {
    this.theme = theme;
    write("takt.theme", theme);
    this.#show(matchMedia("(prefers-color-scheme: dark)").matches);
  }
  #show(systemDark: boolean) {
    this.dark = this.theme === "dark" || (this.theme === "auto" && systemDark);
    document.documentElement.dataset.theme = this.dark ? "dark" : "light";
    document.documentElement.lang = this.language === "zh" ? "zh-CN" : "en";
  }
}

export const preferences = new Preferences();
