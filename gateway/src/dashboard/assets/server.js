// How the page speaks to its gateway. The token lies where only this origin can read it: cookies alone are sent to every
// port of the host.

const TOKEN = "tokfence-page";
// The gateway ends a stream by itself after a while; one that tells nothing for this long is dead.
const SILENCE_MS = 15000;

export class NoSession extends Error {}

function headers(extra) {
  return { ...extra, "X-Tokfence-Page": localStorage.getItem(TOKEN) ?? "" };
}

async function read(response) {
  const document = await response.json().catch(() => null);
  if (response.ok && document !== null) return document;
  const message = document?.error?.message ?? `the gateway answered ${response.status}`;
  if (response.status === 401) throw new NoSession(message);
  throw new Error(message);
}

export async function get(path) {
  return read(await fetch(path, { headers: headers(), cache: "no-store" }));
}

export async function post(path, document) {
  const body = JSON.stringify(document);
  return read(await fetch(path, { method: "POST", headers: headers({ "Content-Type": "application/json" }), body }));
}

/// Uses the link's secret up, if the address holds one. It leaves the address at once, whatever becomes of it.
export async function logIn() {
  const secret = location.hash.slice(1);
  if (!secret) return;
  history.replaceState(null, "", location.pathname);
  const { token } = await post("login", { secret });
  localStorage.setItem(TOKEN, token);
}

export async function logOut() {
  await post("logout", {});
  localStorage.removeItem(TOKEN);
}

export function isKnown() {
  return localStorage.getItem(TOKEN) !== null;
}

/// Calls `tell` with each document of the event stream, until that ends.
export async function follow(tell) {
  const stop = new AbortController();
  const silence = () => setTimeout(() => stop.abort(), SILENCE_MS);
  let timer = silence();
  try {
    const response = await fetch("events", { headers: headers(), cache: "no-store", signal: stop.signal });
    if (!response.ok) return void (await read(response));
    let text = "";
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      clearTimeout(timer);
      timer = silence();
      const events = (text + part.value).split("\n\n");
      text = events.pop();
      for (const event of events) tell(JSON.parse(event.slice("data: ".length)));
    }
  } finally {
    clearTimeout(timer);
  }
}
