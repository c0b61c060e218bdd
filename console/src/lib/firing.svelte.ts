// Alerts that fire and that nobody silenced; looked at now and then, for every page.
import { api, type Schemas } from "../api/client";

const EVERY_MS = 20_000;
export type Alert = Schemas["Alerts"]["alerts"][number];

class Firing {
  list = $state.raw<readonly Alert[]>([]);

  // Called from an effect; the answer ends it.
  watch() {
    const look = () => {
      if (!document.hidden) api.alerts().then((found) => (this.list = found.alerts.filter((a) => a.state === "firing" && !a.silenced)), () => {});
    };
    look();
    const timer = setInterval(look, EVERY_MS);
    return () => clearInterval(timer);
  }
}
export const firing = new Firing();
