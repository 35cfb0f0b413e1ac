// The page: which view is shown, which model answers, and what its score is not.

import { askJson, reason } from "/page/ask.js";
import { startClip } from "/page/clip.js";
import { startLesson } from "/page/lesson.js";
import { startLive } from "/page/live.js";

const part = (id) => document.getElementById(id);
const VIEWS = ["clip", "live", "lesson"];
const views = {};
let shown = "";

function show(name, { moveFocus }) {
  if (shown && shown !== name) views[shown]?.leave?.();
  shown = name;
  for (const view of VIEWS) part(`view-${view}`).hidden = view !== name;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  views[name]?.enter?.();
  if (moveFocus) part(`${name}-title`).focus();
}

function wanted() {
  const name = location.hash.slice(1);
  return VIEWS.includes(name) ? name : shown || VIEWS[0]; // #main is the skip link
}

function showModel(model) {
  const version = model.version ? `, version ${model.version}` : "";
  const reads = model.reads.map((input) => (input === "frames" ? `${model.num_frames} frames` : input)).join(", ");
  part("model").textContent = `Model ${model.name}${version}: reads ${reads} of a clip, levels ${model.levels.join(", ")}.`;
  part("limits").textContent = model.limits;
  if (model.notice) {
    part("notice").textContent = `What this model was trained on: ${model.notice}.`;
    part("notice").hidden = false;
  }
  const guess = `guessing gets ${(1 / model.levels.length).toFixed(2)}`;
  const figure = (value) => (value === null ? "not measured" : `${value.toFixed(2)} (${guess})`);
  const facts = {
    recipe: model.recipe,
    "trained on": model.dataset === "simulated" ? "simulated people" : model.dataset,
    "balanced accuracy, validation": figure(model.validation_balanced_accuracy),
    "balanced accuracy, test": figure(model.test_balanced_accuracy),
    "data version": model.data_digest.slice(0, 16),
    "training run": model.run_id,
  };
  part("card").replaceChildren(
    ...Object.entries(facts).map(([name, value]) => {
      const entry = document.createElement("div");
      entry.append(
        Object.assign(document.createElement("dt"), { textContent: name }),
        Object.assign(document.createElement("dd"), { textContent: value }),
      );
      return entry;
    }),
  );
}

window.addEventListener("hashchange", () => {
  if (location.hash !== "#main") show(wanted(), { moveFocus: true });
});
show(wanted(), { moveFocus: false });

async function start() {
  try {
    const model = await askJson("/v1/model");
    showModel(model);
    Object.assign(views, { clip: startClip(model), live: startLive(model), lesson: startLesson() });
    views[shown].enter?.();
    document.documentElement.dataset.ready = "";
  } catch (error) {
    part("model").textContent = `The model does not answer: ${reason(error)} Reload the page to ask again.`;
  }
}
start();
