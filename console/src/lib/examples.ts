// The example templates of the repository, offered where there is nothing yet. Loaded when needed.
const files = import.meta.glob("../../../examples/mnist/*.{yml,yaml}", { query: "?raw", import: "default" });

export interface Example {
  id: string; // file name without its ending
  load: () => Promise<string>;
}

export const examples: readonly Example[] = Object.entries(files)
  .map(([path, load]) => ({
    id: path.replace(/^.*\//, "").replace(/\.ya?ml$/, ""),
    load: load as () => Promise<string>,
  }))
  .sort((a, b) => order(a.id) - order(b.id) || a.id.localeCompare(b.id));

function order(id: string): number {
  const at = ["train", "serv", "client"].findIndex((stem) => id.includes(stem));
  return at < 0 ? 9 : at;
}
