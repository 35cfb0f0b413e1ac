// Where the model looked at a moment of a clip, over the browser's own picture of it.

import { ask, reason, Refused } from "/page/ask.js";

const part = (id) => document.getElementById(id);
const WIDTH_PX = 640;
const PLACES = [["upper left", "upper middle", "upper right"], ["left", "middle", "right"], ["lower left", "lower middle", "lower right"]];
let impossible = false; // this service has no such answer
let shown = null;

part("look-at").addEventListener("input", () => {
  part("look-time").textContent = `${Number(part("look-at").value).toFixed(1)} s`;
});
part("look-show").addEventListener("click", () => { if (shown) look(shown); });

/** Offer it for this clip of durationS, scored by a model that reads frames; video: where it may play. */
export function offerLook(clip, durationS, video) {
  if (impossible) return;
  shown = { clip, video };
  part("look").hidden = false;
  part("look-canvas").hidden = true;
  part("look-status").textContent = "";
  part("look-at").max = Math.max(0, durationS - 0.1).toFixed(1);
  chooseMoment(durationS / 2);
}

/** Choose a moment, for another click to show. */
export function chooseMoment(second) {
  part("look-at").value = second.toFixed(1);
  part("look-at").dispatchEvent(new Event("input"));
}

async function look(mine) {
  const { clip, video } = mine;
  const atS = Number(part("look-at").value);
  part("look-show").disabled = true;
  part("look-status").textContent = "Asking the model…";
  const form = new FormData();
  form.append("clip", clip);
  try {
    const explanation = await (await ask(`/v1/explain?at_s=${atS}`, { method: "POST", body: form })).json();
    if (mine !== shown) return;
    if (!video.hidden) await seek(video, explanation.at_s);
    draw(part("look-canvas"), explanation, video.hidden ? null : video);
    const words = `At ${explanation.at_s.toFixed(1)} s ${where(explanation)}`;
    part("look-canvas").setAttribute("aria-label", words);
    part("look-canvas").hidden = false;
    part("look-status").textContent = video.hidden ? `${words} This browser cannot play the clip, so its picture is left grey.` : words;
  } catch (error) {
    if (mine !== shown) return;
    impossible = error instanceof Refused && [404, 405, 501].includes(error.status);
    part("look").hidden = impossible;
    part("look-status").textContent = impossible ? "" : reason(error);
  } finally {
    part("look-show").disabled = false;
  }
}

/** Draw the frame, and dim what the level does not rest on. grid: rows of values in [0, 1] over region, shares of the frame. */
function draw(canvas, { grid, region }, video) {
  const ratio = video ? video.videoHeight / video.videoWidth : 3 / 4;
  canvas.width = WIDTH_PX;
  canvas.height = Math.round(WIDTH_PX * ratio);
  const pen = canvas.getContext("2d");
  pen.fillStyle = "#9aa0a8";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  if (video) pen.drawImage(video, 0, 0, canvas.width, canvas.height);
  const shade = document.createElement("canvas"); // one pixel a cell, scaled smoothly
  shade.width = grid[0].length;
  shade.height = grid.length;
  const small = shade.getContext("2d");
  const pixels = small.createImageData(shade.width, shade.height);
  grid.flat().forEach((value, place) => { pixels.data[4 * place + 3] = 205 * (1 - value); });
  small.putImageData(pixels, 0, 0);
  const box = [region.left * canvas.width, region.top * canvas.height, region.width * canvas.width, region.height * canvas.height];
  pen.fillStyle = "rgb(0 0 0 / 0.8)"; // outside the region the model saw nothing
  pen.beginPath();
  pen.rect(0, 0, canvas.width, canvas.height);
  pen.rect(...box);
  pen.fill("evenodd");
  pen.imageSmoothingEnabled = true;
  pen.imageSmoothingQuality = "high";
  pen.drawImage(shade, ...box);
}

/** In words, the ninth of the picture with the brightest cell. */
function where({ grid, region, level }) {
  const top = Math.max(...grid.flat());
  if (top === 0) return `nothing in the picture spoke for the level '${level}'.`;
  const row = grid.findIndex((cells) => cells.includes(top));
  const down = region.top + (region.height * (row + 0.5)) / grid.length;
  const across = region.left + (region.width * (grid[row].indexOf(top) + 0.5)) / grid[row].length;
  const third = (share) => Math.min(2, Math.floor(3 * share));
  return `the level '${level}' rests most on the ${PLACES[third(down)][third(across)]} of the picture.`;
}

/** The video at a second; comes back also where it cannot go there. */
export function seek(video, second) {
  return new Promise((resolve) => {
    const patience = setTimeout(resolve, 4000);
    const done = () => { clearTimeout(patience); resolve(); };
    video.addEventListener("seeked", done, { once: true });
    video.addEventListener("error", done, { once: true });
    video.pause();
    video.currentTime = second;
  });
}
