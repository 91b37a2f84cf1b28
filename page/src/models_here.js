// The choice of a model that tabs have, and what stands in its place where there is none.

import { el, field, fill, select } from "./dom.js";
import { modelsOf, notice, pullButton } from "./parts.js";
import { t } from "./texts.js";

// What the pull of a first model offers: a model for trying out is never among them, because it ships with the program.
const FIRST = "qwen3-embedding:0.6b";

// The models of a kind, with the chosen one among them or the first; `absent` is a chosen one that is not among them.
export async function chosenOf(capability, chosen) {
  const models = await modelsOf(capability);
  const isHere = models.includes(chosen);
  return { models, model: isHere ? chosen : (models[0] ?? ""), absent: isHere ? "" : chosen };
}

export const absentModel = (absent, model) => (absent ? el("p", { class: "muted", role: "status" }, t("model_absent", { absent, model })) : null);

export const modelField = (models, model, onchange, label = t("model")) =>
  field(label, select(label, models.map((name) => [name, name]), model, onchange));

export const noModel = (done) =>
  notice(t("no_embedder"), el("p", {}, t("no_embedder_advice")), el("p", {}, el("code", {}, FIRST), " ", pullButton(FIRST, done)));

// The instruction of queries: a named task, or words of the user's own.
export function instructionFields(state, onchange) {
  const room = el("div", { class: "options" });
  const draw = () =>
    fill(
      room,
      field(
        t("task"),
        select(t("task"), [...TASKS.map((task) => [task, task]), ["own", t("task_own")]], state.task, (task) => {
          Object.assign(state, { task });
          draw();
          onchange();
        }),
      ),
      state.task === "own" ? field(t("instruction"), ownInstruction(), { class: "field long" }) : null,
    );
  function ownInstruction() {
    const box = el("input", { type: "text", value: state.instruction, onchange: () => ((state.instruction = box.value), onchange()) });
    return box;
  }
  draw();
  return room;
}

const TASKS = ["retrieval", "code", "sts", "classification", "clustering", "bitext"];

// The fields of a request for that instruction. Without an instruction of their own, documents get what the task says.
export function instructed({ task, instruction }) {
  if (task !== "own") return { task };
  return instruction.trim() ? { instruction: instruction.trim() } : {};
}
