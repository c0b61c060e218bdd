// What an alert says, in the language of the page.
import type { Schemas } from "../api/client";
import { said } from "../i18n";
import { preferences } from "./preferences.svelte";

export const summaryOf = (alert: Pick<Schemas["Alerts"]["alerts"][number], "summary" | "summary_zh">): string =>
  preferences.language === "zh" && alert.summary_zh ? alert.summary_zh : said(alert.summary);
