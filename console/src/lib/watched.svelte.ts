// What a page shows of the daemon's state: asked for again now and then while the tab is looked at.
import { toApiError, type ApiError } from "../api/client";
import { toasts } from "./toasts.svelte";

const EVERY_MS = 5000;

// Made while a component is; ends with it. After an error, `found` is what was found last.
export class Watched<T> {
  found = $state.raw<T | null>(null);
  error = $state.raw<ApiError | null>(null);

  constructor(private readonly ask: () => Promise<T>) {
    $effect(() => {
      void this.read();
      const timer = setInterval(() => { if (!document.hidden) void this.read(); }, EVERY_MS);
      return () => clearInterval(timer);
    });
  }
  readonly read = async () => {
    try {
      this.found = await this.ask();
      this.error = null;
    } catch (e) {
      this.error = toApiError(e);
    }
  };
  // Changes something and looks again; what is refused is said.
  readonly act = async (action: () => Promise<unknown>) => {
    try {
      await action();
    } catch (e) {
      toasts.say("bad", toApiError(e).message);
    }
    await this.read();
  };
}
