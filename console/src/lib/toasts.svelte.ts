// Short messages about what an action did.
import type { Tone } from "./states";

export interface Toast {
  id: number;
  tone: Tone;
  text: string;
}

class Toasts {
  list = $state<Toast[]>([]);
  #next = 1;
  say(tone: Tone, text: string) {
    const id = this.#next++;
    this.list.push({ id, tone, text });
    setTimeout(() => this.drop(id), tone === "bad" ? 12_000 : 5000);
  }
  drop(id: number) {
    this.list = this.list.filter((toast) => toast.id !== id);
  }
}
export const toasts = new Toasts();
