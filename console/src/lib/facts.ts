// What the programs on the line say about themselves in their logs. Newest wins. Pure; the lines come
// oldest first.
export interface Facts {
  errorRate: number | null; // fraction
}

// The example's client and the one of TensorFlow Serving's tutorial; "…, error rate 8.4%" on the way.
const ERROR_RATE = /\berror rate:? ([\d.]+)\s?%/;

export function factsOf(texts: readonly string[]): Facts {
  const facts: Facts = { errorRate: null };
  for (const text of texts) {
    const rate = ERROR_RATE.exec(text);
    if (rate && Number.isFinite(Number(rate[1]))) facts.errorRate = Number(rate[1]) / 100;
  }
  return facts;
}
