// The state of the page as a link: `#/search?q=budget&index=notes`. Knows addresses; nothing of what they mean.

const LENGTH_MAX = 30_000; // longer addresses are cut by browsers and chats
const TEXTS = ["text", "left", "right", "lines"]; // parameters of any length

export const TABS = ["search", "compare", "look", "map", "models"];

// The tab and its parameters that the address names.
export function linked() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?", 2);
  const tab = TABS.includes(path) ? path : "search";
  return { tab, parameters: Object.fromEntries(new URLSearchParams(query ?? "")) };
}

const last = new Map(); // the address that each tab had last

// The link that leads back to a tab as it was left.
export const lastOf = (tab) => last.get(tab) ?? link(tab);

// Notes that a tab is shown at the address that stands there now.
export const visited = (tab) => last.set(tab, location.hash || link(tab));

export function link(tab, parameters = {}) {
  const kept = Object.entries(parameters).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const query = new URLSearchParams(kept).toString();
  return `#/${tab}${query ? `?${query}` : ""}`;
}

// Puts the state into the address: a new entry of the history for a question, else in place of the last one. Texts that
// would make it too long are left out: whether all of them are in it.
export function show(tab, parameters, isNew = false) {
  const whole = link(tab, parameters);
  const isWhole = whole.length <= LENGTH_MAX;
  const address = isWhole ? whole : link(tab, Object.fromEntries(Object.entries(parameters).filter(([name]) => !TEXTS.includes(name))));
  if (address !== location.hash) history[isNew ? "pushState" : "replaceState"](null, "", address);
  visited(tab);
  return isWhole;
}
