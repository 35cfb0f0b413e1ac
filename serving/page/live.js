// The webcam in windows: each is a whole file of its own, sent when it is full, shown as a moving timeline.

import { ask, reason, Refused } from "/page/ask.js";
import { answerWords } from "/page/clip.js";
import { drawScale, drawTimeline } from "/page/timeline.js";

const part = (id) => document.getElementById(id);
const SHOWN_S = 300; // of the timeline
const NOT_ALLOWED = [401, 403]; // no key was given, or it may not score: the next window would be refused too
const HEADER_BYTES = 1024; // at least what a file without a picture has; seconds of a black one take several times as much
const PATIENCE_S = 1; // with a camera that gives no picture
const BITS_PER_S = 1_500_000; // 640x480 without visible loss: a window of 10 s takes under 2 MB
// what the service reads, cheapest for the browser first
const FORMATS = ["video/webm;codecs=vp8", "video/webm;codecs=vp9", "video/webm", "video/mp4"];

/** Wire the view. Only one window is sent at a time and at most one waits: where the service is slower, windows are skipped. */
export function startLive(model) {
  let session = null;
  part("live-start").addEventListener("click", start);
  part("live-stop").addEventListener("click", () => stop("Stopped. The camera is off."));

  async function start() {
    const refusal = whyNot();
    if (refusal) return say(refusal, { failed: true });
    part("live-start").disabled = true;
    say("Waiting for the camera. The browser may ask you.");
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ audio: false, video: { width: { ideal: 640 }, height: { ideal: 480 } } });
    } catch (error) {
      part("live-start").disabled = false;
      return say(cameraWords(error), { failed: true });
    }
    if (part("view-live").hidden) { // another view was opened while the browser asked
      for (const track of stream.getTracks()) track.stop();
      part("live-start").disabled = false;
      return say("Another view was opened. The camera is off.");
    }
    const mine = newSession(stream, Number(part("live-window").value), model.levels, (why) => stop(`Stopped: ${why}. The camera is off.`));
    session = mine;
    for (const track of stream.getVideoTracks()) track.onended = () => stop("The camera was taken away, so nothing more is sent.");
    part("live-video").srcObject = stream;
    part("live-video").hidden = false;
    part("live-video").play().catch(() => {}); // not waited for: a camera may give no picture to play
    part("live-stop").disabled = false;
    part("live-window").disabled = true;
    part("live-stop").focus();
    say(`The camera is on. The first level comes after ${mine.windowS} s.`);
    mine.begin();
    return undefined;
  }

  function stop(sentence) {
    if (!session) return;
    session.end();
    session = null;
    part("live-video").srcObject = null;
    part("live-video").hidden = true;
    part("live-stop").disabled = true;
    part("live-start").disabled = false;
    part("live-window").disabled = false;
    part("live-level").hidden = true;
    part("live-scale").hidden = true;
    say(sentence);
  }

  return { leave: () => stop("Stopped, for another view was opened. The camera is off.") };
}

/** A session from start to stop: records, sends, draws. stop(why): ends it where the service will take no window of it. */
function newSession(stream, windowS, levels, stop) {
  const windows = [];
  const begunMs = performance.now();
  const nowS = () => (performance.now() - begunMs) / 1000;
  const counts = { sent: 0, skipped: 0 };
  let [over, sending, waiting, latestS] = [false, false, null, 0];
  let recorder = null;
  const leaving = new AbortController();
  const mimeType = FORMATS.find((format) => MediaRecorder.isTypeSupported(format));

  // The next recorder runs before the one before is stopped, so that no picture falls between two windows. It runs from the
  // camera's next picture on: where none comes, the one before is stopped all the same.
  function record() {
    const before = recorder;
    const pieces = [];
    const own = new MediaRecorder(stream, { mimeType, videoBitsPerSecond: BITS_PER_S });
    let startS = nowS();
    own.ondataavailable = (event) => { if (event.data.size) pieces.push(event.data); };
    const end = () => { if (before?.state === "recording") before.stop(); };
    const patience = setTimeout(end, 1000 * PATIENCE_S);
    own.onstart = () => {
      clearTimeout(patience);
      startS = nowS();
      end();
    };
    own.onstop = () => {
      if (over) return;
      const blob = new Blob(pieces, { type: mimeType });
      if (blob.size > HEADER_BYTES) filled({ blob, start_s: startS, end_s: nowS() });
      else lost({ start_s: startS, end_s: nowS() });
    };
    own.onerror = () => { if (!over) say("The browser could not record this window; the next is tried.", { failed: true }); };
    recorder = own;
    own.start();
  }

  function filled(window) {
    if (waiting) {
      counts.skipped += 1;
      keep({ ...waiting, status: "skipped" });
    }
    waiting = window;
    send();
  }

  function lost(window) { // the camera was held by the system, or the machine had no time for it
    keep({ ...window, status: "no_picture" });
    say(`The camera gave no picture for ${windowS} s; the next window is tried.`, { failed: true });
    part("live-level").hidden = true;
    part("live-scale").hidden = true;
  }

  async function send() {
    if (sending || !waiting || over) return;
    const { blob, ...window } = waiting;
    [sending, waiting] = [true, null];
    let pauseS = 0;
    try {
      const form = new FormData();
      form.append("clip", blob, "window.webm");
      const answer = await (await ask("/v1/score", { method: "POST", body: form, signal: leaving.signal })).json();
      counts.sent += 1;
      latestS = nowS() - window.end_s;
      keep({ ...window, status: answer.status, score: answer.score ?? null, level_index: answer.level_index ?? null });
      if (!over) show(answer);
    } catch (error) {
      if (over) return;
      keep({ ...window, status: "failed" });
      if (error instanceof Refused && NOT_ALLOWED.includes(error.status)) {
        stop(error.message);
        return;
      }
      pauseS = error.retryAfterS ?? 0;
      say(`${reason(error)}${pauseS ? `; asking again in ${pauseS} s.` : "; the next window is tried."}`, { failed: true });
      part("live-level").hidden = true;
      part("live-scale").hidden = true;
    }
    if (pauseS) await new Promise((resolve) => { setTimeout(resolve, 1000 * pauseS); });
    sending = false;
    send();
  }

  function keep(window) {
    windows.push(window);
    windows.sort((a, b) => a.start_s - b.start_s);
    while (windows.length && windows[0].end_s < nowS() - SHOWN_S) windows.shift();
    draw();
  }

  function draw() {
    if (!windows.length) return;
    const endS = Math.max(nowS(), windowS * 6);
    part("live-empty").hidden = true;
    part("live-timeline").hidden = false;
    drawTimeline(part("live-timeline"), windows, { startS: Math.max(0, endS - SHOWN_S), endS, levels });
  }

  function show(answer) {
    const { sentence, level } = answerWords(answer);
    say(sentence || `The last ${windowS} s:`);
    part("live-level").textContent = level ?? "";
    part("live-level").hidden = level === null;
    part("live-scale").hidden = !answer.probabilities;
    if (answer.probabilities) drawScale(part("live-scale"), answer.score ?? null, answer.interval ?? null);
    const skipped = counts.skipped ? ` ${counts.skipped} skipped, for the service was still busy with the one before.` : "";
    const many = counts.sent === 1 ? "1 window scored" : `${counts.sent} windows scored`;
    part("live-details").textContent = `${many}, the latest ${latestS.toFixed(1)} s after its end.${skipped}`;
  }

  let timers = [];
  return {
    windowS,
    begin() {
      record();
      timers = [setInterval(record, 1000 * windowS), setInterval(draw, 1000)];
    },
    end() {
      over = true;
      timers.forEach(clearInterval);
      leaving.abort();
      if (recorder?.state === "recording") recorder.stop();
      for (const track of stream.getTracks()) { track.onended = null; track.stop(); }
    },
  };
}

function whyNot() {
  if (!window.isSecureContext) return "A browser gives its camera only to pages over HTTPS, or on this machine. Ask for this page's https address.";
  if (!navigator.mediaDevices?.getUserMedia || !window.MediaRecorder) return "This browser cannot record a camera.";
  return FORMATS.some((format) => MediaRecorder.isTypeSupported(format)) ? "" : "This browser records no format that Rapt reads.";
}

function cameraWords(error) {
  switch (error.name) {
    case "NotAllowedError": return "The camera was not allowed. Allow it in the browser's settings of this page, then start again.";
    case "NotFoundError": return "No camera was found. Connect one, then start again.";
    case "NotReadableError": return "The camera is busy in another program. Close that, then start again.";
    default: return `The camera did not start (${error.name}).`;
  }
}

function say(sentence, { failed = false } = {}) {
  part("live-status").textContent = sentence;
  part("live-status").classList.toggle("failed", failed);
}
