"use strict";

const part = (id) => document.getElementById(id);
const percent = (share) => `${(100 * share).toFixed(1)} %`;
let clip = null; // the one shown
let latest = 0; // only the clip chosen last is shown, however the answers arrive

async function showModel() {
  const answer = await fetch("/v1/model");
  const model = await answer.json();
  const version = model.version ? `, version ${model.version}` : "";
  const reads = model.reads.map((input) => (input === "frames" ? `${model.num_frames} frames` : input)).join(", ");
  part("model").textContent = `Model ${model.name}${version}: reads ${reads} of a clip, levels ${model.levels.join(", ")}.`;
  part("words").hidden = !model.reads.includes("speech");
  part("limits").textContent = model.limits;
  if (model.notice) {
    part("notice").textContent = `What this model was trained on: ${model.notice}.`;
    part("notice").hidden = false;
  }
}

function showAnswer(answer) {
  part("level").textContent = answer.level;
  part("score").textContent = `score ${answer.score.toFixed(2)}`;
  part("marker").style.left = `${50 * (answer.score + 1)}%`;
  const rows = Object.entries(answer.probabilities).map(([level, share]) => {
    const row = document.createElement("tr");
    const name = row.insertCell();
    name.textContent = level;
    row.insertCell().textContent = percent(share);
    const bar = document.createElement("progress");
    bar.max = 1;
    bar.value = share;
    bar.setAttribute("aria-label", `${level}: ${percent(share)}`);
    row.insertCell().append(bar);
    return row;
  });
  part("probabilities").replaceChildren(...rows);
  const { decode_ms: decode, model_ms: model } = answer.timings;
  const used = [...(answer.frames_used ? [`${answer.frames_used} frames`] : []), ...answer.features_used].join(", ");
  const without = Object.entries(answer.lacking).map(([name, why]) => ` Without ${name}: ${why}.`).join("");
  part("details").textContent =
    `${used} of ${answer.duration_s.toFixed(1)} s; decoded in ${decode.toFixed(0)} ms, scored in ${model.toFixed(0)} ms.${without}`;
  part("answer").hidden = false;
}

async function score(file) {
  const mine = ++latest;
  const status = part("status");
  const preview = part("preview");
  part("answer").hidden = true;
  status.className = "";
  status.textContent = `Scoring ${file.name}…`;
  if (preview.src) URL.revokeObjectURL(preview.src);
  preview.src = URL.createObjectURL(file);
  preview.hidden = false;
  preview.onerror = () => { preview.hidden = true; }; // a browser shows fewer formats than Rapt reads
  const form = new FormData();
  form.append("clip", file);
  const [words] = part("transcript").files;
  if (words) form.append("transcript", words);
  try {
    const reply = await fetch("/v1/score", { method: "POST", body: form });
    const content = await reply.json();
    if (mine !== latest) return;
    if (!reply.ok) throw new Error(content.error || `The endpoint answered ${reply.status}.`);
    if (content.status === "no_face") {
      status.textContent = `${file.name}: nobody's face is in view, so there is no score.`;
      return;
    }
    status.textContent = `${file.name}:`;
    showAnswer(content);
  } catch (error) {
    if (mine !== latest) return;
    status.className = "failed";
    status.textContent = error.message;
  }
}

function choose(file) {
  if (clip) part("transcript").value = ""; // it was of the clip before
  clip = file;
  score(clip);
}

part("file").addEventListener("change", (event) => {
  if (event.target.files.length) choose(event.target.files[0]);
});
part("transcript").addEventListener("change", () => {
  if (clip) score(clip);
});
const drop = part("drop");
for (const name of ["dragenter", "dragover"]) {
  drop.addEventListener(name, (event) => { event.preventDefault(); drop.classList.add("over"); });
}
for (const name of ["dragleave", "drop"]) drop.addEventListener(name, () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => {
  event.preventDefault();
  if (event.dataTransfer.files.length) choose(event.dataTransfer.files[0]);
});
showModel().catch(() => { part("model").textContent = "The model does not answer; reload the page."; });
