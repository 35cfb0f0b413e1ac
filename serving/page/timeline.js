// Windows and scores as drawings, with words for whom they are read aloud.

const SVG = "http://www.w3.org/2000/svg";
const RAMP = 4; // colours of levels in levels.css
const STEPS_S = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600];

export const STATUS_WORDS = {
  unsure: "unsure",
  no_face: "no face",
  camera_off: "camera off",
  too_short: "too short",
  skipped: "skipped",
  no_picture: "no picture came",
  failed: "no answer",
};
const UNDRAWN = ["too_short", "skipped", "no_picture", "failed"]; // nothing was seen

export const percent = (share) => `${(100 * share).toFixed(share >= 0.0005 && share < 0.1 ? 1 : 0)} %`;
export const signed = (score) => `${score < -0.005 ? "−" : score > 0.005 ? "+" : ""}${Math.abs(score).toFixed(2)}`;

/** Seconds as m:ss or h:mm:ss. */
export function clock(seconds) {
  const whole = Math.round(seconds);
  const two = (value) => String(value).padStart(2, "0");
  const minutes = Math.floor(whole / 60);
  return minutes < 60 ? `${minutes}:${two(whole % 60)}` : `${Math.floor(minutes / 60)}:${two(minutes % 60)}:${two(whole % 60)}`;
}

/** The CSS class of a level: the lowest and the highest of any number of levels have the ends of the ramp. */
export function levelClass(index, numLevels) {
  return `level-${Math.round((numLevels > 1 ? Math.min(1, index / (numLevels - 1)) : 1) * (RAMP - 1))}`;
}

export function wordsOf(window, levels) {
  return window.status === "scored" ? levels[window.level_index] : STATUS_WORDS[window.status] || window.status;
}

export function element(name, attributes = {}, text = "") {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text) made.textContent = text;
  return made;
}

/** A window's time, level and score, e.g. `0:10 to 0:20: low, score −0.32`. */
export function windowWords(window, levels) {
  const score = window.status === "scored" ? `, score ${signed(window.score)}` : "";
  return `${clock(window.start_s)} to ${clock(window.end_s)}: ${wordsOf(window, levels)}${score}`;
}

/**
 * Draw windows from startS to endS into `place`. onPick(window): which one was chosen, by mouse, touch or keyboard.
 * Like a row of a lesson's report: a taller bar is a higher level, what was not scored has a pattern.
 */
export function drawTimeline(place, windows, { startS, endS, levels, onPick }) {
  const span = Math.max(endS - startS, 0.001);
  const at = (second) => `${(100 * (second - startS)) / span}%`;
  const row = element("svg", { class: "row", role: "img", "aria-label": rowWords(windows, levels) });
  for (const window of windows) {
    const scored = window.status === "scored";
    const height = scored ? (100 * (window.level_index + 1)) / levels.length : 100;
    const kind = scored ? levelClass(window.level_index, levels.length) : window.status;
    const [left, right] = [Math.max(window.start_s, startS), Math.min(window.end_s, endS)];
    if (right <= left || UNDRAWN.includes(kind)) continue;
    const width = `${Math.max(0.1, (100 * (right - left)) / span - 0.25)}%`; // a hair between neighbours
    const bar = element("rect", { class: kind, x: at(left), width, y: `${100 - height}%`, height: `${height}%` });
    bar.append(element("title", {}, windowWords(window, levels)));
    row.append(bar);
  }
  const bars = document.createElement("div");
  bars.className = "bars";
  bars.append(row);
  const chosen = Object.assign(document.createElement("p"), { className: "chosen" });
  if (onPick) bars.append(choices(windows, { at, span, levels, onPick, chosen }));
  place.replaceChildren(bars, axis(startS, endS, at), ...(onPick ? [chosen] : []), legend(levels));
}

/** A button over each window, as high as the row. One stop for Tab; the arrow keys, Home and End go from one to the next. */
function choices(windows, { at, span, levels, onPick, chosen }) {
  const bar = Object.assign(document.createElement("div"), { className: "choices" });
  bar.setAttribute("role", "toolbar");
  bar.setAttribute("aria-label", "Windows of the clip; the arrow keys go from one to the next");
  const buttons = windows.map((window) => {
    const words = windowWords(window, levels);
    const button = Object.assign(document.createElement("button"), { type: "button", tabIndex: -1, title: words });
    button.setAttribute("aria-label", words);
    button.style.left = at(window.start_s);
    button.style.width = `${(100 * (window.end_s - window.start_s)) / span}%`;
    button.addEventListener("focus", () => {
      for (const other of buttons) other.tabIndex = other === button ? 0 : -1;
      chosen.textContent = words;
    });
    button.addEventListener("click", () => { button.focus(); onPick(window); }); // Safari focuses no button by itself
    return button;
  });
  buttons[0].tabIndex = 0;
  chosen.textContent = "Choose a window to read its level, and to go there in the clip.";
  bar.addEventListener("keydown", (event) => {
    const here = buttons.indexOf(document.activeElement);
    const places = { ArrowRight: here + 1, ArrowLeft: here - 1, Home: 0, End: buttons.length - 1 };
    const next = buttons[places[event.key]];
    if (!next) return;
    event.preventDefault();
    next.focus();
  });
  bar.append(...buttons);
  return bar;
}

/** The score on its scale from -1 to 1, with the interval where there is one; score null: the interval alone. */
export function drawScale(place, score, interval) {
  const at = (value) => `${50 * (value + 1)}%`;
  const drawing = element("svg", { "aria-hidden": "true" });
  drawing.append(element("rect", { class: "track", x: 0, y: "25%", width: "100%", height: "50%", rx: 5 }));
  if (interval) {
    const width = `${50 * (interval.high - interval.low)}%`;
    drawing.append(element("rect", { class: "interval", x: at(interval.low), y: "25%", width, height: "50%" }));
  }
  if (score !== null) {
    drawing.append(element("rect", { class: "marker", x: at(score), y: 0, width: 5, height: "100%", rx: 2, transform: "translate(-2.5)" }));
  }
  const ends = document.createElement("div");
  ends.className = "ends";
  ends.append(...["−1, lowest", "0", "1, highest"].map((text) => Object.assign(document.createElement("span"), { textContent: text })));
  const caption = document.createElement("figcaption");
  const said = score === null ? [] : [`Score ${signed(score)} on a scale from −1 to 1.`];
  if (interval) {
    said.push(
      `The band, ${signed(interval.low)} to ${signed(interval.high)} (${interval.levels.join(", ")}), holds the observers' level for ` +
        `${percent(interval.coverage)} of clips like those it was checked on.`,
    );
  }
  caption.textContent = said.join(" ");
  place.replaceChildren(drawing, ends, caption);
}

function rowWords(windows, levels) {
  const words = windows.map((window) => wordsOf(window, levels));
  const kinds = [...new Set(words)].map((word) => `${words.filter((other) => other === word).length} ${word}`);
  return `${windows.length} ${windows.length === 1 ? "window" : "windows"}: ${kinds.join(", ") || "none"}`;
}

function axis(startS, endS, at) {
  const drawing = element("svg", { class: "axis", "aria-hidden": "true" });
  const step = STEPS_S.find((candidate) => (endS - startS) / candidate <= 6) || 7200;
  for (let second = Math.ceil(startS / step) * step; second <= endS; second += step) {
    const left = Number.parseFloat(at(second));
    const anchor = left < 5 ? "start" : left > 95 ? "end" : "middle";
    drawing.append(element("text", { x: `${left}%`, y: 13, "text-anchor": anchor }, clock(second)));
  }
  return drawing;
}

function legend(levels) {
  const list = document.createElement("ul");
  list.className = "legend";
  list.setAttribute("aria-label", "Legend");
  const kinds = [
    ...levels.map((name, index) => [name, levelClass(index, levels.length), (100 * (index + 1)) / levels.length]),
    ...["unsure", "no_face", "camera_off"].map((status) => [STATUS_WORDS[status], status, 100]),
  ];
  for (const [name, kind, height] of kinds) {
    const swatch = element("svg", { class: "swatch", "aria-hidden": "true" });
    swatch.append(element("rect", { class: kind, width: "100%", y: `${100 - height}%`, height: `${height}%` }));
    const item = document.createElement("li");
    item.append(swatch, ` ${name}`);
    list.append(item);
  }
  return list;
}
