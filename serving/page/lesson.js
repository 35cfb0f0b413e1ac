// A lesson's recording: sent, waited for, and shown as the service's own report, with pictures from the teacher's file.

import { ask, askJson, reason, Refused } from "/page/ask.js";
import { showVideo, takeFiles } from "/page/clip.js";
import { seek } from "/page/look.js";
import { clock, percent } from "/page/timeline.js";
import { pause, upload } from "/page/upload.js";

const part = (id) => document.getElementById(id);
const POLL_S = 2; // a key may make only so many requests a minute
const PICTURE_WIDTH_PX = 320;
const STATES = { uploading: "upload not finished", queued: "waiting", running: "being read", done: "done", failed: "failed", stopped: "stopped" };
let job = null; // the one shown
let recording = null; // the teacher's own file, where it was chosen
let working = new AbortController(); // ended when another lesson is opened

/** Wire the view. */
export function startLesson() {
  takeFiles(part("lesson-drop"), part("lesson-file"), (file) => begin((signal) => send(file, signal), file));
  part("lesson-again").addEventListener("change", () => {
    [recording] = part("lesson-again").files;
    if (recording) showOwn();
  });
  part("lesson-csv").addEventListener("click", () => download("result.csv", "lesson.csv"));
  part("lesson-html").addEventListener("click", () => download("report", "lesson.html"));
  part("lesson-delete").addEventListener("click", () => {
    if (job && confirm("Delete this lesson from the service, with its numbers?")) remove(job);
  });
  return { enter: listEarlier };
}

/** Leave whatever was shown, and do this. */
async function begin(work, file) {
  working.abort();
  working = new AbortController();
  const { signal } = working;
  [job, recording] = [null, file];
  for (const id of ["lesson-tools", "lesson-report", "lesson-own", "lesson-video", "lesson-progress"]) part(id).hidden = true;
  part("lesson-kept").textContent = "";
  try {
    await work(signal);
  } catch (error) {
    if (signal.aborted) return;
    part("lesson-progress").hidden = true;
    say(error instanceof Refused && error.status === 404 ? "The service has no such lesson, or takes no lessons." : reason(error), { failed: true });
  }
}

async function send(file, signal) {
  say(`Sending ${file.name}…`);
  showProgress(0);
  const sent = await upload(file, {
    signal,
    told: (state, why) => {
      take(state);
      showProgress(state.uploaded_bytes / file.size);
      say(`Sending ${file.name}: ${percent(state.uploaded_bytes / file.size)}. ${why}`);
    },
  });
  await follow(sent, signal);
}

/** Ask until the lesson is done, then show it. */
async function follow(state, signal) {
  let lost = 0;
  take(state);
  while (["queued", "running"].includes(job.state)) {
    showProgress(job.total_s ? job.done_s / job.total_s : null);
    const far = job.total_s ? ` ${clock(job.done_s)} of ${clock(job.total_s)}` : "";
    say(job.state === "queued" ? "The recording is there. It waits for its turn." : `Reading the recording:${far || " finding the people"}.`);
    await pause(POLL_S, signal);
    try {
      take(await askJson(`/v1/jobs/${job.id}`, { signal }));
      lost = 0;
    } catch (error) {
      if (signal.aborted || (error instanceof Refused && error.status < 500 && error.status !== 429)) throw error;
      lost += 1;
      say(`${error instanceof Refused ? error.message : "The connection was lost"}; asking again.`);
      await pause(Math.max(error.retryAfterS ?? 0, Math.min(30, 2 ** lost)), signal);
    }
  }
  part("lesson-progress").hidden = true;
  listEarlier();
  if (job.state === "done") await showReport(signal);
  else if (job.state === "failed") say(job.error || "The recording could not be read.", { failed: true });
  else say(job.state === "uploading" ? "This upload was not finished. Delete it, and send the recording again." : "Stopped.");
}

function take(state) {
  job = state;
  part("lesson-tools").hidden = false;
  for (const id of ["lesson-csv", "lesson-html"]) part(id).hidden = state.state !== "done";
  part("lesson-delete").textContent = ["done", "failed", "stopped"].includes(state.state) ? "Delete now" : "Stop and delete";
  part("lesson-kept").textContent = state.expires_at
    ? `Only numbers are kept, until ${when(state.expires_at)}; then they are deleted.`
    : "";
}

/** The service's report is a whole page without a script: its sections are shown here, in a tree with its own styles. */
async function showReport(signal) {
  const text = await (await ask(`/v1/jobs/${job.id}/report`, { signal })).text();
  const [whole, rules] = text.match(/<style>([^]*?)<\/style>/) ?? ["", ""]; // this page's policy allows no inline style
  const report = new DOMParser().parseFromString(text.replace(whole, () => ""), "text/html");
  const host = part("lesson-report");
  const root = host.shadowRoot || host.attachShadow({ mode: "open" });
  const style = new CSSStyleSheet();
  style.replaceSync(rules);
  root.adoptedStyleSheets = [style];
  root.replaceChildren(...document.adoptNode(report.querySelector("main")).children);
  const notice = root.querySelector(".notice"); // of another model than the one that answers now, it is said again
  if (notice?.textContent.trim() === part("notice").textContent) notice.remove();
  host.hidden = false;
  say("The lesson was read. Its report is below.");
  if (recording) showOwn();
  else part("lesson-own").hidden = moments().length === 0;
}

const moments = () => [...(part("lesson-report").shadowRoot?.querySelectorAll(".moments li[data-start-s]") ?? [])];

/** Pictures of the moments, and a way to each, from the teacher's own file, where this browser plays it. */
function showOwn() {
  const file = recording;
  showVideo(part("lesson-video"), file, async (plays) => {
    part("lesson-own").hidden = plays || moments().length === 0;
    if (!plays) return say("The lesson was read. This browser cannot play the recording, so its moments have no pictures.");
    for (const moment of moments()) offerMoment(moment);
    await drawMoments(file);
    return undefined;
  });
}

function offerMoment(moment) {
  if (moment.querySelector("button")) return;
  const startS = Number(moment.dataset.startS);
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = `Watch from ${clock(startS)}`;
  button.addEventListener("click", () => {
    const video = part("lesson-video");
    video.currentTime = startS;
    video.scrollIntoView({ block: "center" });
    video.focus();
  });
  moment.append(button);
}

async function drawMoments(file) {
  const film = document.createElement("video"); // beside the one that is watched, which is not to jump about
  const address = URL.createObjectURL(file);
  film.muted = true;
  film.preload = "auto";
  film.src = address;
  await new Promise((resolve) => { film.onloadeddata = resolve; film.onerror = resolve; });
  for (const moment of film.videoWidth ? moments() : []) {
    const middleS = (Number(moment.dataset.startS) + Number(moment.dataset.endS)) / 2;
    await seek(film, Math.min(middleS, film.duration || middleS));
    if (file !== recording) break; // another lesson is shown by now
    const canvas = moment.querySelector("canvas") || document.createElement("canvas");
    canvas.width = PICTURE_WIDTH_PX;
    canvas.height = Math.round((PICTURE_WIDTH_PX * film.videoHeight) / film.videoWidth);
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `The recording at ${clock(middleS)}`);
    canvas.getContext("2d").drawImage(film, 0, 0, canvas.width, canvas.height);
    moment.prepend(canvas);
  }
  film.removeAttribute("src");
  URL.revokeObjectURL(address);
}

async function download(what, name) {
  try {
    const content = await (await ask(`/v1/jobs/${job.id}/${what}`)).blob();
    const link = document.createElement("a");
    link.href = URL.createObjectURL(content);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // the browser may still be writing it
  } catch (error) {
    say(reason(error), { failed: true });
  }
}

async function remove(state) {
  const isShown = state.id === job?.id;
  try {
    if (isShown) working.abort();
    await ask(`/v1/jobs/${state.id}`, { method: "DELETE" });
    if (isShown) {
      begin(async () => {}, null);
      part("lesson-report").shadowRoot?.replaceChildren();
      part("lesson-file").value = "";
      say("Deleted. The service keeps nothing of this lesson.");
      part("lesson-title").focus();
    }
    await listEarlier();
  } catch (error) {
    say(reason(error), { failed: true });
  }
}

/** The key's own lessons, to open again or to delete. */
async function listEarlier() {
  let found;
  try {
    found = await askJson("/v1/jobs");
  } catch {
    part("lesson-earlier").hidden = true; // the service takes no lessons; sending one says so
    return;
  }
  const listed = Array.isArray(found) ? found : found.jobs;
  part("lesson-earlier").hidden = listed.length === 0;
  part("lesson-list").replaceChildren(...listed.map(listing));
}

function listing(state) {
  const item = document.createElement("li");
  const made = when(state.created_at);
  const words = document.createElement("span");
  words.textContent = `${made}, ${(state.size_bytes / 1e6).toFixed(1)} MB: ${STATES[state.state] ?? state.state}`;
  const controls = document.createElement("span");
  controls.className = "controls";
  if (state.state !== "uploading") controls.append(button("Open", `Open the lesson of ${made}`, () => begin((signal) => follow(state, signal), null)));
  controls.append(button("Delete", `Delete the lesson of ${made}`, () => {
    if (confirm("Delete this lesson from the service, with its numbers?")) remove(state);
  }));
  item.append(words, controls);
  return item;
}

function button(text, label, act) {
  const made = Object.assign(document.createElement("button"), { type: "button", textContent: text });
  made.setAttribute("aria-label", label);
  made.addEventListener("click", act);
  return made;
}

/** A time as the service says it, ISO 8601 or seconds since 1970, in the reader's own form. */
function when(time) {
  return new Date(typeof time === "number" ? 1000 * time : time).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}

function showProgress(share) {
  const bar = part("lesson-progress");
  bar.hidden = false;
  if (share === null) bar.removeAttribute("value");
  else bar.value = share;
}

function say(sentence, { failed = false } = {}) {
  if (part("lesson-status").textContent !== sentence) part("lesson-status").textContent = sentence;
  part("lesson-status").classList.toggle("failed", failed);
}
