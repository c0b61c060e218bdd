// The public API, typed by its own OpenAPI document. Nothing else of the daemon is used.
import type { components, paths } from "./generated";

export type Schemas = components["schemas"];
export type App = Schemas["App"];
export type AppDetail = Schemas["AppDetail"];
export type AppState = App["state"];
export type Service = Schemas["Service"];
export type ServiceDetail = Schemas["ServiceDetail"];
export type Instance = Schemas["Instance"];
export type Revision = Schemas["Revision"];
export type Preview = Schemas["Preview"];
export type Change = Schemas["Change"];
export type Parameter = Schemas["Parameter"];
export type Issue = Schemas["Issue"];
export type TemplateCheck = Schemas["TemplateCheck"];
export type TaktEvent = Schemas["Event"];
export type LogLine = Schemas["LogLine"];
export type Volume = Schemas["Volume"];

export type LogEntry = Schemas["LogEntry"];
export type Learning = Schemas["Learning"];
export type Run = Schemas["Run"];
export type Model = Schemas["Model"];
export type Curve = Schemas["Curve"];
export interface LogQuery {
  query?: string;
  from?: string;
  to?: string;
}
export type MetricQuery = NonNullable<Query<paths["/metrics/query"]["get"]>>;
export interface ItemQuery {
  service: string;
  writer: string;
  tag: string;
  run: number;
  limit?: number;
}
export type StreamQuery = NonNullable<Query<paths["/stream"]["get"]>>;
export type CurveQuery = NonNullable<Query<paths["/apps/{name}/learning/curve"]["get"]>>;

export const API = "api/v1";

export class ApiError extends Error {
  constructor(
    readonly code: string,
    message: string,
    readonly status: number,
    readonly details: Schemas["Error"]["details"] = {},
  ) {
    super(message);
  }
}

export function toApiError(error: unknown): ApiError {
  if (error instanceof ApiError) return error;
  return new ApiError("UNAVAILABLE", error instanceof Error ? error.message : String(error), 0);
}

type Method = "get" | "post" | "put" | "delete";
type Operation<P extends keyof paths, M extends Method> = paths[P][M];
type Json<R> = R extends { content: { "application/json": infer T } } ? T : never;
type Answer<O> = O extends { responses: infer R } ? Json<R[keyof R & (200 | 201)]> : never;
type Query<O> = O extends { parameters: { query?: infer Q } } ? Q : undefined;
type Path<O> = O extends { parameters: { path: infer P } } ? P : undefined;
type Body<O> = O extends { requestBody: { content: { "application/json": infer B } } } ? B : undefined;

interface Request<O> {
  path?: Path<O>;
  query?: Query<O>;
  body?: Body<O>;
  signal?: AbortSignal;
}

export function urlOf(path: string, parameters: unknown = {}, query: unknown = {}): string {
  const filled = path.replace(/\{(\w+)\}/g, (_, name: string) =>
    encodeURIComponent(String((parameters as Record<string, unknown>)[name])),
  );
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries((query ?? {}) as Record<string, unknown>)) {
    if (value !== undefined && value !== null && value !== "") search.set(name, String(value));
  }
  const text = search.toString();
  return `${API}${filled}${text ? `?${text}` : ""}`;
}

// No part of the API: the daemon's address of an app's TensorBoard, which the first visit starts.
export const tensorBoardUrl = (app: string) => `tensorboard/${encodeURIComponent(app)}/`;

let onUnauthenticated: () => void = () => {};
export function whenUnauthenticated(act: () => void) {
  onUnauthenticated = act;
}

async function call<P extends keyof paths, M extends Method>(
  method: M,
  path: P,
  request: Request<Operation<P, M>> = {},
): Promise<Answer<Operation<P, M>>> {
  const response = await fetch(urlOf(path, request.path, request.query), {
    method: method.toUpperCase(),
    signal: request.signal,
    headers: method === "get" ? {} : { "Content-Type": "application/json" },
    body: request.body === undefined ? undefined : JSON.stringify(request.body),
  });
  const text = await response.text();
  if (response.ok) return (text ? JSON.parse(text) : undefined) as Answer<Operation<P, M>>;
  if (response.status === 401) onUnauthenticated();
  let error: Partial<Schemas["Error"]> = {};
  try {
    error = JSON.parse(text) as Schemas["Error"];
  } catch {
    // not from the daemon: a proxy between it and us answered
  }
  throw new ApiError(
    error.code ?? `HTTP ${response.status}`,
    error.message ?? (text.slice(0, 300) || response.statusText),
    response.status,
    error.details,
  );
}

const app = (name: string) => ({ path: { name } });

// With ?dry_run=true an operation answers with a Preview, otherwise with the app: the two shapes of
// one endpoint are told apart here, once.
export const api = {
  system: () => call("get", "/system"),
  apps: async () => (await call("get", "/apps")).apps,
  app: (name: string) => call("get", "/apps/{name}", app(name)),
  create: (body: Schemas["CreateApp"]) => call("post", "/apps", { body }) as Promise<AppDetail>,
  previewCreate: (body: Schemas["CreateApp"], signal?: AbortSignal) =>
    call("post", "/apps", { body, query: { dry_run: true }, signal }) as Promise<Preview>,
  configure: (name: string, body: Schemas["ConfigureApp"]) =>
    call("put", "/apps/{name}/configuration", { ...app(name), body }) as Promise<AppDetail>,
  previewConfigure: (name: string, body: Schemas["ConfigureApp"], signal?: AbortSignal) =>
    call("put", "/apps/{name}/configuration", {
      ...app(name), body, query: { dry_run: true }, signal,
    }) as Promise<Preview>,
  rollback: (name: string, body: Schemas["Rollback"]) =>
    call("post", "/apps/{name}/rollback", { ...app(name), body }) as Promise<AppDetail>,
  previewRollback: (name: string, revision: number) =>
    call("post", "/apps/{name}/rollback", {
      ...app(name), body: { revision }, query: { dry_run: true },
    }) as Promise<Preview>,
  stop: (name: string) => call("post", "/apps/{name}/stop", app(name)),
  start: (name: string) => call("post", "/apps/{name}/start", app(name)),
  removal: (name: string) => call("get", "/apps/{name}/removal", app(name)),
  remove: (name: string) => call("delete", "/apps/{name}", app(name)),
  revisions: async (name: string) => (await call("get", "/apps/{name}/revisions", app(name))).revisions,
  logs: (name: string, query: { service?: string; instance?: string; tail?: number; cursor?: string }) =>
    call("get", "/apps/{name}/logs", { ...app(name), query }),
  streamUrl: (query: StreamQuery) => urlOf("/stream", {}, query),
  events: (query: { app?: string; after?: number; limit?: number }) => call("get", "/events", { query }),
  check: (body: Schemas["CheckTemplate"], signal?: AbortSignal) =>
    call("post", "/templates/check", { body, signal }),
  volumes: async () => (await call("get", "/volumes")).volumes,
  createVolume: (body: Schemas["CreateVolume"]) => call("post", "/volumes", { body }),
  removeVolume: (name: string) => call("delete", "/volumes/{name}", app(name)),
  // The token is kept in a cookie that scripts cannot read.
  openSession: (token: string) => call("post", "/session", { body: { token } }) as Promise<void>,
  searchLogs: (query: LogQuery & { limit?: number; order?: "newest" | "oldest"; after?: string }, signal?: AbortSignal) =>
    call("get", "/logs", { query, signal }),
  logHistogram: (query: { query?: string; from: string; to: string; buckets?: number }, signal?: AbortSignal) =>
    call("get", "/logs/histogram", { query, signal }),
  logContext: (id: string, before: number, after: number) =>
    call("get", "/logs/context", { query: { id, before, after } }),
  logExportUrl: (query: LogQuery & { format?: "ndjson.gz" }) => urlOf("/logs/export", {}, query),
  forwards: async () => (await call("get", "/logs/forwards")).forwards,
  setForward: (name: string, body: Partial<Schemas["PutLogForward"]>) =>
    call("put", "/logs/forwards/{name}", { ...app(name), body: body as Schemas["PutLogForward"] }), // what is left out stays
  removeForward: (name: string) => call("delete", "/logs/forwards/{name}", app(name)),
  logStores: () => call("get", "/logs/stores"),
  metricNames: () => call("get", "/metrics"),
  metric: (query: MetricQuery, signal?: AbortSignal) => call("get", "/metrics/query", { query, signal }),
  learning: (name: string, query: { run?: number } = {}) =>
    call("get", "/apps/{name}/learning", { ...app(name), query }),
  curve: (name: string, query: CurveQuery, signal?: AbortSignal) =>
    call("get", "/apps/{name}/learning/curve", { ...app(name), query, signal }),
  learningItems: (name: string, query: ItemQuery, signal?: AbortSignal) =>
    call("get", "/apps/{name}/learning/items", { ...app(name), query, signal }),
  learningImageUrl: (name: string, query: ItemQuery & { step: number }) => urlOf("/apps/{name}/learning/image", { name }, query),
  alerts: () => call("get", "/alerts"),
  silence: (body: Schemas["AddSilence"]) => call("post", "/alerts/silences", { body }),
  endSilence: (id: string) => call("delete", "/alerts/silences/{id}", { path: { id } }),
  setRule: (name: string, body: Schemas["SetRule"]) => call("put", "/alerts/rules/{name}", { ...app(name), body }),
  removeRule: (name: string) => call("delete", "/alerts/rules/{name}", app(name)),
  tryRule: (name: string, body: Schemas["SetRule"]) => call("post", "/alerts/rules/{name}/test", { ...app(name), body }),
  receivers: async () => (await call("get", "/alerts/receivers")).receivers,
  setReceiver: (name: string, body: Schemas["SetReceiver"]) => call("put", "/alerts/receivers/{name}", { ...app(name), body }),
  removeReceiver: (name: string) => call("delete", "/alerts/receivers/{name}", app(name)),
  testReceiver: (name: string, body: Schemas["SetReceiver"]) => call("post", "/alerts/receivers/{name}/test", { ...app(name), body }),
  searches: async () => (await call("get", "/logs/searches")).searches,
  saveSearch: (name: string, body: Schemas["SaveSearch"]) => call("put", "/logs/searches/{name}", { ...app(name), body }),
  removeSearch: (name: string) => call("delete", "/logs/searches/{name}", app(name)),
  runs: async (query: { app?: string; limit?: number }) => (await call("get", "/runs", { query })).runs,
  annotate: (run: Schemas["Run"], body: Schemas["RunAnnotation"]) =>
    call("put", "/runs/{app}/{number}", { path: { app: run.app, number: run.number }, body }),
  models: async (query: { app?: string } = {}) => (await call("get", "/models", { query })).models,
  images: () => call("get", "/images"),
};
