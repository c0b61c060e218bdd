// The form of a template's parameters: what stands in the fields, what is wrong with it, what is sent.
import type { Parameter } from "../api/client";

export type Values = Record<string, string>;
export type Problem = { kind: "required"; message: string } | { kind: "type"; type: Parameter["type"] };

// What a field shows: the user's value, else the default, so that it takes effect untouched.
export function shown(parameter: Parameter, values: Values): string {
  return values[parameter.name] ?? parameter.default_value ?? "";
}

const looksLike: Record<Parameter["type"], RegExp> = {
  text: /^/,
  integer: /^[+-]?\d+$/,
  number: /^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$/,
  path: /^[^\s]+$/,
  endpoint: /^(\w+:\/\/)?(\[[0-9a-fA-F:]+\]|[\w.-]+)(:\d{1,5})?(\/.*)?$/,
};

// "required" stops the deployment; "type" only warns, because the type is a guess.
export function problem(parameter: Parameter, values: Values): Problem | null {
  const value = shown(parameter, values);
  if (value === "") return parameter.required ? { kind: "required", message: parameter.message } : null;
  return looksLike[parameter.type].test(value) ? null : { kind: "type", type: parameter.type };
}

export function isComplete(parameters: readonly Parameter[], values: Values): boolean {
  return parameters.every((parameter) => problem(parameter, values)?.kind !== "required");
}

// Values of parameters that the template has, those equal to their default left out: a template whose
// default changes later should not be held back by a value that nobody chose.
export function toSend(parameters: readonly Parameter[], values: Values): Values {
  const sent: Values = {};
  for (const parameter of parameters) {
    const value = values[parameter.name];
    if (value !== undefined && value !== parameter.default_value) sent[parameter.name] = value;
  }
  return sent;
}

// An app's name from a template's: what is allowed is letters, digits, "-", "_" and ".".
export function suggestName(base: string, taken: ReadonlySet<string>): string {
  const clean = base.toLowerCase().replace(/\.ya?ml$/, "").replace(/[^a-z0-9_.-]+/g, "-").replace(/^[-_.]+|[-_.]+$/g, "") || "app";
  if (!taken.has(clean)) return clean;
  for (let i = 2; ; i++) if (!taken.has(`${clean}-${i}`)) return `${clean}-${i}`;
}
