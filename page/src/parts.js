// Parts that several tabs have: notices, copy buttons, places of passages, and pulling a model.

import { Gone, Refused, ask, askLines } from "./api.js";
import { choice, el, fill } from "./dom.js";
import { bytes, t } from "./texts.js";

export const notice = (title, ...more) => el("div", { class: "notice" }, el("h2", {}, title), ...more);

// What went wrong. Before the server's words, which are English, stands what to do in the language of the page. That the
// server does not answer is said by the page's frame, once for all tabs, so that nothing stands here then.
export function problem(error) {
  if (error instanceof Gone) return null;
  if (!(error instanceof Refused)) return el("div", { class: "problem", role: "alert" }, error.message);
  const advice = t(`refused_${ADVICE[error.status] ?? "other"}`);
  return el("div", { class: "problem", role: "alert" }, el("div", {}, advice), el("div", { class: "words", lang: "en" }, error.message));
}

const ADVICE = { 400: "request", 404: "missing", 409: "model", 413: "large", 422: "request", 429: "busy", 500: "failed", 503: "busy" };

// In place of an index that a link names and the server does not have: those that it has. `linkTo` gives the link of each.
export const noSuchIndex = (index, indexes, linkTo) =>
  notice(
    t("no_such_index", { name: index }),
    el("p", {}, t("no_such_index_advice"), " ", indexes.flatMap(({ name }) => [el("a", { href: linkTo(name) }, el("bdi", {}, name)), " "])),
  );

// Below what was made of texts that the page's address has no room for.
export const notInLink = () => el("p", { class: "muted" }, t("not_in_link"));

export const waiting = (text) => el("p", { class: "waiting", role: "status" }, el("span", { class: "spinner" }), text);

export function copyButton(text, label = t("copy")) {
  const button = el(
    "button",
    {
      type: "button",
      class: "quiet",
      "aria-live": "polite",
      onclick: async () => {
        const isCopied = await copied(text);
        button.textContent = t(isCopied ? "copied" : "copy_refused");
        setTimeout(() => (button.textContent = label), isCopied ? 1500 : 6000);
      },
    },
    label,
  );
  return button;
}

// Copies a text: whether the browser lets it. The clipboard is there for pages of this machine or of https alone, and
// may be refused to those too, so there is an older way.
async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = el("textarea", { class: "hidden" });
    area.value = text;
    document.body.append(area);
    area.select();
    const isCopied = document.execCommand("copy");
    area.remove();
    return isCopied;
  }
}

export const code = (text) => el("div", { class: "code" }, el("pre", { tabindex: 0 }, text), copyButton(text));

// Where a passage stands: page, lines and headings.
export function placeOf(passage) {
  const parts = [];
  if (passage.page !== null) parts.push(t("page", { page: String(passage.page) }));
  if (passage.line !== null) {
    const isOne = passage.last_line === null || passage.last_line === passage.line;
    parts.push(isOne ? t("line", { line: String(passage.line) }) : t("lines", { from: String(passage.line), to: String(passage.last_line) }));
  }
  if (passage.headings.length) parts.push(passage.headings.join(" › "));
  return parts.join(" · ");
}

// The models on this machine of one kind, `embedding` or `rerank`, as the server lists them.
export async function modelsOf(capability, signal) {
  const { models } = await ask("/api/tags", undefined, signal);
  return models.filter((model) => model.capabilities.includes(capability)).map((model) => plainName(model.name));
}

// A name without Ollama's tag for names that have none.
export const plainName = (name) => name.replace(/:latest$/, "");

// A button that pulls a model and shows how far it is. `done` is called once the model is here.
export function pullButton(model, done, label = t("pull")) {
  const room = el("span", { class: "pull" });
  const idle = (...said) =>
    fill(
      room,
      el("button", { type: "button", onclick: pull, "aria-label": t("pull_model", { model }) }, label),
      said.length ? el("span", { class: "problem inline", role: "alert" }, said) : null,
    );
  async function pull() {
    const bar = el("progress", { max: 1, "aria-label": t("pull_model", { model }) });
    const said = el("span", { class: "muted", role: "status" }, t("pulling"));
    const control = new AbortController();
    fill(room, bar, said, el("button", { type: "button", class: "quiet", onclick: () => control.abort() }, t("cancel")));
    try {
      await askLines(
        "/api/pull",
        { model },
        (line) => {
          if (line.error) throw new Refused(line.error, 500);
          if (line.total) {
            bar.value = (line.completed ?? 0) / line.total;
            said.textContent = t("pulled_of", { done: bytes(line.completed ?? 0), all: bytes(line.total) });
          }
        },
        control.signal,
      );
      fill(room, el("span", { role: "status" }, t("pulled")));
      done();
    } catch (error) {
      if (error.name === "AbortError") idle(t("pull_stopped"));
      else idle(t("pull_failed"), " ", el("span", { lang: error instanceof Refused ? "en" : null }, error.message));
    }
  }
  idle();
  return room;
}

// A box of some rows for texts: `typed` gets what is in it after each change, and Ctrl-Enter runs.
export function textBox(value, rows, typed, run) {
  const box = el("textarea", { rows, spellcheck: false, oninput: () => typed(box.value) });
  box.value = value;
  box.addEventListener("keydown", (event) => event.key === "Enter" && (event.ctrlKey || event.metaKey) && run());
  return box;
}

// Whether texts are queries or documents.
export const kindField = (label, kinds, kind, chosen) =>
  el("div", { class: "field" }, el("span", { "aria-hidden": "true" }, label), choice(label, "kind", kinds, kind, chosen));
