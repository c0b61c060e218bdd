// Searches that the user kept, in this browser.
const KEY = "takt.searches";
const MAX_SAVED = 50;

function read(): string[] {
  try {
    const found: unknown = JSON.parse(localStorage.getItem(KEY) ?? "[]");
    return Array.isArray(found) ? found.filter((q): q is string => typeof q === "string").slice(0, MAX_SAVED) : [];
  } catch {
    return [];
  }
}

class Searches {
  list = $state.raw<readonly string[]>(read());
  toggle(query: string) {
    this.list = this.list.includes(query) ? this.list.filter((q) => q !== query) : [query, ...this.list].slice(0, MAX_SAVED);
    try {
      localStorage.setItem(KEY, JSON.stringify(this.list));
    } catch {
      // storage may be forbidden; then they last for the page only
    }
  }
}
export const searches = new Searches();
