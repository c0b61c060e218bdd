// CodeMirror, loaded only where a template is edited or compared. Each editor lives in a shadow root:
// there its styles are constructed sheets, which the content security policy allows; in the document
// they would be inline style tags, which it forbids.
import { defaultKeymap, history, historyKeymap, indentWithTab } from "@codemirror/commands";
import { yaml } from "@codemirror/lang-yaml";
import { HighlightStyle, bracketMatching, foldGutter, indentUnit, syntaxHighlighting } from "@codemirror/language";
import { lintGutter, setDiagnostics, type Diagnostic } from "@codemirror/lint";
import { MergeView, unifiedMergeView } from "@codemirror/merge";
import { highlightSelectionMatches, searchKeymap } from "@codemirror/search";
import { EditorState, type Extension } from "@codemirror/state";
import {
  Decoration, EditorView, MatchDecorator, ViewPlugin, drawSelection, highlightActiveLine, keymap, lineNumbers,
  type DecorationSet, type ViewUpdate,
} from "@codemirror/view";
import { tags } from "@lezer/highlight";
import type { Issue } from "../api/client";

const look = EditorView.theme({
  "&": { color: "var(--text)", backgroundColor: "var(--surface)", fontSize: "13px", height: "100%" },
  "&.cm-focused": { outline: "none" },
  ".cm-scroller": { fontFamily: "var(--mono)", lineHeight: "1.55", overflow: "auto" },
  ".cm-content": { caretColor: "var(--accent)", padding: "8px 0" },
  ".cm-gutters": { backgroundColor: "var(--surface)", color: "var(--text-faint)", border: "none" },
  ".cm-activeLine, .cm-activeLineGutter": { backgroundColor: "color-mix(in srgb, var(--accent) 6%, transparent)" },
  "&.cm-focused .cm-selectionBackground, .cm-selectionBackground, .cm-content ::selection": {
    backgroundColor: "color-mix(in srgb, var(--accent) 26%, transparent) !important",
  },
  ".cm-cursor": { borderLeftColor: "var(--accent)" },
  ".cm-parameter": { backgroundColor: "var(--accent-soft)", borderRadius: "3px" },
  ".cm-tooltip": {
    backgroundColor: "var(--raised)", color: "var(--text)", border: "1px solid var(--line)", borderRadius: "5px",
    maxWidth: "min(560px, 90vw)",
  },
  ".cm-diagnostic": { padding: "5px 10px", borderLeftWidth: "3px", fontFamily: "var(--font)", whiteSpace: "pre-wrap" },
  ".cm-diagnostic-error": { borderLeftColor: "var(--bad)" },
  ".cm-diagnostic-warning": { borderLeftColor: "var(--warn)" },
  ".cm-lintRange-error": { backgroundImage: "none", textDecoration: "underline wavy var(--bad) 1px", textUnderlineOffset: "3px" },
  ".cm-lintRange-warning": { backgroundImage: "none", textDecoration: "underline wavy var(--warn) 1px", textUnderlineOffset: "3px" },
  ".cm-lint-marker-error, .cm-lint-marker-warning": { content: "none", width: "10px", height: "10px", borderRadius: "50%", margin: "5px 2px" },
  ".cm-lint-marker-error": { backgroundColor: "var(--bad)" },
  ".cm-lint-marker-warning": { backgroundColor: "var(--warn)" },
  ".cm-panels": { backgroundColor: "var(--raised)", color: "var(--text)" },
  ".cm-textfield": { backgroundColor: "var(--surface)", color: "var(--text)", border: "1px solid var(--line-strong)" },
  ".cm-button": { backgroundImage: "none", backgroundColor: "var(--raised)", border: "1px solid var(--line)" },
  "&.cm-merge-a .cm-changedLine, .cm-deletedChunk": { backgroundColor: "var(--remove)" },
  "&.cm-merge-b .cm-changedLine, .cm-inlineChangedLine, &.cm-merge-b .cm-insertedLine": { backgroundColor: "var(--add)" },
  "&.cm-merge-a .cm-changedText, .cm-deletedChunk .cm-deletedText": {
    background: "color-mix(in srgb, var(--bad) 24%, transparent)",
  },
  "&.cm-merge-b .cm-changedText": { background: "color-mix(in srgb, var(--good) 26%, transparent)" },
  ".cm-changedText, .cm-changedText *, .cm-deletedText, .cm-deletedText *": { color: "var(--text) !important" },
  ".cm-collapsedLines": {
    background: "var(--sunken)", color: "var(--text-soft)", padding: "3px 12px",
  },
  // Its own ornament is a sign that few fonts have.
  ".cm-collapsedLines:before, .cm-collapsedLines:after": { content: '"···"' },
});

const colours = HighlightStyle.define([
  { tag: [tags.propertyName, tags.definition(tags.propertyName)], color: "var(--accent)" },
  { tag: [tags.string, tags.content], color: "var(--text)" },
  { tag: [tags.comment, tags.lineComment], color: "var(--text-faint)", fontStyle: "italic" },
  { tag: [tags.keyword, tags.labelName, tags.typeName, tags.meta], color: "var(--chart-4)" },
  { tag: [tags.number, tags.bool, tags.null], color: "var(--good)" },
]);

// ${VAR}, ${VAR:-default}, $VAR stand out: they become the form. $$ is a dollar sign.
const parameterMarks = new MatchDecorator({
  regexp: /\$\$|\$\{[^}\n]*\}?|\$[A-Za-z_]\w*/g,
  decorate: (add, from, to, match) => {
    if (match[0] !== "$$") add(from, to, Decoration.mark({ class: "cm-parameter" }));
  },
});
const parameters = ViewPlugin.fromClass(
  class {
    decorations: DecorationSet;
    constructor(view: EditorView) {
      this.decorations = parameterMarks.createDeco(view);
    }
    update(update: ViewUpdate) {
      this.decorations = parameterMarks.updateDeco(update, this.decorations);
    }
  },
  { decorations: (plugin) => plugin.decorations },
);

function common(label: string): Extension[] {
  return [
    lineNumbers(), drawSelection(), yaml(), syntaxHighlighting(colours), parameters, look,
    EditorView.contentAttributes.of({ "aria-label": label, spellcheck: "false", tabindex: "0" }),
  ];
}

function rootOf(host: HTMLElement): ShadowRoot {
  const root = host.shadowRoot ?? host.attachShadow({ mode: "open" });
  root.replaceChildren();
  return root;
}

export interface Editor {
  setText(text: string): void;
  setIssues(issues: readonly Issue[]): void;
  focusAt(line: number, column: number): void;
  destroy(): void;
}

export interface EditorOptions {
  text: string;
  label: string;
  onchange: (text: string) => void;
}

export function createEditor(host: HTMLElement, options: EditorOptions): Editor {
  const root = rootOf(host);
  const view = new EditorView({
    root,
    parent: root,
    state: EditorState.create({
      doc: options.text,
      extensions: [
        ...common(options.label),
        history(), foldGutter(), lintGutter(), bracketMatching(), highlightActiveLine(), highlightSelectionMatches(),
        indentUnit.of("  "),
        // Tab indents; Escape then Tab leaves, as CodeMirror documents for keyboard users.
        keymap.of([...defaultKeymap, ...historyKeymap, ...searchKeymap, indentWithTab]),
        EditorView.updateListener.of((update) => {
          if (update.docChanged) options.onchange(update.state.doc.toString());
        }),
      ],
    }),
  });

  const position = (line: number, column: number) => {
    const doc = view.state.doc;
    const at = doc.line(Math.min(Math.max(line, 1), doc.lines));
    return Math.min(at.from + Math.max(column - 1, 0), at.to);
  };

  return {
    setText(text) {
      if (text === view.state.doc.toString()) return;
      view.dispatch({ changes: { from: 0, to: view.state.doc.length, insert: text } });
    },
    setIssues(issues) {
      const diagnostics = issues.map((issue): Diagnostic => {
        const from = position(issue.line, issue.column);
        const line = view.state.doc.lineAt(from);
        const word = /^[^\s:,\]}]+/.exec(line.text.slice(from - line.from));
        return {
          from,
          to: Math.max(from + (word?.[0].length ?? 0), Math.min(from + 1, line.to)),
          severity: issue.severity,
          message: [issue.message, issue.suggestion].filter(Boolean).join("\n"),
        };
      });
      view.dispatch(setDiagnostics(view.state, diagnostics.sort((a, b) => a.from - b.from)));
    },
    focusAt(line, column) {
      const at = position(line, column);
      view.dispatch({ selection: { anchor: at }, effects: EditorView.scrollIntoView(at, { y: "center" }) });
      view.focus();
    },
    destroy: () => view.destroy(),
  };
}

// Two texts compared: side by side where there is room, else one below the other.
export function createDiff(
  host: HTMLElement, before: string, after: string, labels: [string, string], wide: boolean, unchanged: string,
) {
  const root = rootOf(host);
  const readOnly = [
    EditorState.readOnly.of(true), EditorView.lineWrapping, EditorState.phrases.of({ "$ unchanged lines": unchanged }),
  ];
  if (wide) {
    const view = new MergeView({
      root,
      parent: root,
      a: { doc: before, extensions: [...common(labels[0]), ...readOnly] },
      b: { doc: after, extensions: [...common(labels[1]), ...readOnly] },
      collapseUnchanged: { margin: 3, minSize: 6 },
    });
    return () => view.destroy();
  }
  const view = new EditorView({
    root,
    parent: root,
    state: EditorState.create({
      doc: after,
      extensions: [
        ...common(labels[1]), ...readOnly,
        unifiedMergeView({ original: before, mergeControls: false, collapseUnchanged: { margin: 3, minSize: 6 } }),
      ],
    }),
  });
  return () => view.destroy();
}
