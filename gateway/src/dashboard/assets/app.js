// The page: logs in, follows what happens, and asks before it changes anything.

import { byId, count, el, instant, plural, setText, usd } from "./dom.js";
import { chart } from "./charts.js";
import * as server from "./server.js";
import * as tables from "./tables.js";

const RETRY_MS = 2000, HISTORY_MS = 30000;
const STATES = { ok: ["good", "serving"], locked: ["warn", "locked: the keys are not loaded"], killed: ["bad", "killed: nothing is served"] };

const show = {
  live: tables.live(),
  budgets: tables.budgets(),
  agents: tables.agents((agent) => revoke("agent", agent), (agent) => change({ do: "restore_agent", agent })),
  providers: tables.providers((provider) => revoke("provider", provider), (provider) => change({ do: "restore_provider", provider })),
  refusals: tables.refusals(),
  risk: tables.risk(explain),
};
let overview = null, history = null, isByHours = true;

function setState(kind, text) {
  const state = byId("state");
  state.className = `state ${kind}`;
  setText(state, text);
}

function notice(text) {
  byId("notice").hidden = !text;
  setText(byId("notice"), text ?? "");
}

function render() {
  const { today } = overview;
  const [kind, text] = STATES[overview.state] ?? ["warn", overview.state];
  setState(kind, overview.killed ? `${text} (${overview.killed.reason})` : text);
  setText(byId("told"), `${overview.address} · version ${overview.version} · since ${instant(overview.started_at)}`);
  const kill = byId("kill");
  setText(kill, overview.killed ? "Serve again" : "Kill");
  kill.className = overview.killed ? "" : "danger";
  setText(byId("today-cost"), usd(today.cost_usd));
  setText(byId("today-unpriced"), today.unpriced > 0 ? `and ${plural(today.unpriced, "request", "requests")} of unknown price` : `since midnight, ${today.timezone}`);
  setText(byId("today-requests"), count(today.requests));
  setText(byId("today-refused"), `${count(today.refused)} refused, ${count(today.errors)} failed`);
  setText(byId("today-tokens"), count(today.input_tokens + today.output_tokens));
  setText(byId("today-split"), `${count(today.input_tokens)} in, ${count(today.output_tokens)} out`);
  setText(byId("in-flight"), count(overview.in_flight));
  const busy = new Set(overview.requests.map((request) => request.agent)).size;
  setText(byId("busy"), busy > 0 ? `of ${plural(busy, "agent", "agents")}` : "nobody asks");
  notice(overview.log === "ok" ? null : `The log: ${overview.log}`);
  for (const part of Object.values(show)) part(overview, history);
}

function renderHistory() {
  if (!history) return;
  const spans = isByHours ? history.hours : history.days, zone = history.timezone;
  const spent = [{ name: "spent", label: "spent", take: (row) => Number(row.cost_usd) }];
  const asked = [
    { name: "served", label: "served", take: (row) => row.requests - row.refused },
    { name: "refused", label: "refused", take: (row) => row.refused },
  ];
  chart(byId("chart-cost"), "Spent", spans, zone, spent, (number) => usd(String(number)), false);
  chart(byId("chart-requests"), "Requests", spans, zone, asked, count, true);
}

function chooseTime(hours) {
  isByHours = hours;
  byId("by-hours").setAttribute("aria-pressed", String(hours));
  byId("by-days").setAttribute("aria-pressed", String(!hours));
  renderHistory();
}

async function readHistory() {
  try {
    history = await server.get("history");
    renderHistory();
    if (overview) render();
  } catch (error) {
    if (error instanceof server.NoSession) return;
    notice(`The history cannot be read: ${error.message}`);
  }
}

/// Asks whether that is meant; answers the reason that was given, or null.
function ask(title, text, yes, wantsReason) {
  const dialog = byId("ask"), reason = byId("ask-reason");
  setText(byId("ask-title"), title);
  setText(byId("ask-text"), text);
  setText(byId("ask-yes"), yes);
  byId("ask-yes").className = wantsReason ? "danger" : "";
  byId("ask-label").hidden = !wantsReason;
  reason.value = "";
  dialog.returnValue = "";
  dialog.showModal();
  (wantsReason ? reason : byId("ask-yes")).focus();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes" ? reason.value : null), { once: true });
  });
}

async function change(what) {
  try {
    await server.post("change", what);
    notice(null);
  } catch (error) {
    if (error instanceof server.NoSession) return leave(error.message);
    notice(`That was not done: ${error.message}`);
  }
}

async function revoke(what, name) {
  const text = `Nothing of ${name} is served from then on, and what runs is cut.`;
  const reason = await ask(`Revoke ${what} ${name}?`, text, "Revoke", true);
  if (reason !== null) await change({ do: `revoke_${what}`, [what]: name, reason });
}

async function killOrServe() {
  if (overview?.killed) {
    const isMeant = await ask("Serve again?", "Everything that was served before the kill is served again.", "Serve again", false);
    if (isMeant !== null) await change({ do: "unkill" });
    return;
  }
  const text = "Nothing is served from then on, whatever runs is cut, and it stays so until you say otherwise.";
  const reason = await ask("Kill everything?", text, "Kill", true);
  if (reason !== null) await change({ do: "kill", reason });
}

async function explain(event) {
  try {
    const { facts, consequences } = await server.get(`risk/${event}`);
    const list = el("dl");
    for (const [name, text] of facts) list.append(el("dt", "", name), el("dd", "", name === "at" ? instant(text) : text));
    setText(byId("explain-title"), `Event ${event}`);
    byId("explain-text").replaceChildren(list, ...consequences.map((text) => el("p", "", text)));
    byId("explain").showModal();
  } catch (error) {
    if (error instanceof server.NoSession) return leave(error.message);
    notice(`The event cannot be explained: ${error.message}`);
  }
}

function enter() {
  byId("out").hidden = true;
  byId("in").hidden = byId("switches").hidden = false;
}

function leave(why) {
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
  byId("in").hidden = byId("switches").hidden = true;
  byId("out").hidden = false;
  setText(byId("why"), why ?? "");
  setText(byId("told"), "");
  setState("", "logged out");
}

async function run() {
  try {
    await server.logIn();
  } catch (error) {
    // Whoever is in already stays in, whatever becomes of another link.
    if (!server.isKnown()) return leave(error.message);
  }
  if (!server.isKnown()) return leave("");
  void readHistory();
  const timer = setInterval(readHistory, HISTORY_MS);
  for (;;) {
    try {
      await server.follow((told) => {
        if (!overview) enter();
        overview = told;
        render();
      });
    } catch (error) {
      if (error instanceof server.NoSession) {
        clearInterval(timer);
        return leave("The session is over: it ended by time, by the gateway's restart, or because it was logged out.");
      }
      setState("bad", "the gateway does not answer");
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }
}

byId("kill").addEventListener("click", killOrServe);
byId("logout").addEventListener("click", () => server.logOut().then(() => leave("You logged out."), (error) => notice(error.message)));
byId("by-hours").addEventListener("click", () => chooseTime(true));
byId("by-days").addEventListener("click", () => chooseTime(false));
byId("ask-no").addEventListener("click", () => byId("ask").close(""));
byId("ask-form").addEventListener("submit", (event) => {
  event.preventDefault();
  byId("ask").close("yes");
});
byId("explain-close").addEventListener("click", () => byId("explain").close());
// A link that is opened in a window that shows the page already only changes what is behind its `#`.
addEventListener("hashchange", () => location.reload());
void run();
