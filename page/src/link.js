// The state of the page as a link: `#/search?q=budget&index=notes`. Knows addresses; nothing of what they mean.

export const TABS = ["search", "compare", "look", "map", "models"];

// The tab and its parameters that the address names.
export function linked() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?", 2);
  const tab = TABS.includes(path) ? path : "search";
  return { tab, parameters: Object.fromEntries(new URLSearchParams(query ?? "")) };
}

export function link(tab, parameters = {}) {
  const kept = Object.entries(parameters).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const query = new URLSearchParams(kept).toString();
  return `#/${tab}${query ? `?${query}` : ""}`;
}

// Puts the state into the address: a new entry of the history for a question, else in place of the last one.
export function show(tab, parameters, isNew = false) {
  const address = link(tab, parameters);
  if (address === location.hash) return;
  history[isNew ? "pushState" : "replaceState"](null, "", address);
}
