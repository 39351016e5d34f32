// The tables of the page: each is made once, and then told what to show.

import { amount, amountNumber, button, byId, count, el, instant, keyed, plural, setText, span, table, usd } from "./dom.js";

const right = "number";

function badge(cell, text, kind) {
  const shown = cell.firstElementChild ?? cell.appendChild(el("span"));
  setText(shown, text);
  shown.className = `badge ${kind}`;
}

/// A button in a cell that stays while the table changes around it.
function action(cell, text, className, label, onClick) {
  const shown = cell.firstElementChild ?? cell.appendChild(button("", "", () => shown.act()));
  shown.act = onClick;
  setText(shown, text);
  shown.className = className;
  shown.setAttribute("aria-label", label);
}

export function live() {
  let now = "";
  const show = table(byId("live"), [
    { name: "Agent", text: (request) => request.agent },
    { name: "Model", className: "long", text: (request) => request.model ?? "–" },
    { name: "Provider", text: (request) => request.provider },
    { name: "In", className: right, text: (request) => count(request.input_tokens) },
    { name: "Out", className: right, text: (request) => (request.is_estimated ? "~" : "") + count(request.output_tokens) },
    { name: "Cost", className: right, text: (request) => usd(request.cost_usd) },
    { name: "For", className: right, text: (request) => span(request.started_at, now) },
    { name: "", cell: (request, cell) => badge(cell, request.is_cut ? "cut" : request.is_streaming ? "stream" : "waiting", request.is_cut ? "bad" : "good") },
  ], (request) => request.id, "nothing runs at the moment");
  return (overview) => {
    now = overview.at;
    show(overview.requests);
  };
}

export function budgets() {
  const list = el("ul", "budgets"), empty = el("p", "empty", "no budget is set: tokfence budget set global 5.00 daily");
  byId("budgets").append(list, empty);
  const make = () => {
    const bar = el("div", "meter", el("span", "spent"), el("span", "reserved"));
    bar.setAttribute("role", "meter");
    return el("li", "", el("p", "name"), bar, el("p", "small"));
  };
  const update = (item, budget) => {
    const [name, bar, text] = item.children;
    const limit = amountNumber(budget.limit), part = (value) => (limit > 0 ? Math.max(0, amountNumber(value) / limit) : 1);
    const spent = Math.min(1, part(budget.spent)), reserved = Math.min(1 - spent, part(budget.reserved));
    setText(name, budget.name);
    bar.className = `meter ${spent >= 1 ? "full" : spent >= 0.8 ? "high" : ""}`;
    bar.children[0].style.width = `${spent * 100}%`;
    bar.children[1].style.width = `${reserved * 100}%`;
    const held = amountNumber(budget.reserved) > 0 ? `, ${amount(budget.reserved)} reserved` : "";
    const renews = budget.renews_at ? `; renews ${instant(budget.renews_at)}` : "";
    const told = `${amount(budget.spent)} of ${amount(budget.limit)} spent${held}, ${amount(budget.left)} left${renews}`;
    setText(text, told);
    bar.setAttribute("aria-label", budget.name);
    bar.setAttribute("aria-valuetext", told);
    bar.setAttribute("aria-valuemin", "0");
    bar.setAttribute("aria-valuemax", "100");
    bar.setAttribute("aria-valuenow", String(Math.round(spent * 100)));
  };
  return (overview) => {
    empty.hidden = overview.budgets.length > 0;
    keyed(list, overview.budgets, (budget) => budget.name, make, update);
  };
}

const riskKind = { GREEN: "good", YELLOW: "warn", ORANGE: "worse", RED: "bad" };

export function agents(onRevoke, onRestore) {
  const show = table(byId("agents"), [
    { name: "Agent", className: "long", text: (agent) => agent.name },
    { name: "State", cell: (agent, cell) => badge(cell, agent.is_revoked ? "revoked" : agent.risk, agent.is_revoked ? "bad" : riskKind[agent.risk] ?? "") },
    { name: "In flight", className: right, text: (agent) => count(agent.in_flight) },
    { name: "Requests", className: right, text: (agent) => count(agent.requests) },
    { name: "Refused", className: right, text: (agent) => count(agent.refused) },
    { name: "Spent", className: right, text: (agent) => usd(agent.cost_usd) + (agent.unpriced > 0 ? ` +${count(agent.unpriced)} unpriced` : "") },
    { name: "Last used", className: right, text: (agent) => instant(agent.last_used_at) },
    { name: "", className: "act", cell: (agent, cell) => (agent.is_revoked
      ? action(cell, "Restore", "", `Restore ${agent.name}`, () => onRestore(agent.name))
      : action(cell, "Revoke", "danger", `Revoke ${agent.name}`, () => onRevoke(agent.name))) },
  ], (agent) => agent.name, "no agent has a capability yet: tokfence agent mint NAME");
  return (overview) => show(overview.agents);
}

export function providers(onRevoke, onRestore) {
  const show = table(byId("providers"), [
    { name: "Provider", className: "long", text: (provider) => provider.provider },
    { name: "State", cell: (provider, cell) => badge(cell, provider.revoked ? "revoked" : "served", provider.revoked ? "bad" : "good") },
    { name: "Requests", className: right, text: (provider) => count(provider.requests) },
    { name: "Spent", className: right, text: (provider) => usd(provider.cost_usd || "0") },
    { name: "", className: "act", cell: (provider, cell) => (provider.revoked
      ? action(cell, "Restore", "", `Restore ${provider.provider}`, () => onRestore(provider.provider))
      : action(cell, "Revoke", "danger", `Revoke ${provider.provider}`, () => onRevoke(provider.provider))) },
  ], (provider) => provider.provider, "there is no key yet: tokfence vault add openai");
  return (overview, history) => {
    const all = new Map((history?.providers ?? []).map((provider) => [provider.provider, { ...provider }]));
    for (const { provider, reason } of overview.revoked_providers) {
      const known = all.get(provider) ?? { provider, requests: 0, cost_usd: "0" };
      all.set(provider, { ...known, revoked: true, reason });
    }
    show([...all.values()].sort((a, b) => a.provider.localeCompare(b.provider)));
  };
}

export function refusals() {
  const list = el("ul", "events"), empty = el("p", "empty", "nothing was refused");
  byId("refusals").append(list, empty);
  const make = () => el("li", "", el("p", "name"), el("p", "small"));
  const update = (item, refusal) => {
    const [reason, about] = item.children;
    const times = refusal.repeats > 1 ? ` (${plural(refusal.repeats, "time", "times")})` : "";
    setText(reason, `${refusal.is_cut ? "cut: " : ""}${refusal.reason}${times}`);
    const parts = [instant(refusal.at), refusal.agent ?? "nobody", refusal.provider, refusal.model, refusal.status, refusal.code];
    setText(about, parts.filter((part) => part !== null && part !== undefined).join(" · "));
  };
  return (overview) => {
    empty.hidden = overview.refusals.length > 0;
    keyed(list, overview.refusals, (refusal) => refusal.id, make, update);
  };
}

export function risk(onExplain) {
  const standing = el("ul", "events standing"), list = el("ul", "events"), empty = el("p", "empty", "nothing was seen");
  byId("risk").append(standing, list, empty);
  const makeStanding = () => el("li", "", el("p", "name", el("span"), el("span")), el("p", "small"));
  const updateStanding = (item, risk) => {
    const [name, about] = item.children;
    setText(name.children[0], risk.state);
    name.children[0].className = `badge ${riskKind[risk.state] ?? ""}`;
    setText(name.children[1], ` ${risk.agent ?? risk.subject}`);
    setText(about, `${risk.subject} · since ${instant(risk.since)} · ${risk.signal} · tokfence risk clear ${risk.agent ?? "global"}`);
  };
  const make = () => el("li", "row", el("div", "", el("p", "name"), el("p", "small")), button("Explain", "", (event) => onExplain(Number(event.target.dataset.event))));
  const update = (item, seen) => {
    const [text, explain] = item.children, [name, about] = text.children;
    const times = seen.repeats > 1 ? ` (${plural(seen.repeats, "time", "times")})` : "";
    setText(name, `${seen.signal}${times}`);
    const state = seen.state_before === seen.state_after ? seen.state_after : `${seen.state_before} to ${seen.state_after}`;
    setText(about, [instant(seen.at), seen.agent ?? seen.subject, seen.pattern, seen.action, state].filter(Boolean).join(" · "));
    explain.dataset.event = seen.event;
    explain.setAttribute("aria-label", `Explain event ${seen.event}`);
  };
  return (overview) => {
    empty.hidden = overview.risk_events.length > 0 || overview.risks.length > 0;
    keyed(standing, overview.risks, (risk) => risk.subject, makeStanding, updateStanding);
    keyed(list, overview.risk_events, (seen) => seen.event, make, update);
  };
}
