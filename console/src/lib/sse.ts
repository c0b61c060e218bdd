// Server-sent events, read by hand where they come by the thousand: an EventSource makes a task of every
// burst, this hands over whole events as text and lets the page decide when to look at them.
export interface SseEvent {
  type: string;
  id: string; // "" where the event has none
  data: string;
}

// Events out of text that comes in pieces, cut anywhere.
export class SseSplitter {
  #rest = "";
  push(piece: string): SseEvent[] {
    const text = this.#rest + piece;
    const events: SseEvent[] = [];
    let from = 0;
    for (;;) {
      const end = text.indexOf("\n\n", from);
      if (end < 0) break;
      const event = parse(text.slice(from, end));
      if (event) events.push(event);
      from = end + 2;
    }
    this.#rest = text.slice(from);
    return events;
  }
}

function parse(block: string): SseEvent | null {
  let type = "message";
  let id = "";
  const data: string[] = [];
  for (const line of block.split("\n")) {
    if (line === "" || line.startsWith(":")) continue;
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
    if (field === "event") type = value;
    else if (field === "id") id = value;
    else if (field === "data") data.push(value);
  }
  return data.length > 0 ? { type, id, data: data.join("\n") } : null;
}

// The daemon answered, but not with a stream.
export class SseRefused extends Error {
  constructor(readonly status: number) {
    super(`HTTP ${status}`);
  }
}

// Reads until the stream ends (then the promise is fulfilled) or fails. `onEvents` gets what came
// together; what it returns is waited for, so that a reader who is behind slows the sender.
export async function readSse(
  url: string, signal: AbortSignal, onOpen: () => void, onEvents: (events: SseEvent[]) => Promise<void> | void,
): Promise<void> {
  const response = await fetch(url, { signal, headers: { Accept: "text/event-stream" } });
  if (!response.ok || !response.body) throw new SseRefused(response.status);
  onOpen();
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  const splitter = new SseSplitter();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const events = splitter.push(value);
    if (events.length > 0) await onEvents(events);
  }
}
