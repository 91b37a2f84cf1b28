// What the page keeps in the browser: a key for the tab, the language for later visits. A browser may refuse to keep
// anything for a page; then it lasts until the page is closed.

function shelf(area) {
  const held = new Map();
  return {
    // The text that was kept under this name, or null.
    get(name) {
      try {
        return held.get(name) ?? window[area].getItem(name);
      } catch {
        return null;
      }
    },
    put(name, text) {
      held.set(name, text);
      try {
        window[area].setItem(name, text);
      } catch {
        // `held` has it.
      }
    },
  };
}

export const forTab = shelf("sessionStorage");
export const forVisits = shelf("localStorage");
