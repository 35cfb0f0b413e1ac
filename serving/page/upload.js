// A recording to the service in pieces: what was received counts, so a lost connection loses at most one piece.

import { ask, askJson, Refused } from "/page/ask.js";

const FIRST_BYTES = 4 << 20;
const MOST_BYTES = 24 << 20; // the service takes 32 MiB
const LEAST_BYTES = 256 << 10;
const QUICK_S = 2; // a piece that took less is followed by a larger one: a key may make only so many requests a minute
const LONGEST_WAIT_S = 30;
const SOON_OVER = [408, 413]; // a piece that took too long, or is too large here: send smaller ones
const PASSING = [409, 429, 500, 502, 503, 504]; // what another try may mend

/** Make a job of `file`, and send it. told(job, why): after each piece, and why it waits where it does. */
export async function upload(file, { signal, told }) {
  const body = JSON.stringify({ size_bytes: file.size });
  let job = await askJson("/v1/jobs", { method: "POST", body, headers: { "Content-Type": "application/json" }, signal });
  let [pieceBytes, waitS] = [FIRST_BYTES, 0];
  told(job, "");
  while (job.state === "uploading" && job.uploaded_bytes < file.size) {
    try {
      if (waitS) {
        await pause(waitS, signal);
        job = await askJson(`/v1/jobs/${job.id}`, { signal }); // how far it came before the connection was lost
        if (job.state !== "uploading") break;
      }
      const piece = file.slice(job.uploaded_bytes, job.uploaded_bytes + pieceBytes);
      const headers = { "Upload-Offset": String(job.uploaded_bytes), "Content-Type": "application/octet-stream" };
      const begunMs = performance.now();
      job = await (await ask(`/v1/jobs/${job.id}/recording`, { method: "PATCH", body: piece, headers, signal })).json();
      if (performance.now() - begunMs < 1000 * QUICK_S) pieceBytes = Math.min(MOST_BYTES, 2 * pieceBytes);
      waitS = 0;
      told(job, "");
    } catch (error) {
      if (signal.aborted) throw error;
      if (error instanceof Refused && SOON_OVER.includes(error.status) && pieceBytes > LEAST_BYTES) {
        pieceBytes = Math.max(LEAST_BYTES, pieceBytes / 2);
      } else if (error instanceof Refused && !PASSING.includes(error.status)) {
        throw error;
      }
      waitS = Math.min(LONGEST_WAIT_S, Math.max(error.retryAfterS ?? 0, 2 * waitS || 1));
      told(job, `${error instanceof Refused ? error.message : "The connection was lost"}; going on in ${waitS} s.`);
    }
  }
  return job;
}

/** Some seconds, or until the signal. */
export function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const leave = () => { clearTimeout(timer); reject(new DOMException("stopped", "AbortError")); };
    const timer = setTimeout(() => { signal.removeEventListener("abort", leave); resolve(); }, 1000 * seconds);
    signal.addEventListener("abort", leave, { once: true });
    if (signal.aborted) leave();
  });
}
