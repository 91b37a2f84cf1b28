// The tab `models`: what is in memory, on this machine and to be had, how busy the server is, and lines to use a model.

import { ask, askText, hasKey } from "./api.js";
import { el, fill } from "./dom.js";
import { show } from "./link.js";
import { code, plainName, problem, pullButton, waiting } from "./parts.js";
import { bytes, number, t } from "./texts.js";

const EVERY_MS = 2000;
const REMEMBERED = 60; // rates that the small line shows
// Ollama's list has a date some centuries away for a model that stays; nothing else is more than this away.
const FOR_EVER_MIN = 60 * 24 * 365;

export function models(root, first) {
  let chosen = first.model ?? "";
  let counted = null;
  let installed = []; // the models on this machine
  let inMemory = new Set(); // names of those that are loaded
  let timer = 0;
  let isOpen = true;
  const rates = [];
  const pulls = new Map(); // the buttons by model: a pull that runs stays when the list is drawn anew

  const tiles = el("dl", { class: "tiles" });
  const loaded = el("div", { class: "wide", tabindex: 0, role: "region", "aria-label": t("loaded") });
  const here = el("div", { class: "wide", tabindex: 0, role: "region", "aria-label": t("installed") });
  const lines = el("div", { class: "lines" });
  const catalog = el("div", { class: "wide", tabindex: 0, role: "region", "aria-label": t("to_pull") });
  const trouble = el("div", {});
  fill(root, trouble, tiles, el("h2", {}, t("loaded")), loaded, el("h2", {}, t("installed")), here, lines, el("h2", {}, t("to_pull")), catalog);
  fill(here, waiting(t("loading")));

  // Counters come each few seconds, while the page can be seen. Lists come once, and again when they have changed.
  async function tick() {
    clearTimeout(timer);
    if (!document.hidden) await Promise.all([count(), drawLoaded()]).catch(failed);
    if (isOpen) timer = setTimeout(tick, EVERY_MS);
  }

  function failed(error) {
    if (!isOpen) return;
    fill(trouble, problem(error));
    if (!installed.length) fill(here); // nothing comes until it is asked for again
  }

  async function count() {
    const found = read(await askText("/metrics"));
    const at = performance.now();
    const tokens = found.q3e_computed_tokens_total ?? 0;
    if (counted && at > counted.at) rates.push((1000 * Math.max(0, tokens - counted.tokens)) / (at - counted.at));
    counted = { at, tokens };
    rates.splice(0, rates.length - REMEMBERED);
    const cached = found.q3e_cached_texts_total ?? 0;
    const all = cached + (found.q3e_computed_texts_total ?? 0) + (found.q3e_shared_texts_total ?? 0);
    const memory = Object.entries(found).reduce((sum, [name, value]) => sum + (name.startsWith("q3e_model_bytes") ? value : 0), 0);
    fill(
      tiles,
      tile(t("tokens_now"), number(rates.at(-1) ?? 0, 0), t("tokens_sum", { n: tokens }), sparkline(rates)),
      tile(t("queue"), number(found.q3e_queue_length ?? 0), t("requests")),
      tile(t("cache_hits"), all ? `${number((100 * cached) / all, 0)} %` : "—", t("cache_of", { n: cached, all })),
      tile(t("memory_sum"), bytes(memory), t("models_of", { n: found.q3e_loaded_models ?? 0 })),
    );
  }

  async function drawLoaded() {
    const { models: found } = await ask("/api/ps");
    const names = new Set(found.map(({ name }) => name));
    const isChanged = names.size !== inMemory.size || [...names].some((name) => !inMemory.has(name));
    inMemory = names;
    if (isChanged && installed.length) drawInstalled();
    if (!found.length) return fill(loaded, el("p", { class: "muted cell" }, t("loaded_none")));
    const rows = found.map((model) => [
      plainName(model.name),
      t(`kind_${model.capabilities[0]}`),
      bytes(model.size),
      number(model.context_length),
      until(model.expires_at),
      action(t("unload"), model.name, 0),
    ]);
    fill(loaded, table(["name", "kind", "memory", "context_length", "until"], rows));
  }

  async function drawHere() {
    ({ models: installed } = await ask("/api/tags"));
    drawInstalled();
    const model = installed.find(({ name }) => plainName(name) === chosen) ?? installed[0];
    if (model) drawLines(model);
  }

  function drawInstalled() {
    const rows = installed.map((model) => [
      plainName(model.name),
      t(`kind_${model.capabilities[0]}`),
      model.details.parameter_size,
      model.details.quantization_level,
      bytes(model.size),
      el(
        "span",
        {},
        el("button", { type: "button", class: "quiet", "aria-label": t("use_it", { model: plainName(model.name) }), onclick: () => choose(model) }, t("show_lines")),
        inMemory.has(model.name) ? el("span", { class: "muted" }, t("is_loaded")) : action(t("load"), model.name, undefined),
      ),
    ]);
    fill(here, table(["name", "kind", "parameters", "quantization", "size"], rows));
  }

  async function drawCatalog() {
    const { models: found } = await ask("/q3e/catalog");
    const rows = found.map((model) => [
      el("span", { title: model.description }, model.name),
      t(`kind_${model.kind}`),
      model.quantization,
      bytes(model.download_bytes),
      model.license,
      model.is_here ? el("span", { class: "muted" }, t("is_here")) : pullOf(model.name),
    ]);
    fill(catalog, table(["name", "kind", "quantization", "download", "licence"], rows));
  }

  function pullOf(name) {
    if (!pulls.has(name)) pulls.set(name, pullButton(name, () => (pulls.delete(name), lists())));
    return pulls.get(name);
  }

  const lists = () => Promise.all([drawHere(), drawCatalog()]).catch(failed);

  function choose(model) {
    chosen = plainName(model.name);
    show("models", { model: chosen }, true);
    drawLines(model);
    lines.scrollIntoView({ block: "nearest" });
  }

  function drawLines(model) {
    const name = plainName(model.name);
    const written = linesFor(name, model.capabilities[0]);
    fill(
      lines,
      el("h2", {}, t("use_it", { model: name })),
      written.map(([title, text]) => [el("h3", {}, t(title)), code(text)]).flat(),
    );
  }

  // A button that loads a model, or unloads it with a time of 0.
  function action(label, model, keep_alive) {
    const button = el("button", { type: "button", class: "quiet", "aria-label": `${label} ${plainName(model)}`, onclick: run }, label);
    async function run() {
      button.disabled = true;
      button.textContent = t("busy");
      fill(trouble); // what went wrong before
      try {
        await ask("/api/generate", { model, keep_alive });
        await drawLoaded();
      } catch (error) {
        failed(error);
      }
      button.disabled = false;
      button.textContent = label;
    }
    return button;
  }

  tick();
  lists();
  return {
    update(parameters) {
      chosen = parameters.model ?? "";
      lists();
    },
    close() {
      isOpen = false;
      clearTimeout(timer);
    },
  };
}

const tile = (name, value, more, drawing) =>
  el("div", { class: "tile" }, el("dt", {}, name), el("dd", { class: "value" }, value), el("dd", { class: "muted" }, more), drawing ? el("dd", {}, drawing) : null);

function sparkline(rates) {
  const most = Math.max(1, ...rates);
  const points = rates.map((rate, i) => `${(100 * i) / Math.max(1, rates.length - 1)},${20 - (19 * rate) / most}`).join(" ");
  return el("svg", { viewBox: "0 0 100 21", preserveAspectRatio: "none", "aria-hidden": "true" }, el("polyline", { points }));
}

// With roles, because a small screen shows each row as a card, and a browser may then not take it for a table.
function table(names, rows) {
  const cellOf = (cell, label) => el("td", { role: "cell", class: label ? null : "do", "data-label": label }, cell);
  return el(
    "table",
    { role: "table" },
    el(
      "thead",
      { role: "rowgroup" },
      el("tr", { role: "row" }, names.map((name) => el("th", { role: "columnheader", scope: "col" }, t(name))), el("td", { role: "cell" })),
    ),
    el(
      "tbody",
      { role: "rowgroup" },
      rows.map(([name, ...cells]) =>
        el("tr", { role: "row" }, el("th", { role: "rowheader", scope: "row" }, name), cells.map((cell, i) => cellOf(cell, names[i + 1] && t(names[i + 1])))),
      ),
    ),
  );
}

function until(moment) {
  const minutes = (Date.parse(moment) - Date.now()) / 60_000;
  if (!(minutes < FOR_EVER_MIN)) return t("until_never");
  return t("until_in", { minutes: number(Math.max(0, minutes), 0) });
}

// The numbers of Prometheus' text format, by their names with their labels.
function read(text) {
  const found = {};
  for (const line of text.split("\n")) {
    const match = /^([a-z_]\S*(?: \S+=".*"})?) (\S+)$/.exec(line);
    if (match) found[match[1]] = Number(match[2]);
  }
  return found;
}

// Lines that use the model on this very server; where it asks for a key, they take it from the environment.
function linesFor(model, capability) {
  const here = location.origin;
  const isAsked = hasKey();
  const header = isAsked ? ' -H "Authorization: Bearer $Q3E_API_KEY"' : "";
  const key = isAsked ? 'os.environ["Q3E_API_KEY"]' : '"none"';
  const imported = isAsked ? "import os\n" : "";
  if (capability === "rerank") {
    const body = JSON.stringify({ model, query: "Why is the sky blue?", documents: ["Air scatters blue light.", "Grass is green."] });
    const headers = isAsked ? `, headers={"Authorization": f"Bearer {${key}}"}` : "";
    return [
      ["for_curl", `curl${header} ${here}/api/rerank -d '${body}'`],
      ["for_python", `${imported}import httpx\n\nhttpx.post("${here}/api/rerank", json=${body}${headers}).json()`],
    ];
  }
  const headers = isAsked ? `, headers={"Authorization": f"Bearer {${key}}"}` : "";
  return [
    ["for_curl", `curl${header} ${here}/api/embed -d '${JSON.stringify({ model, input: "Why is the sky blue?" })}'`],
    ["for_python", `${imported}from openai import OpenAI\n\nOpenAI(base_url="${here}/v1", api_key=${key}).embeddings.create(model="${model}", input=["a text"])`],
    ["for_ollama", `${imported}import ollama\n\nollama.Client(host="${here}"${headers}).embed(model="${model}", input="a text")`],
  ];
}
