// Keys that work on the whole page, the list of all keys, and the question for the server's key.

import { el } from "./dom.js";
import { t } from "./texts.js";

const KEYS = [
  ["/", "key_focus"],
  ["Enter", "key_ask"],
  ["↓ ↑", "key_walk"],
  ["o", "key_context"],
  ["w", "key_why"],
  ["c", "key_copy"],
  ["1 … 5", "key_tabs"],
  ["← ↑ ↓ →", "key_move"],
  ["+ − 0", "key_zoom"],
  ["?", "key_help"],
];

export const isTyping = (target) => target instanceof Element && target.matches("input:not([type=radio], [type=checkbox], [type=range]), textarea, select");

export function listKeys() {
  const dialog = el(
    "dialog",
    { class: "sheet", "aria-label": t("keys"), onclose: () => dialog.remove() },
    el("h2", {}, t("keys")),
    el("dl", {}, KEYS.map(([key, text]) => el("div", {}, el("dt", {}, key.split(" ").map((each) => (each === "…" ? "…" : el("kbd", {}, each)))), el("dd", {}, t(text))))),
    el("button", { type: "button", onclick: () => dialog.close() }, t("close")),
  );
  document.body.append(dialog);
  dialog.showModal();
}

// Asks for the server's key: the key, or null where the user gave none.
export function askForKey(wasWrong) {
  return new Promise((answer) => {
    const input = el("input", { type: "password", autocomplete: "off", required: true, id: "key" });
    const given = () => input.value.trim() && dialog.close(input.value.trim());
    const dialog = el(
      "dialog",
      {
        class: "sheet",
        "aria-label": t("key_title"),
        onclose: () => {
          dialog.remove();
          answer(dialog.returnValue || null);
        },
      },
      el("h2", {}, t("key_title")),
      el("p", {}, wasWrong ? t("key_wrong") : t("key_why_asked")),
      el("label", { class: "field", for: "key" }, el("span", {}, t("key_label"))),
      input,
      el("button", { type: "button", class: "main", onclick: given }, t("key_send")),
    );
    input.addEventListener("keydown", (event) => event.key === "Enter" && given());
    document.body.append(dialog);
    dialog.showModal();
  });
}
