// The tab `look`: a text as the model reads it, what is cut, and what its vector is like.

import { ask, numbers } from "./api.js";
import { el, field, fill } from "./dom.js";
import { link, show } from "./link.js";
import { absentModel, chosenOf, instructed, instructionFields, modelField, noModel } from "./models_here.js";
import { kindField, notInLink, problem, textBox, waiting } from "./parts.js";
import { number, t } from "./texts.js";
import { facts, histogram } from "./vectors.js";

const BINS = 32;

export function look(root, first, draft) {
  let state = read({ ...first, ...draft.state });
  let isRun = draft.isRun ?? Boolean(first.text); // whether the text is one to look at, and not one that is being typed
  let looked = ""; // the link to what was looked at last
  let models = [];
  let running = new AbortController();
  let absent = ""; // a model that the link names and that is not here

  const box = textBox(state.text, 5, (text) => (state.text = text), () => run());
  const options = el("div", {});
  const result = el("div", {});
  const go = el("button", { type: "button", class: "main", onclick: () => run() }, t("look_go"));
  fill(root, el("label", { class: "field", style: { display: "flex" } }, el("span", {}, t("look_text")), box), options, el("p", {}, go), result);

  function draw() {
    const limit = el("input", { type: "number", min: 1, value: state.limit, placeholder: "—", onchange: () => (state.limit = limit.value) });
    fill(
      options,
      el(
        "div",
        { class: "options" },
        modelField(models, state.model, (model) => {
          Object.assign(state, { model });
          absent = "";
          draw();
        }),
        kindField(t("look_as"), [["document", t("kind_document_one")], ["query", t("kind_query_one")]], state.kind, (kind) => {
          state.kind = kind;
          draw();
        }),
        field(t("limit"), limit),
        state.kind === "query" ? instructionFields(state, () => {}) : null,
      ),
      absentModel(absent, state.model),
    );
  }

  async function run() {
    running.abort();
    const { signal } = (running = new AbortController());
    if (!state.text.trim()) return fill(result, el("p", { class: "muted" }, t("look_empty")));
    looked = link("look", linkOf(state));
    const isInLink = show("look", linkOf(state), true);
    fill(result, waiting(t("looking")));
    const how = {
      model: state.model,
      kind: state.kind,
      ...(state.kind === "query" ? instructed(state) : {}),
      ...(state.limit ? { max_tokens: Number(state.limit) } : {}),
    };
    try {
      const [seen, embedded] = await Promise.all([
        ask("/q3e/seen", { ...how, text: state.text }, signal),
        ask("/q3e/embed", { ...how, texts: [state.text] }, signal),
      ]);
      fill(result, tokens(seen, state.text), vector(numbers(embedded.vectors, Float32Array)), isInLink ? null : notInLink());
    } catch (error) {
      if (error.name !== "AbortError") fill(result, problem(error));
    }
  }

  async function begin() {
    try {
      const chosen = await chosenOf("embedding", state.model);
      ({ models, absent } = chosen);
      state.model = chosen.model;
    } catch (error) {
      return fill(result, problem(error));
    }
    go.disabled = !models.length;
    if (!models.length) return fill(result, noModel(begin));
    draw();
    if (isRun) run();
    else fill(result);
  }

  begin();
  return {
    update(parameters) {
      running.abort();
      state = read(parameters);
      box.value = state.text;
      isRun = Boolean(parameters.text);
      begin();
    },
    draft() {
      const { text, ...chosen } = state;
      // The sample is not the user's, and is another one in the other language.
      return { state: text === t("look_example") ? chosen : state, isRun: looked ? looked === link("look", linkOf(state)) : isRun };
    },
    close: () => running.abort(),
  };
}

function tokens(seen, text) {
  const n_text = seen.n_tokens - 1; // without the end token
  const n_cut = seen.n_tokens - seen.n_kept;
  const n_more = n_text - seen.tokens.length;
  const parts = [t("tokens_are", { n: seen.n_tokens }), n_cut ? t("tokens_cut", { n: n_cut }) : t("tokens_whole"), `${t("limit")}: ${number(seen.limit)}`];
  return el(
    "section",
    { class: "block" },
    el("h2", {}, t("tokens")),
    el("p", { class: "summary" }, parts.map((part) => el("span", {}, part))),
    el(
      "div",
      { class: "tokens", dir: "auto", tabindex: 0, role: "region", "aria-label": t("as_seen") },
      // A line breaks between tokens, and not within one.
      seen.tokens.map((token, place) => [chip(token, place + 1, place >= seen.n_kept - 1), el("wbr")]).flat(),
      n_more > 0 ? el("span", { class: "muted" }, ` ${t("tokens_not_shown", { n: n_more })} `) : null,
      chip(seen.end, seen.n_kept, false),
    ),
    text.normalize("NFC") === text ? null : el("p", { class: "muted" }, t("changed")),
  );
}

// A token as people see it: spaces and line breaks that stand at its edges are drawn.
function chip({ id, piece }, place, isCut) {
  const isSpecial = /^<\|.*\|>$/.test(piece);
  const shown = piece.replace(/^ /, "·").replaceAll("\n", "↵\n").replaceAll("\t", "⇥");
  const title = t("token_title", { place: String(place), id: String(id) }) + (isCut ? `, ${t("token_cut")}` : "");
  return el("span", { class: `token${isSpecial ? " special" : ""}${isCut ? " cut" : ""}`, title }, shown || "∅");
}

function vector(values) {
  const found = facts(values);
  const rows = [
    [t("dim"), number(values.length)],
    ...["norm", "mean", "spread", "lowest", "highest"].map((name) => [t(name), number(found[name], 4)]),
  ];
  return el(
    "section",
    { class: "block" },
    el("h2", {}, t("vector")),
    el("dl", { class: "facts" }, rows.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value)))),
    el("p", { class: "muted" }, t("histogram")),
    bars(histogram(values, BINS, found), found),
  );
}

function bars(bins, { lowest, highest }) {
  const most = Math.max(...bins.map(({ count }) => count));
  const label = `${t("histogram")}: ${number(lowest, 3)} … ${number(highest, 3)}`;
  const drawn = bins.map(({ count, from, to }, i) => {
    const height = (100 * count) / most;
    const bar = el("rect", { x: i * 10 + 0.5, y: 100 - height, width: 9, height, rx: 0.8 });
    const title = document.createElementNS("http://www.w3.org/2000/svg", "title");
    title.textContent = t("histogram_of", { n: count, from: number(from, 3), to: number(to, 3) });
    bar.append(title);
    return bar;
  });
  return el(
    "div",
    {},
    el("svg", { class: "histogram", viewBox: `0 0 ${10 * bins.length} 100`, preserveAspectRatio: "none", role: "img", "aria-label": label }, drawn),
    el("div", { class: "axis muted" }, el("span", {}, number(lowest, 3)), el("span", {}, number(highest, 3))),
  );
}

function read({ text = t("look_example"), model = "", kind = "document", task = "retrieval", instruction = "", limit = "" }) {
  return { text, model, kind, task, instruction, limit };
}

function linkOf({ text, model, kind, task, instruction, limit }) {
  return {
    text,
    model,
    kind: kind === "document" ? "" : kind,
    task: task === "retrieval" ? "" : task,
    instruction: task === "own" ? instruction : "",
    limit,
  };
}
