// Everything a page can try on a server of another origin. Each attempt asks for a path that names it, and tells what
// it could read: null is nothing.

const LIMIT_MS = 20000;

const within = (promise) =>
  Promise.race([promise, new Promise((resolve) => setTimeout(() => resolve(null), LIMIT_MS))]).catch(() => null);

// What a page knows of an answer. Of an opaque one it is nothing.
const read = async (answer) =>
  answer.type === "opaque" || answer.type === "error" ? null : `${answer.status} ${await answer.text()}`;

const element = (name, attributes, readable = () => "it loaded") =>
  new Promise((resolve) => {
    const made = Object.assign(document.createElement(name), attributes);
    made.onload = () => resolve(readable(made));
    made.onerror = () => resolve(null);
    document.body.append(made);
  });

// Whatever a frame shows, its page must not be able to look into it.
const inside = (frame) => {
  try {
    return frame.contentDocument?.body?.innerText || null;
  } catch {
    return null;
  }
};

const form = (action, enctype) =>
  new Promise((resolve) => {
    const name = `frame-${Math.random()}`;
    const frame = Object.assign(document.createElement("iframe"), { name });
    const made = Object.assign(document.createElement("form"), { action, enctype, method: "POST", target: name });
    made.append(Object.assign(document.createElement("input"), { name: '{"model":"gpt-4o","x":"', value: '"}' }));
    document.body.append(frame, made);
    frame.onload = () => resolve(inside(frame));
    made.submit();
  });

const xhr = (method, url, headers, body) =>
  new Promise((resolve) => {
    const request = new XMLHttpRequest();
    request.open(method, url);
    request.withCredentials = true;
    for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
    request.onload = () => resolve(`${request.status} ${request.responseText}`);
    request.onerror = () => resolve(null);
    request.send(body);
  });

const socket = (url) =>
  new Promise((resolve) => {
    const made = new WebSocket(url);
    made.onopen = () => resolve("it opened");
    made.onerror = () => resolve(null);
  });

const events = (url) =>
  new Promise((resolve) => {
    const made = new EventSource(url, { withCredentials: true });
    made.onmessage = (event) => resolve(event.data);
    made.onerror = () => (made.close(), resolve(null));
  });

const inWorker = (url, options) =>
  new Promise((resolve) => {
    const text = `onmessage = ({ data }) => fetch(...data).then(async (answer) =>
      postMessage(answer.type === "opaque" ? null : answer.status + " " + await answer.text()), () => postMessage(null))`;
    const worker = new Worker(URL.createObjectURL(new Blob([text], { type: "text/javascript" })));
    worker.onmessage = ({ data }) => resolve(data);
    worker.postMessage([url, options]);
  });

const inServiceWorker = async (url, options) => {
  await navigator.serviceWorker.register("/service-worker.js");
  const { active } = await navigator.serviceWorker.ready;
  return new Promise((resolve) => {
    const channel = new MessageChannel();
    channel.port1.onmessage = ({ data }) => resolve(data);
    active.postMessage([url, options], [channel.port2]);
  });
};

const BODY = '{"model":"gpt-4o-mini","messages":[{"role":"user","content":"hi"}]}';
const bearer = (token) => ({ Authorization: `Bearer ${token}` });
const json = { "Content-Type": "application/json" };

const ATTEMPTS = {
  "fetch": (url) => fetch(url("")).then(read),
  "fetch-credentials": (url) => fetch(url(""), { credentials: "include" }).then(read),
  "fetch-key": (url) => fetch(url("key")).then(read),
  "fetch-bearer": (url, token) => fetch(url(""), { headers: bearer(token) }).then(read),
  "fetch-x-api-key": (url, token) => fetch(url(""), { headers: { "x-api-key": token } }).then(read),
  "fetch-post": (url, token) =>
    fetch(url(""), { method: "POST", body: BODY, headers: { ...bearer(token), ...json } }).then(read),
  "fetch-post-plain": (url) => fetch(url("key"), { method: "POST", body: BODY }).then(read),
  "fetch-put": (url) => fetch(url("key"), { method: "PUT", body: BODY }).then(read),
  "no-cors": (url) => fetch(url("key"), { mode: "no-cors" }).then(read),
  "no-cors-credentials": (url) => fetch(url("key"), { mode: "no-cors", credentials: "include" }).then(read),
  "no-cors-post": (url) => fetch(url("key"), { mode: "no-cors", method: "POST", body: BODY }).then(read),
  "no-cors-head": (url) => fetch(url("key"), { mode: "no-cors", method: "HEAD" }).then(read),
  "no-referrer": (url) => fetch(url("key"), { mode: "no-cors", referrerPolicy: "no-referrer" }).then(read),
  "keepalive": (url) => fetch(url("key"), { mode: "no-cors", method: "POST", body: BODY, keepalive: true }).then(read),
  "xhr": (url) => xhr("GET", url("key"), {}, null),
  "xhr-bearer": (url, token) => xhr("POST", url(""), { ...bearer(token), ...json }, BODY),
  "form-urlencoded": (url) => form(url("key"), "application/x-www-form-urlencoded"),
  "form-multipart": (url) => form(url("key"), "multipart/form-data"),
  "form-plain": (url) => form(url("key"), "text/plain"),
  "img": (url) => element("img", { src: url("key") }),
  "img-cors": (url) => element("img", { crossOrigin: "use-credentials", src: url("key") }),
  "script": (url) => element("script", { src: url("key") }),
  "module": (url) => element("script", { type: "module", src: url("key") }),
  "style": (url) => element("link", { rel: "stylesheet", href: url("key") }),
  "preload": (url) => element("link", { rel: "preload", as: "fetch", href: url("key"), crossOrigin: "anonymous" }),
  "iframe": (url) => element("iframe", { src: url("key") }, inside),
  "iframe-sandbox": (url) => element("iframe", { sandbox: "allow-scripts", src: url("key") }, inside),
  "object": (url) => element("object", { data: url("key") }, inside),
  "video": (url) => element("video", { src: url("key"), preload: "auto" }),
  "events": (url) => events(url("key")),
  "websocket": (url) => socket(url("key").replace(/^http/, "ws")),
  "beacon": async (url) => (navigator.sendBeacon(url("key"), BODY), null),
  "worker": (url) => inWorker(url("key"), { mode: "no-cors" }),
  "worker-bearer": (url, token) => inWorker(url(""), { headers: bearer(token) }),
  "service-worker": (url) => inServiceWorker(url("key"), { mode: "no-cors" }),
  "service-worker-bearer": (url, token) => inServiceWorker(url(""), { headers: bearer(token) }),
};

// Makes every attempt on `base`, at a path that begins so; answers what could be read, by attempt.
window.attempt = async (base, path, token) => {
  const names = Object.keys(ATTEMPTS).filter((name) => window.isSecureContext || !name.startsWith("service-worker"));
  const tried = names.map(async (name) => {
    const url = (how) => `${base}${path}?attempt=${name}${how === "key" ? `&key=${token}` : ""}`;
    return [name, await within(ATTEMPTS[name](url, token))];
  });
  return Object.fromEntries(await Promise.all(tried));
};
