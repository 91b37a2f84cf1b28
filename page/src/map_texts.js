// The texts of a map's points, which come from the index when they are wanted, and how a passage looks in a list and
// in the tip under the mouse.

import { ask } from "./api.js";
import { el } from "./dom.js";
import { placeOf } from "./parts.js";
import { t } from "./texts.js";

const LISTED = 1500; // characters in a list
const TIP = 320; // characters under the mouse

// For the map `data` of an index, or of lines, which have their texts already.
export function textsOf(data, index) {
  const known = new Map();

  // Has the texts of these places come. Raises what `ask` raises.
  async function fetched(places, signal) {
    const missing = places.filter((place) => !known.has(place));
    if (data.textOf) {
      for (const place of missing) known.set(place, { text: data.textOf(place), page: null, line: null, last_line: null, headings: [] });
    } else if (missing.length) {
      const found = await ask("/api/passages", { index, ids: missing.map(data.idOf) }, signal);
      for (const each of found.passages) known.set(data.placeOf.get(each.id), each);
    }
  }

  // The name of a passage's file, or its id.
  function nameOf(place) {
    return data.files && data.fileOf[place] >= 0 ? data.files[data.fileOf[place]].split(/[/\\]/).at(-1) : data.idOf(place);
  }

  function card(place) {
    const found = known.get(place);
    return el(
      "div",
      { class: "passage" },
      el("bdi", { class: "place" }, [nameOf(place), found && placeOf(found)].filter(Boolean).join(" · ")),
      el("p", { class: "text", dir: "auto" }, (found?.text ?? t("passage_gone")).slice(0, LISTED)),
    );
  }

  function tip(place) {
    const text = known.get(place)?.text ?? "";
    return [el("bdi", { class: "place muted" }, nameOf(place)), el("p", { dir: "auto" }, text.length > TIP ? `${text.slice(0, TIP)}…` : text)];
  }

  return { fetched, card, tip };
}
