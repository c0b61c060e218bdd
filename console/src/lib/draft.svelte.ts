// A configuration being written: template, values, volume options; checked as it changes, and what it
// would do asked from the daemon. Shared by Deploy and Change configuration. Make one while a
// component is initialised: its effects end with that component.
import {
  api, toApiError, type ApiError, type AppDetail, type Issue, type Parameter, type Preview, type Schemas,
  type TemplateCheck,
} from "../api/client";
import { isComplete, problem, toSend, type Values } from "./parameters";

const CHECK_DELAY_MS = 300;
const PREVIEW_DELAY_MS = 250;

export interface Target {
  // What the preview is asked about; null while it cannot be asked.
  name: () => string;
  preview: (body: Schemas["ConfigureApp"] & { template: string }, signal: AbortSignal) => Promise<Preview>;
}

// What a required parameter is taken for until it has a value: without any, the daemon would say that,
// and nothing of the rest of the template.
function standIns(missing: readonly Parameter[]): Values {
  return Object.fromEntries(
    missing.map((p) => [p.name, p.type === "integer" || p.type === "number" ? "1" : p.type === "path" ? "/x" : "x"]),
  );
}

export class Draft {
  template = $state("");
  templateName = $state("template");
  values = $state.raw<Values>({});
  subdirectories = $state.raw<Record<string, string>>({});
  createVolumes = $state(false);

  check = $state.raw<TemplateCheck | null>(null);
  checkError = $state.raw<ApiError | null>(null);
  preview = $state.raw<Preview | null>(null);
  previewError = $state.raw<ApiError | null>(null);
  previewing = $state(false);
  checkedText = $state(""); // the template that `check` is about

  parameters = $derived<readonly Parameter[]>(this.check?.parameters ?? []);
  complete = $derived(isComplete(this.parameters, this.values));
  // A parameter that has no value yet is said in the form. Meanwhile the template is checked with a
  // stand-in for it, so what is found at the places where it is used says nothing.
  #missing = $derived(this.parameters.filter((p) => problem(p, this.values)?.kind === "required"));
  issues = $derived<readonly Issue[]>(
    (this.check?.issues ?? []).filter(
      (issue) => !this.#missing.some((p) => p.uses.some((use) => use.path === issue.path)),
    ),
  );
  errors = $derived(this.issues.filter((issue) => issue.severity === "error"));
  settled = $derived(this.check !== null && this.checkedText === this.template);
  missingVolumes = $derived<readonly string[]>(
    this.preview?.missing_volumes ??
      (this.check?.volumes ?? []).filter((volume) => !volume.exists).map((volume) => volume.actual_name),
  );

  constructor(target: Target) {
    $effect(() => {
      const template = this.template;
      const values = { ...toSend(this.parameters, this.values), ...standIns(this.#missing) };
      if (!template.trim()) {
        this.check = null;
        return;
      }
      const abort = new AbortController();
      const timer = setTimeout(() => {
        api.check({ template, template_name: this.templateName, values }, abort.signal).then(
          (found) => {
            // The same answer again would ask again for ever: only what differs is taken.
            if (JSON.stringify(found) !== JSON.stringify(this.check)) this.check = found;
            this.checkedText = template;
            this.checkError = null;
          },
          (e: unknown) => {
            if (!abort.signal.aborted) this.checkError = toApiError(e);
          },
        );
      }, CHECK_DELAY_MS);
      return () => {
        clearTimeout(timer);
        abort.abort();
      };
    });

    $effect(() => {
      const name = target.name();
      const body = this.body();
      if (!name || !this.settled || this.errors.length > 0 || !this.complete) {
        this.preview = null;
        this.previewError = null;
        this.previewing = false;
        return;
      }
      const abort = new AbortController();
      this.previewing = true;
      const timer = setTimeout(() => {
        target.preview({ ...body, create_volumes: true }, abort.signal).then(
          (found) => {
            this.preview = found;
            this.previewError = null;
            this.previewing = false;
          },
          (e: unknown) => {
            if (abort.signal.aborted) return;
            this.preview = null;
            this.previewError = toApiError(e);
            this.previewing = false;
          },
        );
      }, PREVIEW_DELAY_MS);
      return () => {
        clearTimeout(timer);
        abort.abort();
      };
    });
  }

  fill(detail: AppDetail) {
    const configuration = detail.revision.configuration;
    this.template = configuration.template;
    this.templateName = configuration.template_name;
    this.values = { ...configuration.values };
    this.subdirectories = Object.fromEntries(
      Object.entries(configuration.volume_options).map(([name, option]) => [name, option.subdirectory ?? ""]),
    );
  }

  body() {
    const options = Object.entries(this.subdirectories)
      .map(([name, subdirectory]) => [name, subdirectory.trim()] as const)
      .filter(([, subdirectory]) => subdirectory !== "")
      .map(([name, subdirectory]) => [name, { subdirectory }] as const);
    return {
      template: this.template,
      template_name: this.templateName,
      values: toSend(this.parameters, this.values),
      volume_options: Object.fromEntries(options),
      create_volumes: this.createVolumes,
    };
  }
}
