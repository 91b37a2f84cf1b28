// The page's own words, in the language of the browser or the one that the user switched to.

import { forVisits } from "./kept.js";
import en from "./texts/en.json";
import zh from "./texts/zh.json";

const TABLES = { en, zh };
const KEPT = "q3e-language";

function chosen() {
  const kept = forVisits.get(KEPT);
  if (kept in TABLES) return kept;
  return navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en";
}

export let language = chosen();

export const tag = () => (language === "zh" ? "zh-CN" : "en");

// Switches to a language, for the next visits too.
export function setLanguage(name) {
  language = name;
  forVisits.put(KEPT, name);
}

// The text of a key, with {names} filled in. A list has the text for one and the text for any other number `n`.
export function t(key, values = {}) {
  const found = TABLES[language][key];
  const text = Array.isArray(found) ? found[values.n === 1 ? 0 : 1] : found;
  return text.replace(/\{(\w+)\}/g, (_, name) =>
    typeof values[name] === "number" ? number(values[name]) : String(values[name]),
  );
}

export const number = (value, digits) =>
  value.toLocaleString(tag(), {
    minimumFractionDigits: digits ?? 0,
    maximumFractionDigits: digits ?? 3,
  });

export function bytes(n) {
  for (const [unit, size] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]]) {
    if (n >= size) return `${number(n / size, n >= 100 * size ? 0 : 1)} ${unit}`;
  }
  return `${number(n)} B`;
}
