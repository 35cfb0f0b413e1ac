// One clip: chosen or dropped, scored, and shown with what the score rests on.

import { ask, reason } from "/page/ask.js";
import { chooseMoment, offerLook } from "/page/look.js";
import { drawScale, drawTimeline, levelClass, percent } from "/page/timeline.js";

const part = (id) => document.getElementById(id);

/** Take clips for this model. */
export function startClip(model) {
  let clip = null; // the one shown
  let latest = 0; // only the clip chosen last is shown, however the answers arrive
  part("words").hidden = !model.reads.includes("speech");

  async function score(file) {
    const mine = ++latest;
    say(`Scoring ${file.name}…`);
    for (const id of ["clip-answer", "clip-windows", "look", "clip-level"]) part(id).hidden = true;
    part("clip-details").textContent = "";
    showVideo(part("clip-video"), file, (plays) => { part("clip-unplayable").hidden = plays; });
    const form = new FormData();
    form.append("clip", file);
    const [words] = part("transcript").files;
    if (words) form.append("transcript", words);
    try {
      const answer = await (await ask("/v1/score", { method: "POST", body: form })).json();
      if (mine !== latest) return;
      showAnswer(file, answer, answer.model ?? model); // another may have taken its place since the page was opened
    } catch (error) {
      if (mine === latest) say(unusable(file, error), { failed: true });
    }
  }

  function choose(file) {
    if (clip) part("transcript").value = ""; // it was of the clip before
    clip = file;
    score(clip);
  }

  takeFiles(part("clip-drop"), part("clip-file"), choose);
  part("transcript").addEventListener("change", () => {
    if (clip) score(clip);
  });
  return {};
}

/** Hand on a file that was chosen in `input` or dropped on `drop`. */
export function takeFiles(drop, input, take) {
  input.addEventListener("change", () => {
    if (input.files.length) take(input.files[0]);
  });
  for (const name of ["dragenter", "dragover"]) {
    drop.addEventListener(name, (event) => { event.preventDefault(); drop.classList.add("over"); });
  }
  for (const name of ["dragleave", "drop"]) drop.addEventListener(name, () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    if (event.dataTransfer.files.length) take(event.dataTransfer.files[0]);
  });
}

/** Show a file in a video element; told(plays) whether this browser can, for it plays fewer formats than Rapt reads. */
export function showVideo(video, file, told) {
  if (video.src) URL.revokeObjectURL(video.src);
  video.onerror = () => { video.hidden = true; told(false); };
  video.onloadeddata = () => {
    video.hidden = video.videoWidth === 0; // a file whose sound alone is known here
    told(!video.hidden);
  };
  video.src = URL.createObjectURL(file);
}

/** An answer in one sentence, and its level, or null where it has none. */
export function answerWords(answer) {
  switch (answer.status) {
    case "scored": return { sentence: "", level: answer.level };
    case "unsure": return { sentence: "The model cannot tell: every level is still possible.", level: "unsure" };
    case "no_face": return { sentence: "Nobody's face is in view, so there is no score.", level: null };
    case "camera_off": return { sentence: "The camera is off: the picture is black, one colour, or a still tile.", level: null };
    case "too_short": {
      const least = answer.min_duration_s;
      return { sentence: `Too short: ${answer.duration_s.toFixed(1)} s. At least ${least} s are needed for a score.`, level: null };
    }
    default: return { sentence: `The service answered '${answer.status}', which this page does not know; reload it.`, level: null };
  }
}

/** Why there is no answer. The service never learns a file's name, and says `clip` of one that it cannot read. */
function unusable(file, error) {
  const why = reason(error);
  return why.startsWith("clip: ") ? `${file.name}: ${why.slice("clip: ".length)}. Save or record it again, for example as MP4.` : why;
}

function say(sentence, { failed = false } = {}) {
  part("clip-status").textContent = sentence;
  part("clip-status").classList.toggle("failed", failed);
}

function showAnswer(file, answer, model) {
  const { sentence, level } = answerWords(answer);
  say(sentence ? `${file.name}: ${sentence}` : file.name);
  part("clip-level").textContent = level ?? "";
  part("clip-level").hidden = level === null;
  if (answer.probabilities) {
    drawScale(part("clip-scale"), answer.score ?? null, answer.interval ?? null);
    showChances(answer, model.levels);
    part("clip-answer").hidden = false;
  }
  part("clip-details").textContent = details(answer);
  part("clip-status").closest("section").scrollIntoView({ block: "nearest" }); // on a phone it is below the clip
  if (answer.timeline?.length > 1) showTimeline(answer, model.levels);
  if (model.reads.includes("frames") && answer.probabilities) offerLook(file, answer.duration_s, part("clip-video"));
}

function showChances(answer, levels) {
  const rows = levels.filter((level) => level in answer.probabilities).map((level) => {
    const share = answer.probabilities[level];
    const row = document.createElement("tr");
    row.classList.toggle("top", level === answer.level);
    const name = Object.assign(document.createElement("th"), { textContent: level, scope: "row" });
    const fill = document.createElement("div");
    fill.className = levelClass(levels.indexOf(level), levels.length);
    fill.style.width = `${100 * share}%`;
    fill.style.height = "100%";
    const track = document.createElement("div");
    track.className = "fill";
    track.append(fill);
    row.append(name);
    row.insertCell().append(track);
    row.insertCell().textContent = percent(share);
    return row;
  });
  part("clip-chances").tBodies[0].replaceChildren(...rows);
}

function showTimeline(answer, levels) {
  const video = part("clip-video");
  drawTimeline(part("clip-timeline"), answer.timeline, {
    startS: 0,
    endS: Math.max(answer.duration_s, answer.timeline.at(-1).end_s),
    levels,
    onPick: (window) => {
      if (!video.hidden) video.currentTime = window.start_s;
      chooseMoment((window.start_s + window.end_s) / 2);
    },
  });
  part("clip-windows").hidden = false;
}

function details(answer) {
  const said = [];
  const used = [...(answer.frames_used ? [`${answer.frames_used} frames`] : []), ...(answer.features_used ?? [])];
  if (used.length) said.push(`It rests on ${used.join(", ")} of ${answer.duration_s.toFixed(1)} s.`);
  for (const [name, why] of Object.entries(answer.lacking ?? {})) said.push(`Without ${name}: ${why}.`);
  if (typeof answer.face_share === "number") said.push(`A face is in ${percent(answer.face_share)} of the frames.`);
  if (answer.timings) {
    said.push(`Decoded in ${answer.timings.decode_ms.toFixed(0)} ms, scored in ${answer.timings.model_ms.toFixed(0)} ms.`);
  }
  return said.join(" ");
}
