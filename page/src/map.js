// The tab `map`: an index or lines of the user's own on a plane, with clusters by name, and what lies where.

import { Refused, ask } from "./api.js";
import { choice, el, field, fill, later, select } from "./dom.js";
import { link as linkTo, show } from "./link.js";
import { grouped, readMap } from "./map_data.js";
import { textsOf } from "./map_texts.js";
import { absentModel, chosenOf, modelField, noModel } from "./models_here.js";
import { noSuchIndex, notInLink, notice, problem, waiting } from "./parts.js";
import { plane } from "./plane.js";
import { number, t } from "./texts.js";

const LINES = " lines"; // in place of an index's name, which no name begins with
const LISTED = 50; // passages of a group or a lasso
const HITS = { words: 100, auto: 20 }; // those by meaning are the nearest of all, so that few say more
const POLL_MS = 400;
const TYPING_MS = 150;
const HOVER_MS = 70;
const STEP = 40; // pixels that an arrow key moves the map

export function map(root, first, draft) {
  let state = { ...read(first), ...draft.state };
  let isRun = draft.isRun ?? Boolean(first.lines); // whether the lines are to be drawn, and not being typed
  let drawn = null; // the lines that were drawn last
  let indexes = [];
  let models = [];
  let data = null;
  let groups = [];
  let group = null;
  let wanted = state.group; // the name of a group of the link, until the map is there
  let drawing = null;
  let running = new AbortController();
  let texts = null; // of the points
  let query = null; // the box of the search
  let absent = ""; // a model that the link names and that is not here
  let isInLink = true; // whether the lines are

  const options = el("div", { class: "options" });
  const own = el("div", {});
  const said = el("p", { class: "summary", role: "status" });
  const canvas = el("canvas", { tabindex: 0, role: "img" });
  const tip = el("div", { class: "tip", hidden: true });
  const legend = el("ul", { class: "groups" });
  const listing = el("div", { class: "listing", tabindex: 0, role: "region", "aria-live": "polite", "aria-label": t("map_listed") });
  const room = el("div", { class: "plane", hidden: true }, el("div", { class: "canvas" }, canvas, tip), el("div", { class: "side" }, el("h2", {}, t("map_groups")), legend, listing));
  const trouble = el("div", {});
  fill(root, options, own, said, trouble, room);

  function draw() {
    const sources = [...indexes.map(({ name }) => [name, t("map_index", { name })]), [LINES, t("map_lines")]];
    // An index of a link that the server does not have.
    if (!sources.some(([source]) => source === state.source)) sources.unshift([state.source, t("map_index", { name: state.source })]);
    const lasso = el("button", { type: "button", class: "quiet", "aria-pressed": "false", onclick: () => toggleLasso(lasso) }, t("map_lasso"));
    fill(
      options,
      field(t("map_source"), select(t("map_source"), sources, state.source, (source) => change({ source, q: "", group: "" }))),
      choice(t("map_colour"), "colour", [["cluster", t("colour_cluster")], ["folder", t("colour_folder")]], state.colour, (colour) => {
        state.colour = colour;
        paint();
        if (state.group) pick(-1); // it is none of the groups of this colour
        link();
      }),
      field(t("map_search"), searchBox()),
      lasso,
      el("button", { type: "button", class: "quiet", onclick: () => drawing?.home() }, t("map_home")),
    );
    fill(own, state.source === LINES ? ownLines() : null);
  }

  function toggleLasso(button) {
    const isOn = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(isOn));
    drawing?.lasso(isOn);
  }

  function searchBox() {
    const box = (query = el("input", { type: "search", value: state.q }));
    const type = later(TYPING_MS, (typed) => state.q === typed && !running.signal.aborted && find("words")); // unless something else is chosen by then
    box.addEventListener("input", () => {
      state.q = box.value;
      type(state.q);
    });
    box.addEventListener("keydown", (event) => event.key === "Enter" && !event.isComposing && (link(), find("auto")));
    return box;
  }

  function ownLines() {
    const box = el("textarea", { rows: 6, spellcheck: false, oninput: () => (state.lines = box.value) });
    box.value = state.lines;
    return el(
      "div",
      {},
      el("label", { class: "field", style: { display: "flex" } }, el("span", {}, t("map_lines_label")), box),
      el(
        "div",
        { class: "options" },
        modelField(models, state.model, (model) => {
          state.model = model;
          absent = "";
          draw();
        }),
        el("button", { type: "button", class: "main", onclick: () => ((state.group = ""), link(true), make()) }, t("map_go")),
      ),
      absentModel(absent, state.model),
    );
  }

  function change(part) {
    state = { ...state, ...part };
    link(true);
    draw();
    make();
  }

  const link = (isNew = false) => (isInLink = show("map", linkOf(state), isNew));

  async function make() {
    running.abort();
    const { signal } = (running = new AbortController());
    room.hidden = true;
    fill(trouble);
    fill(said);
    data = null;
    try {
      data = state.source === LINES ? await ofLines(signal) : await ofIndex(signal);
    } catch (error) {
      if (error.name !== "AbortError") fill(said), fill(trouble, problem(error));
      return;
    }
    if (!data || signal.aborted) return;
    texts = textsOf(data, state.source);
    room.hidden = false;
    drawing ??= plane(canvas, { hover, pick, lassoed });
    canvas.setAttribute("aria-label", t("map_canvas", { n: data.n }));
    drawing.show({ x: data.x, y: data.y, n: data.n });
    const many = data.all > data.n ? t("map_sampled", { n: data.n, all: data.all }) : t("map_points", { n: data.n });
    fill(said, el("span", {}, many), data.noClusters ? el("span", {}, t("map_only_folders")) : null);
    if (!isInLink) fill(trouble, notInLink());
    paint();
    list(null);
    const at = groups.findIndex(({ name }) => name === wanted);
    wanted = "";
    if (at >= 0) chooseGroup(at);
    else if (state.q.trim()) find("auto");
  }

  async function ofLines(signal) {
    const lines = state.lines.split("\n").map((line) => line.trim()).filter(Boolean);
    drawn = state.lines;
    if (lines.length < 2) return fill(trouble, el("p", { class: "muted" }, t("map_few"))), null;
    if (!state.model) return fill(trouble, noModel(begin)), null;
    fill(said, waiting(t("map_making", { n: lines.length })));
    return readMap(await ask("/api/map", { texts: lines, model: state.model }, signal), lines);
  }

  async function ofIndex(signal) {
    const index = indexes.find(({ name }) => name === state.source);
    if (!index) return fill(trouble, noSuchIndex(state.source, indexes, (source) => linkTo("map", linkOf({ ...state, source })))), null;
    if (index.error) throw new Refused(index.error, 503);
    if (index.chunks < 2) return fill(trouble, notice(t("map_few"), el("p", {}, t("index_empty_advice")))), null;
    for (;;) {
      const found = await ask("/api/map", { index: state.source }, signal);
      if (found.status === "ready") return readMap(found);
      const part = found.total ? found.done / found.total : null;
      fill(said, waiting(`${t("map_making", { n: index.chunks })} ${t(`map_step_${found.step}`)}`), el("progress", { max: 1, value: part, "aria-label": t("map_making", { n: index.chunks }) }));
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
      signal.throwIfAborted();
    }
  }

  function paint() {
    if (!data) return;
    ({ group, groups } = grouped(data, data.clusters.length ? state.colour : "folder"));
    drawing.paint(group, groups);
    fill(
      legend,
      groups.map((each, i) =>
        el(
          "li",
          {},
          el(
            "button",
            { type: "button", "aria-pressed": String(each.name === state.group), onclick: () => chooseGroup(i) },
            el("span", { class: "dot", style: { "--dot": each.colour } }),
            el("span", { class: "what" }, el("bdi", {}, each.name), each.central ? el("bdi", { class: "central", title: t("map_central", { text: each.central }) }, each.central) : null),
            el("span", { class: "n" }, number(each.n)),
          ),
        ),
      ),
    );
  }

  const placesOf = (wanted) => Array.from({ length: data.n }, (_, i) => i).filter((i) => group[i] === wanted);

  // One selection at a time: a group, what a search found, or what a click or a lasso took.
  function selectOnly({ name = "", q = "" }) {
    Object.assign(state, { group: name, q });
    if (query.value !== q) query.value = q;
    legend.querySelectorAll("button").forEach((button, i) => button.setAttribute("aria-pressed", String(groups[i].name === name)));
    link();
  }

  function chooseGroup(i) {
    const { name } = groups[i];
    choose(placesOf(i), name, name);
  }

  function choose(places, title, name) {
    selectOnly({ name });
    drawing.light(places.length ? places : null);
    list(places, title);
  }

  const pick = (place) => (place < 0 ? (selectOnly({}), drawing.light(null), list(null)) : choose([place]));
  const lassoed = (places) => choose(places);

  // The passages of these places, their texts from the index alone.
  async function list(places, title = "") {
    if (!places?.length) return fill(listing, places ? el("p", { class: "muted" }, t("nothing_found")) : el("p", { class: "muted" }, t("map_advice")));
    const shown = places.slice(0, LISTED);
    const { signal } = running;
    fill(listing, waiting(t("loading")));
    try {
      await texts.fetched(shown, signal);
    } catch (error) {
      if (error.name !== "AbortError") fill(listing, problem(error));
      return;
    }
    fill(
      listing,
      el("h2", {}, t("map_chosen", { n: places.length })),
      title ? el("p", { class: "muted" }, title) : null,
      places.length > LISTED ? el("p", { class: "muted" }, t("map_chosen_first", { n: LISTED })) : null,
      shown.map(texts.card),
    );
  }

  let hovered = -1;
  const showTip = later(HOVER_MS, async (place) => {
    try {
      await texts.fetched([place], running.signal);
    } catch {
      return; // What is wrong with the server is said elsewhere; the name of the passage stays.
    }
    if (hovered === place) fill(tip, texts.tip(place));
  });

  function hover(place) {
    if (place === hovered) return;
    hovered = place;
    tip.hidden = place < 0;
    if (place < 0) return;
    fill(tip, texts.tip(place));
    const [x, y] = drawing.placeOf(place);
    const isRight = x > canvas.clientWidth / 2;
    const isLow = y > canvas.clientHeight / 2;
    const side = (name, value) => tip.style.setProperty(name, value);
    side("left", isRight ? "auto" : `${x + 12}px`);
    side("right", isRight ? `${canvas.clientWidth - x + 12}px` : "auto");
    side("top", isLow ? "auto" : `${y + 12}px`);
    side("bottom", isLow ? `${canvas.clientHeight - y + 12}px` : "auto");
    showTip(place);
  }

  async function find(mode) {
    const q = state.q.trim();
    if (!data) return;
    if (state.group) selectOnly({ q: state.q });
    if (!q) return drawing.light(null), list(null);
    const { signal } = running;
    try {
      const places = data.textOf ? among(q) : await searched(q, mode, signal);
      if (state.q.trim() !== q) return; // more was typed meanwhile
      drawing.light(places);
      await list(places, t("map_found", { n: places.length }));
    } catch (error) {
      if (error.name !== "AbortError") fill(listing, problem(error));
    }
  }

  const among = (q) => Array.from({ length: data.n }, (_, i) => i).filter((i) => data.textOf(i).toLowerCase().includes(q.toLowerCase()));

  async function searched(query, mode, signal) {
    const found = await ask("/api/search", { index: state.source, query, mode, k: HITS[mode], text: false }, signal);
    return found.hits.map((hit) => data.placeOf.get(hit.id)).filter((place) => place !== undefined);
  }

  function keys({ key, target }) {
    if (!drawing || target.matches?.("input, textarea, select")) return false;
    const moves = { ArrowLeft: [STEP, 0], ArrowRight: [-STEP, 0], ArrowUp: [0, STEP], ArrowDown: [0, -STEP] };
    if (key === "+" || key === "=") drawing.zoom(1.3);
    else if (key === "-") drawing.zoom(1 / 1.3);
    else if (key === "0") drawing.home();
    else if (target === canvas && key in moves) drawing.move(...moves[key]);
    else return false;
    return true;
  }

  async function begin() {
    fill(trouble, waiting(t("loading")));
    try {
      const [found, embedders] = await Promise.all([ask("/api/indexes"), chosenOf("embedding", state.model)]);
      ({ indexes } = found);
      ({ models, absent } = embedders);
      state.model = embedders.model;
    } catch (error) {
      return fill(trouble, problem(error));
    }
    fill(trouble);
    state.source ||= indexes[0]?.name ?? LINES;
    draw();
    if (state.source !== LINES || isRun) make();
  }

  begin();
  return {
    keys,
    update(parameters) {
      state = read(parameters);
      wanted = state.group;
      isRun = Boolean(parameters.lines);
      begin();
    },
    draft() {
      const { lines, ...chosen } = state;
      // The sample is not the user's, and is another one in the other language.
      return { state: lines === t("example_right") ? chosen : state, isRun: drawn === null ? isRun : drawn === lines };
    },
    close() {
      running.abort();
      drawing?.close();
    },
  };
}

function read({ index = "", lines, colour = "cluster", q = "", model = "", group = "" }) {
  const source = lines === undefined ? index : LINES;
  return { source, lines: lines ?? t("example_right"), colour: colour === "folder" ? colour : "cluster", q, model, group };
}

function linkOf({ source, lines, colour, q, model, group }) {
  const what = source === LINES ? { lines, model } : { index: source };
  return { ...what, colour: colour === "cluster" ? "" : colour, q, group };
}
