// Requests to the service: its sentences as errors, and a key where it asks for one.

const KEPT = "rapt-key";
const part = (id) => document.getElementById(id);
let key = kept();
let asking = null; // one dialog, however many requests wait for it

/** What the service would not do, in its own sentence. status: HTTP's; retryAfterS: when to ask again, 0 where it does not say. */
export class Refused extends Error {
  constructor(status, sentence, retryAfterS) {
    super(sentence);
    this.status = status;
    this.retryAfterS = retryAfterS;
  }
}

/** fetch, with the key; asks the person for one at a 401 and goes on. Throws Refused, or TypeError where nobody answers. */
export async function ask(path, { headers = {}, ...options } = {}) {
  for (;;) {
    const sent = key;
    const reply = await fetch(path, { ...options, headers: sent ? { ...headers, Authorization: `Bearer ${sent}` } : headers });
    if (reply.ok) return reply;
    const refusal = new Refused(reply.status, await sentence(reply), Number(reply.headers.get("Retry-After")) || 0);
    if (reply.status !== 401) throw refusal;
    if (sent === key) await keyGiven(sent ? refusal.message : "", refusal);
  }
}

/** The same for JSON. */
export async function askJson(path, options) {
  return (await ask(path, options)).json();
}

/** Why something failed, for a person to read. */
export function reason(error) {
  return error instanceof TypeError ? "The service does not answer. Is it running, and is the network there?" : error.message;
}

async function sentence(reply) {
  try {
    return (await reply.json()).error || `The service answered ${reply.status}.`;
  } catch {
    return `The service answered ${reply.status}.`;
  }
}

function keyGiven(why, refusal) {
  asking ??= new Promise((resolve, reject) => {
    const dialog = part("key-dialog");
    part("key-why").textContent = why || "Whoever runs it makes one with `rapt keys create`. It stays in this page's memory.";
    part("key").value = "";
    dialog.returnValue = "";
    dialog.onclose = () => {
      asking = null;
      if (dialog.returnValue !== "given") return reject(refusal);
      key = part("key").value.trim();
      keep(part("key-keep").checked ? key : "");
      part("key").value = "";
      return resolve();
    };
    dialog.showModal();
  });
  return asking;
}

part("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  part("key-dialog").close("given");
});
part("key-cancel").addEventListener("click", () => part("key-dialog").close("cancelled"));

function kept() {
  try {
    return sessionStorage.getItem(KEPT) || "";
  } catch {
    return ""; // a browser may forbid storage
  }
}

function keep(value) {
  try {
    if (value) sessionStorage.setItem(KEPT, value);
    else sessionStorage.removeItem(KEPT);
  } catch {
    // the key is then in memory alone
  }
}
