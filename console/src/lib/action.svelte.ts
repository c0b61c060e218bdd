// What a form does: one thing at a time, and what was refused is shown beside it.
import { toApiError, type ApiError } from "../api/client";

export class Action {
  busy = $state(false);
  error = $state.raw<ApiError | null>(null);

  readonly run = async (action: () => Promise<void>) => {
    this.busy = true;
    try {
      await action();
      this.error = null;
    } catch (e) {
      this.error = toApiError(e);
    } finally {
      this.busy = false;
    }
  };
}
