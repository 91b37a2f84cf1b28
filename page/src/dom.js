// Elements and the texts in them. Texts become text nodes, so nothing from a document is ever read as HTML.

// An element. Of the properties, `class` is the class, functions are listeners under their event's name (`onclick`),
// `style` sets CSS variables, and the rest are attributes; what is null, undefined or false is left out.
export function el(name, properties = {}, ...children) {
  const element = document.createElementNS(SVG.has(name) ? "http://www.w3.org/2000/svg" : XHTML, name);
  for (const [key, value] of Object.entries(properties ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(key.slice(2), value);
    else if (key === "style") for (const [part, text] of Object.entries(value)) element.style.setProperty(part, text);
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

const XHTML = "http://www.w3.org/1999/xhtml";
const SVG = new Set(["svg", "rect", "polyline", "line", "path"]);

export const fill = (element, ...children) =>
  element.replaceChildren(...children.flat().filter((child) => child !== null && child !== undefined));

// A choice from a list of [value, label].
export function select(label, options, value, onchange, properties = {}) {
  const list = el(
    "select",
    { "aria-label": label, onchange: () => onchange(list.value), ...properties },
    options.map(([each, shown]) => el("option", { value: each, selected: each === value }, shown)),
  );
  return list;
}

// One of a few choices, side by side. Arrow keys move between them, because they are radio buttons.
export function choice(label, name, options, value, onchange) {
  return el(
    "fieldset",
    { class: "choice" },
    el("legend", { class: "hidden" }, label),
    options.map(([each, shown]) =>
      el(
        "label",
        {},
        el("input", { type: "radio", name, value: each, checked: each === value, onchange: () => onchange(each) }),
        el("span", {}, shown),
      ),
    ),
  );
}

export const field = (label, control, properties = {}) =>
  el("label", { class: "field", ...properties }, el("span", {}, label), control);

// Runs the last call alone, once no other has come for a while.
export function later(milliseconds, work) {
  let timer = 0;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => work(...given), milliseconds);
  };
}
