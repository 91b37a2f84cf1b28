// The tab `search`: a question to an index, and the passages that answer it, by file.

import { Refused, ask } from "./api.js";
import { choice, el, field, fill, later, select } from "./dom.js";
import { hitCard } from "./hit.js";
import { isTyping } from "./keys.js";
import { link, show } from "./link.js";
import { code, copyButton, modelsOf, noSuchIndex, notice, plainName, problem, pullButton, waiting } from "./parts.js";
import { number, t } from "./texts.js";

const OPEN = ["why", "context"]; // what a result can have open: the state has its id under that name
const CLOSED = { why: "", context: "" };
const MODES = ["auto", "vectors", "words", "hybrid"];
// A model that was in memory is looked up in less; a load takes longer.
const LOADED_MS = 5;
const TYPING_MS = 120;
// So many are drawn at first, and again with each press of the button: thousands at once would hold the page up.
const DRAWN = 100;

export function search(root, first, draft) {
  let state = read({ ...first, ...draft.state });
  let indexes = [];
  let rerankers = [];
  let running = new AbortController();
  let isReady = false; // once the indexes are known
  let isAsked = draft.isAsked ?? true; // by a link or by Enter; what is only typed is looked up by words

  const input = el("input", {
    type: "search",
    value: state.q,
    placeholder: t("search_placeholder"),
    "aria-label": t("search_label"),
    autocomplete: "off",
    spellcheck: false,
  });
  const options = el("div", { class: "options" });
  const summary = el("p", { class: "summary", role: "status" });
  const results = el("div", { class: "results" });
  fill(root, el("div", { class: "ask" }, input, el("button", { type: "button", class: "main", onclick: () => enter() }, t("search_ask"))), options, summary, results);

  const type = later(TYPING_MS, () => !isAsked && answer());
  input.addEventListener("input", () => {
    state = { ...state, ...CLOSED, q: input.value };
    isAsked = false;
    if (state.q.trim()) type();
    else rest();
  });
  input.addEventListener("keydown", (event) => event.key === "Enter" && !event.isComposing && enter());

  function draw() {
    // One that a link names and that is not here stands among the choices, so that it can be switched off.
    const names = new Set([...rerankers, state.rerank].filter(Boolean));
    const choices = [["", t("rerank_off")], ...[...names].map((name) => [name, name])];
    fill(
      options,
      choice(t("mode"), "mode", MODES.map((mode) => [mode, t(`mode_${mode}`)]), state.mode, (mode) => change({ mode })),
      indexes.length > 1 && isKnown()
        ? field(t("index"), select(t("index"), indexes.map(({ name }) => [name, name]), state.index, (index) => change({ index })))
        : null,
      field(t("how_many"), select(t("how_many"), ["5", "10", "20", "50", "100"].map((n) => [n, n]), state.k, (k) => change({ k }))),
      choices.length > 1 ? field(t("rerank"), select(t("rerank"), choices, state.rerank, (rerank) => change({ rerank }))) : null,
      field(t("filter_path"), filter("path", t("filter_path_example"))),
      field(t("filter_since"), filter("since", t("filter_since_example"))),
    );
  }

  function filter(name, example) {
    // A box says that it has changed when it is left and at Enter.
    const box = el("input", { type: "text", value: state[name], placeholder: example, onchange: () => change({ [name]: box.value.trim() }) });
    return box;
  }

  function change(part) {
    state = { ...state, ...CLOSED, ...part };
    if (state.q.trim()) enter();
    else show("search", linkOf(state));
  }

  function enter() {
    state.q = input.value;
    isAsked = true;
    if (!state.q.trim()) return;
    show("search", linkOf(state), true);
    answer();
  }

  const isKnown = () => indexes.some(({ name }) => name === state.index);

  // Before the indexes are known nothing is asked; `begin` calls this once they are.
  function answer() {
    if (isReady && isKnown() && state.q.trim()) run(isAsked ? state.mode : "words", !isAsked);
  }

  // What stands there before anything is asked.
  function rest() {
    running.abort();
    fill(summary);
    fill(results, isKnown() ? intro() : noSuchIndex(state.index, indexes, (index) => link("search", linkOf({ ...state, index }))));
  }

  async function run(mode, isTypedOnly) {
    running.abort();
    const { signal } = (running = new AbortController());
    if (!isTypedOnly) fill(summary, waiting(t("searching")));
    const body = {
      query: state.q,
      index: state.index || undefined,
      k: Number(state.k),
      mode,
      path: state.path || undefined,
      since: state.since || undefined,
      best: true,
      ...(state.rerank && !isTypedOnly ? { rerank: true, reranker: state.rerank } : {}),
    };
    try {
      const found = await ask("/api/search", body, signal);
      say(found, isTypedOnly);
    } catch (error) {
      if (error.name === "AbortError") return;
      fill(summary);
      fill(results, problem(error));
      if (error instanceof Refused && error.status === 404) offerPulls(signal);
    }
  }

  // A model that the search needs and that is not here can be pulled, unless it is a file of the user's own.
  async function offerPulls(signal) {
    const needed = [state.rerank, indexes.find(({ name }) => name === state.index).model];
    const found = await ask("/q3e/catalog", undefined, signal).catch(() => ({ models: [] }));
    const missing = found.models.filter(({ name, is_here }) => needed.includes(name) && !is_here);
    if (!signal.aborted) results.append(...missing.map(({ name: model }) => el("p", {}, pullButton(model, begin, t("pull_model", { model })))));
  }

  function say(found, isTypedOnly) {
    const files = new Set(found.hits.map((hit) => hit.file ?? hit.id));
    const parts = [
      t("passages", { n: found.hits.length }) + t("in_files", { n: files.size }),
      t(`mode_${found.mode}`),
      ...Object.entries(found.milliseconds).filter(([stage, ms]) => stage !== "load" || ms >= LOADED_MS).map(([stage, ms]) => t("stage", { stage: t(`stage_${stage}`), ms: number(ms, ms < 10 ? 1 : 0) })),
    ];
    fill(summary, parts.map((part) => el("span", {}, part)), isTypedOnly ? el("span", { class: "hint" }, t("enter_asks")) : null);
    if (!found.hits.length) {
      const filters = state.path || state.since;
      fill(results, notice(t("nothing_found"), el("p", {}, filters ? t("nothing_found_filters") : t("nothing_found_advice"))));
      return;
    }
    fill(results, list(found), found.explained.length ? explained(found.explained) : null);
  }

  function list(found) {
    const room = el("div", {});
    let n = 0;
    const more = el("button", { type: "button", onclick: () => add() }, t("more"));
    const groups = new Map();
    function add() {
      for (const hit of found.hits.slice(n, n + DRAWN)) {
        const file = hit.file ?? "";
        if (!groups.has(file)) {
          const group = el("section", { class: "file" }, fileHead(hit));
          groups.set(file, group);
          room.insertBefore(group, more);
        }
        const open = OPEN.find((name) => state[name] === hit.id) ?? null;
        groups.get(file).append(hitCard(hit, (n += 1), found, open, (name) => opened(hit.id, name)));
      }
      more.hidden = n >= found.hits.length;
    }
    room.append(more);
    add();
    return room;
  }

  // What was opened last is in the link.
  function opened(id, name) {
    Object.assign(state, CLOSED, name ? { [name]: id } : {});
    if (isAsked) show("search", linkOf(state));
  }

  function fileHead(hit) {
    if (hit.file === null) return el("h2", { class: "path" }, t("no_file"));
    const end = hit.file.lastIndexOf("/") + 1;
    return el(
      "h2",
      { class: "path", title: hit.file },
      el("span", {}, el("bdi", { class: "folder" }, hit.file.slice(0, end)), el("bdi", {}, hit.file.slice(end))),
      copyButton(hit.file, t("copy_path")),
    );
  }

  // The cards in the order on the page, of which arrow keys walk from one to the next.
  function walk(step) {
    const cards = [...results.querySelectorAll("article")];
    if (!cards.length) return false;
    const at = cards.findIndex((card) => card.contains(document.activeElement));
    if (at + step < 0) input.focus();
    else cards[Math.min(cards.length - 1, at + step)].focus();
    return true;
  }

  function keys(event) {
    const { key, target } = event;
    if (isTyping(target) && target !== input) return false;
    // Arrow keys are also those of the choice of a mode.
    if (target.matches?.("input[type=radio]")) return false;
    if (key === "ArrowDown") return walk(1);
    if (key === "ArrowUp" && target !== input) return walk(-1);
    const card = !isTyping(target) && target.closest?.("article");
    const button = card && { o: ".context", w: ".why", c: ".copy" }[key];
    if (!button) return false;
    card.querySelector(button)?.click();
    return true;
  }

  async function begin() {
    fill(results, waiting(t("loading")));
    try {
      const [found, models] = await Promise.all([ask("/api/indexes"), modelsOf("rerank")]);
      ({ indexes } = found);
      rerankers = models.map(plainName);
    } catch (error) {
      return fill(results, problem(error));
    }
    if (!indexes.length) return fill(results, noIndex());
    state.index ||= indexes[0].name;
    isReady = true;
    draw();
    rest();
    answer();
    if (!state.q.trim()) input.focus();
  }

  function intro() {
    const index = indexes.find(({ name }) => name === state.index);
    if (index.error) return problem(new Refused(index.error, 503));
    if (!index.chunks) return notice(t("index_empty"), el("p", {}, t("index_empty_advice")), code(`q3e-local index ~/notes`));
    const n = { chunks: index.chunks, files: index.files };
    return el("p", { class: "muted" }, t("index_holds", { name: index.name, ...n }));
  }

  begin();
  return {
    keys,
    draft: () => ({ state, isAsked }),
    update(parameters) {
      state = { ...read(parameters), index: parameters.index || indexes[0]?.name || "" };
      input.value = state.q;
      isAsked = true;
      draw();
      if (!isReady) return;
      rest();
      answer();
    },
    close: () => running.abort(),
  };
}

function read(given) {
  const { q = "", index = "", mode = "auto", k = "10", path = "", since = "", rerank = "", why = "", context = "" } = given;
  return { q, index, mode: MODES.includes(mode) ? mode : "auto", k, path, since, rerank, why, context };
}

// What differs from the usual is in the link.
function linkOf({ q, index, mode, k, path, since, rerank, why, context }) {
  return { q, index, mode: mode === "auto" ? "" : mode, k: k === "10" ? "" : k, path, since, rerank, why, context };
}

const noIndex = () =>
  notice(
    t("no_index"),
    el("p", {}, t("no_index_advice")),
    code("q3e-local index ~/notes\nq3e-local ui --port 0 --index default"),
    el("p", { class: "muted" }, t("no_index_why")),
  );

const explained = (lines) => el("details", { class: "explained" }, el("summary", {}, t("how_found")), el("ul", { lang: "en" }, lines.map((line) => el("li", {}, line))));
