// One passage that was found: its score, its text with the best sentence marked, why it was found, and its context.

import { ask } from "./api.js";
import { el, fill } from "./dom.js";
import { copyButton, placeOf, problem, waiting } from "./parts.js";
import { number, t } from "./texts.js";

const AROUND = 2;
// Of a longer text the beginning is shown, until the user wants all.
const SHOWN = 1500;

// `first` is what of it is open at once, `why` or `context`; `opened` is told what the user opens, or null where it is closed.
export function hitCard(hit, number_, found, first, opened) {
  const panel = el("div", { class: "panel" });
  let open = first;
  const toggle = (name, make) => (event) => {
    const buttons = event.currentTarget.parentElement.querySelectorAll("[aria-expanded]");
    for (const button of buttons) button.setAttribute("aria-expanded", "false");
    open = open === name ? null : name;
    if (open) event.currentTarget.setAttribute("aria-expanded", "true");
    fill(panel, open ? make() : null);
    opened(open);
  };
  const place = placeOf(hit);
  const panels = { why: () => why(hit, found), context: () => context(hit, found.index) };
  const button = (name) => el("button", { type: "button", class: `quiet ${name}`, "aria-expanded": String(name === open), onclick: toggle(name, panels[name]) }, t(name));
  if (open) fill(panel, panels[open]());
  return el(
    "article",
    { tabindex: -1, "aria-label": t("hit", { number: number_ }) },
    el("div", { class: "head" }, el("span", { class: "rank" }, number_), el("bdi", { class: "place" }, place), scoreBar(hit)),
    passage(hit),
    el(
      "div",
      { class: "actions" },
      button("why"),
      button("context"),
      named(copyButton(hit.text, t("copy_text")), "copy"),
    ),
    panel,
  );
}

function named(button, name) {
  button.classList.add(name);
  return button;
}

// The score that decides the order: the reranker's where one has read the passage, else the cosine.
function scoreBar({ rerank, score, words_rank, letters_rank }) {
  if (rerank === null && score === null) return el("span", { class: "score" }, t("by_words_rank", { rank: words_rank ?? letters_rank }));
  const value = rerank ?? score;
  const label = rerank === null ? t("cosine") : t("reranker");
  return el(
    "span",
    { class: "score", title: label },
    el("span", { class: "hidden" }, label),
    el("span", { class: "bar", style: { "--part": Math.max(0, Math.min(1, value)) } }),
    el("span", {}, number(value, 3)),
  );
}

function passage({ text, best, cut }) {
  const room = el("p", { class: "text", dir: "auto" });
  const end = cut ? el("span", { class: "muted" }, " … ", t("text_cut", { n: text.length })) : null;
  const all = () => fill(room, ...marked(text, best), end);
  if (text.length <= SHOWN) return all(), room;
  // The window holds the best sentence.
  const [from] = best ? units(text, best) : [0];
  const start = Math.max(0, Math.min(from - 300, text.length - SHOWN));
  const part = text.slice(start, start + SHOWN);
  const span = best && { start: units(text, best)[0] - start, end: Math.min(SHOWN, units(text, best)[1] - start) };
  fill(
    room,
    start ? "… " : null,
    ...marked(part, span, true),
    "… ",
    el("button", { type: "button", class: "quiet", onclick: all }, t("show_all", { n: text.length })),
  );
  return room;
}

// The text with the characters from `start` to `end` marked.
function marked(text, best, areUnits = false) {
  if (!best) return [text];
  const [start, end] = areUnits ? [best.start, best.end] : units(text, best);
  return [text.slice(0, start), el("mark", {}, text.slice(start, end)), text.slice(end)];
}

// The server counts characters, and JavaScript counts those beyond U+FFFF twice.
function units(text, { start, end }) {
  if (!/[\ud800-\udbff]/.test(text)) return [start, end];
  const characters = Array.from(text);
  const length = (n) => characters.slice(0, n).join("").length;
  return [length(start), length(end)];
}

function why(hit, found) {
  const ranked = (rank) => (rank === null ? t("rank_none") : t("rank", { rank }));
  const facts = [
    [t("by_meaning"), found.mode === "words" ? t("not_asked") : ranked(hit.vectors_rank)],
    [t("by_words"), found.mode === "vectors" ? t("not_asked") : ranked(hit.words_rank)],
    hit.letters_rank !== null && [t("to_the_letter"), ranked(hit.letters_rank)],
    [t("cosine"), hit.score === null ? t("no_vector") : number(hit.score, 4)],
    hit.rank_before !== null && [t("before_rerank"), ranked(hit.rank_before)],
    hit.rank_before !== null && [t("reranker_says"), hit.rerank === null ? t("not_read") : number(hit.rerank, 4)],
    ["id", hit.id],
  ].filter(Boolean);
  return el("dl", { class: "facts" }, facts.map(([name, value]) => el("div", { class: name === "id" ? "all" : null }, el("dt", {}, name), el("dd", {}, el("bdi", {}, value)))));
}

function context(hit, index) {
  const room = el("div", { class: "around" }, waiting(t("loading")));
  ask("/api/passages", { index, ids: [hit.id], around: AROUND }).then(
    (found) => {
      if (!found.passages.length) return fill(room, problem(new Error(t("passage_gone"))));
      const last = found.first + found.passages.length - 1;
      fill(
        room,
        el("p", { class: "muted" }, t("context_of", { from: found.first, to: last, all: found.of })),
        found.passages.map((each) =>
          el("div", { class: "passage", "aria-current": each.id === hit.id ? "true" : null }, el("bdi", { class: "place" }, placeOf(each)), el("p", { class: "text", dir: "auto" }, each.text, each.cut ? el("span", { class: "muted" }, " … ", t("text_cut", { n: each.text.length })) : null)),
        ),
      );
    },
    (error) => fill(room, problem(error)),
  );
  return room;
}
