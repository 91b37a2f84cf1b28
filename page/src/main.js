// The page's frame: tabs, language, keys, and what is shown while the server does not answer.

import { around, askText } from "./api.js";
import { compare } from "./compare.js";
import { el, fill } from "./dom.js";
import { askForKey, isTyping, listKeys } from "./keys.js";
import { TABS, lastOf, link, linked, visited } from "./link.js";
import { look } from "./look.js";
import { map } from "./map.js";
import { models } from "./models.js";
import { search } from "./search.js";
import { language, setLanguage, t, tag } from "./texts.js";

// A tab is a function of its root, its parameters and the draft that it left when it was shown last. It answers
// `update(parameters)` for a link within the tab, `keys(event)`, `draft()` with what its address does not hold, and
// `close()`, each where it has any.
const VIEWS = { search, compare, look, map, models };
const AGAIN_MS = 1000;

const app = document.getElementById("app");
const main = el("main", { id: "main", tabindex: -1 });
const banner = el("div", { class: "banner", role: "status", hidden: true });
const nav = el("nav");
const drafts = new Map(); // by tab: its draft, and the address that the draft belongs to
let shown = { tab: null, view: {} };

function frame() {
  document.title = `${t(`tab_${linked().tab}`)} · q3e-local`;
  fill(
    nav,
    TABS.map((tab) => el("a", { href: lastOf(tab), "aria-current": tab === shown.tab ? "page" : null, onclick: (event) => tab === shown.tab && event.preventDefault() }, t(`tab_${tab}`))),
  );
  nav.setAttribute("aria-label", t("tabs"));
}

function build() {
  document.documentElement.lang = tag();
  const other = language === "zh" ? "en" : "zh";
  fill(
    app,
    el("a", { class: "skip", href: "#main", onclick: (event) => (event.preventDefault(), main.focus()) }, t("skip")),
    el(
      "header",
      {},
      el("a", { class: "brand", href: link("search") }, "q3e-local"),
      nav,
      el(
        "div",
        { class: "tools" },
        el("button", { type: "button", class: "quiet", lang: other === "zh" ? "zh-CN" : "en", onclick: () => (leave(), setLanguage(other), build()) }, other === "zh" ? "中文" : "English"),
        el("button", { type: "button", class: "quiet", onclick: listKeys, "aria-label": t("keys") }, "?"),
      ),
    ),
    banner,
    main,
  );
  route();
}

// Ends the tab that is shown, and keeps what was typed there.
function leave() {
  if (!shown.tab) return;
  drafts.set(shown.tab, { address: lastOf(shown.tab), draft: shown.view.draft?.() });
  shown.view.close?.();
  shown = { tab: null, view: {} };
}

// Shows what the address names. Within a tab the tab itself changes, so that what was typed and found stays. Another
// tab gets its draft back where the address is the one that it was left at.
function route() {
  const { tab, parameters } = linked();
  if (tab !== shown.tab) leave();
  visited(tab);
  if (tab === shown.tab && shown.view.update) return shown.view.update(parameters);
  const kept = drafts.get(tab);
  const root = el("div", { class: `tab ${tab}` });
  shown = { tab, view: {} };
  fill(main, el("h1", { class: "hidden" }, t(`tab_${tab}`)), root);
  shown.view = VIEWS[tab](root, parameters, (kept?.address === lastOf(tab) && kept.draft) || {}) ?? {};
  frame();
}

let isAway = false;

// Says that the server does not answer, asks until it does, and then shows the tab anew.
async function gone() {
  if (isAway) return;
  isAway = true;
  banner.hidden = false;
  banner.textContent = t("gone_waiting");
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
    const response = await fetch("/health").catch(() => null);
    if (response?.ok) break;
  }
  isAway = false;
  banner.hidden = true;
  leave();
  route();
}

Object.assign(around, { askForKey, gone });

addEventListener("popstate", route);
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (event.key === "Escape" && isTyping(event.target)) return event.target.blur();
  if (shown.view.keys?.(event)) return event.preventDefault();
  if (isTyping(event.target)) return;
  const tab = TABS[Number(event.key) - 1];
  if (event.key === "?") listKeys();
  else if (event.key === "/") main.querySelector("input[type=search], textarea")?.focus();
  else if (tab) tab !== shown.tab && (location.hash = lastOf(tab));
  else return;
  event.preventDefault();
});

build();
// A server that wants a key is asked at once, so that the question comes before anything is typed.
askText("/api/version").catch(() => {});
