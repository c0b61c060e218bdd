// What the programs on the line say about themselves in their logs: error rates, versions. Newest
// wins. Pure; the lines come oldest first.
export interface Facts {
  errorRate: number | null; // fraction
  loadedVersion: number | null; // what a model server loaded last
  exportedVersion: number | null; // what a trainer exported last
}

// The example's client and the one of TensorFlow Serving's tutorial; "…, error rate 8.4%" on the way.
const ERROR_RATE = /\berror rate:? ([\d.]+)\s?%/;
// TensorFlow Serving's own words.
const LOADED = /Successfully loaded servable version \{name: (\S+) version: (\d+)\}/;
// "exported /models/mnist/00000002 in 1.2 s", "Exporting trained model to /tmp/mnist/2"
const EXPORTED = /\bexport(?:ed|ing)\b.*\/0*(\d{1,18})\/?(?: in [\d.]+ s)?$/i;

export function factsOf(texts: readonly string[]): Facts {
  const facts: Facts = { errorRate: null, loadedVersion: null, exportedVersion: null };
  for (const text of texts) {
    const rate = ERROR_RATE.exec(text);
    if (rate && Number.isFinite(Number(rate[1]))) facts.errorRate = Number(rate[1]) / 100;
    const loaded = LOADED.exec(text);
    if (loaded) facts.loadedVersion = Number(loaded[2]);
    const exported = EXPORTED.exec(text);
    if (exported) facts.exportedVersion = Number(exported[1]);
  }
  return facts;
}
