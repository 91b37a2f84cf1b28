// The tab `compare`: the scores of texts on the left with texts on the right, for any dimension, and a reranker's.

import { ask, numbers } from "./api.js";
import { el, fill } from "./dom.js";
import { link, show } from "./link.js";
import { absentModel, chosenOf, instructed, instructionFields, modelField, noModel } from "./models_here.js";
import { kindField, notInLink, problem, textBox, waiting } from "./parts.js";
import { number, t } from "./texts.js";
import { cosine } from "./vectors.js";

const DIM_MIN = 32; // the least that the models were made for
const LINES_MAX = 200; // of a side: a matrix of 40,000 cells
// How much of the heat's colour the highest score has: the text on it keeps its contrast.
const HEAT_MAX = 0.9;

export function compare(root, first, draft) {
  let state = read({ ...first, ...draft.state });
  let isRun = draft.isRun ?? Boolean(first.left && first.right); // whether the texts are to be compared, and not being typed
  let compared = ""; // the link to what was compared last, at any dimension
  let embedded = null; // the vectors and the texts that they are of
  let models = [];
  let rerankers = [];
  let running = new AbortController();
  let absent = ""; // a model that the link names and that is not here
  let isInLink = true; // whether all texts are

  const left = side("left");
  const right = side("right");
  const options = el("div", {});
  const result = el("div", {});
  const go = el("button", { type: "button", class: "main", onclick: () => run() }, t("compare_go"));
  fill(root, el("div", { class: "sides" }, left.field, right.field), options, el("p", {}, go), result);

  function side(name) {
    const box = textBox(state[name], 6, (text) => (state[name] = text), () => run());
    return { box, field: el("label", { class: "field" }, el("span", {}, t(name)), box) };
  }

  function draw() {
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
        kindField(t("left_kind"), [["query", t("kind_query")], ["document", t("kind_document")]], state.kind, (kind) => {
          state.kind = kind;
          draw();
        }),
        state.kind === "query" ? instructionFields(state, () => {}) : null,
      ),
      absentModel(absent, state.model),
    );
  }

  async function run() {
    running.abort();
    const { signal } = (running = new AbortController());
    const lines = { left: linesOf(state.left), right: linesOf(state.right) };
    if (!lines.left.length || !lines.right.length) return fill(result, el("p", { class: "muted" }, t("compare_empty")));
    const most = Math.max(lines.left.length, lines.right.length);
    if (most > LINES_MAX) return fill(result, problem(new Error(t("compare_many", { n: most, max: LINES_MAX }))));
    compared = linkAtAny();
    isInLink = show("compare", linkOf(state), true);
    fill(result, waiting(t("comparing")));
    try {
      const how = instructed(state);
      const [queries, documents] = await Promise.all([
        vectorsOf(lines.left, state.kind === "query" ? { kind: "query", ...how } : { kind: "document" }, signal),
        vectorsOf(lines.right, { kind: "document", ...(state.kind === "query" && how.task ? { task: how.task } : {}) }, signal),
      ]);
      embedded = { ...lines, queries, documents, all: queries[0].length };
      drawResult();
    } catch (error) {
      if (error.name !== "AbortError") fill(result, problem(error));
    }
  }

  async function vectorsOf(texts, how, signal) {
    const found = await ask("/q3e/embed", { model: state.model, texts, ...how }, signal);
    const flat = numbers(found.vectors, Float32Array);
    return texts.map((_, i) => flat.subarray(i * found.dim, (i + 1) * found.dim));
  }

  function drawResult() {
    const { all } = embedded;
    const dim = Math.min(Math.max(DIM_MIN, Number(state.dim) || all), all);
    const table = el("div", { class: "wide", tabindex: 0, role: "region", "aria-label": t("scores_cosine") });
    const said = el("output", { for: "dim" });
    const slider = el("input", { type: "range", id: "dim", min: DIM_MIN, max: all, step: 1, value: dim, "aria-label": t("dim") });
    const exact = el("input", { type: "number", min: DIM_MIN, max: all, step: 1, "aria-label": t("dim_exact") });
    const moved = () => {
      const chosen = Number(slider.value);
      if (document.activeElement !== exact) exact.value = chosen; // what is being typed there may not be whole yet
      said.textContent = t("dim_of", { dim: chosen, all });
      fill(table, matrix(embedded, (i, j) => cosine(embedded.queries[i], embedded.documents[j], chosen)));
      state.dim = chosen === all ? "" : String(chosen);
    };
    slider.addEventListener("input", moved);
    slider.addEventListener("change", () => show("compare", linkOf(state)));
    exact.addEventListener("input", () => exact.validity.valid && exact.value && ((slider.value = exact.value), moved()));
    exact.addEventListener("change", () => {
      slider.value = exact.value || slider.value; // brought within its bounds
      exact.value = slider.value;
      moved();
      show("compare", linkOf(state));
    });
    moved();
    fill(
      result,
      el("p", { class: "muted" }, t("compare_intro")),
      el("div", { class: "slider" }, el("span", {}, t("dim")), slider, exact, said),
      table,
      reranked(),
      isInLink ? null : notInLink(),
    );
  }

  function reranked() {
    const room = el("div", { class: "block" });
    if (!rerankers.length) return el("p", { class: "muted" }, t("no_reranker"));
    const into = el("div", {});
    let model = rerankers[0];
    const read = async () => {
      const { signal } = running;
      fill(into, waiting(t("reading_pairs", { n: embedded.left.length * embedded.right.length })));
      try {
        const rows = [];
        for (const query of embedded.left) {
          const found = await ask("/api/rerank", { model, query, documents: embedded.right, ...instructed(state) }, signal);
          rows.push(found.results.reduce((row, { index, relevance_score: score }) => ((row[index] = score), row), []));
        }
        fill(into, el("div", { class: "wide", tabindex: 0, role: "region", "aria-label": t("reranker") }, matrix(embedded, (i, j) => rows[i][j])));
      } catch (error) {
        if (error.name !== "AbortError") fill(into, problem(error));
      }
    };
    fill(
      room,
      el("div", { class: "options" }, modelField(rerankers, model, (name) => (model = name), t("rerank")), el("button", { type: "button", onclick: read }, t("score_with"))),
      into,
    );
    return room;
  }

  async function begin() {
    fill(result, waiting(t("loading")));
    try {
      const embedders = await chosenOf("embedding", state.model);
      ({ models, absent } = embedders);
      state.model = embedders.model;
      rerankers = (await chosenOf("rerank", "")).models;
    } catch (error) {
      return fill(result, problem(error));
    }
    go.disabled = !models.length;
    if (!models.length) return fill(result, noModel(begin));
    draw();
    fill(result);
    if (isRun) run();
  }

  const linkAtAny = () => link("compare", { ...linkOf(state), dim: "" });

  begin();
  return {
    update(parameters) {
      running.abort();
      state = read(parameters);
      left.box.value = state.left;
      right.box.value = state.right;
      isRun = Boolean(parameters.left && parameters.right);
      begin();
    },
    draft() {
      // The samples are not the user's, and are others in the other language.
      const own = Object.entries(state).filter(([name, text]) => !["left", "right"].includes(name) || text !== t(`example_${name}`));
      return { state: Object.fromEntries(own), isRun: compared ? compared === linkAtAny() : isRun };
    },
    close: () => running.abort(),
  };
}

function matrix({ left, right }, scoreOf) {
  const clip = (text) => el("span", { class: "clip", title: text }, el("bdi", {}, text));
  return el(
    "table",
    { class: "matrix" },
    el("thead", {}, el("tr", {}, el("td", {}), right.map((text) => el("th", { scope: "col" }, clip(text))))),
    el(
      "tbody",
      {},
      left.map((text, i) => {
        const scores = right.map((_, j) => scoreOf(i, j));
        const best = scores.indexOf(Math.max(...scores));
        return el(
          "tr",
          {},
          el("th", { scope: "row" }, clip(text)),
          scores.map((score, j) =>
            el(
              "td",
              { "data-best": j === best && right.length > 1, title: j === best ? t("best_of_row") : null, style: { "--part": HEAT_MAX * Math.max(0, Math.min(1, score)) } },
              number(score, 3),
            ),
          ),
        );
      }),
    ),
  );
}

const linesOf = (text) => text.split("\n").map((line) => line.trim()).filter(Boolean);

function read({ left = t("example_left"), right = t("example_right"), model = "", kind = "query", task = "retrieval", instruction = "", dim = "" }) {
  return { left, right, model, kind, task, instruction, dim };
}

function linkOf({ left, right, model, kind, task, instruction, dim }) {
  return { left, right, model, kind: kind === "query" ? "" : kind, task: task === "retrieval" ? "" : task, instruction: task === "own" ? instruction : "", dim };
}
