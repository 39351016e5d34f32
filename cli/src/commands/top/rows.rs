//! The panes of the view, and what each says of an overview: rows of cells.

use gateway::overview::{
    AgentToday, BudgetStanding, Overview, Refusal, RiskSighting, RiskStanding, RunningRequest,
};
use policy::TimestampUs;
use serde::Serialize;
use serde_json::Value;

use crate::columns::Column;
use crate::format::{bar, local_clock, percent, plain, rough, short, usd};

/// The cells of a budget's bar.
const BAR: usize = 12;

/// A part of the screen that lists something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Pane {
    #[default]
    Requests,
    Budgets,
    Agents,
    Refusals,
    Risk,
}

/// Something in a pane.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// What it is known by while rows move about.
    pub(super) key: String,
    pub(super) cells: Vec<String>,
    pub(super) tone: Tone,
    /// The agent that it is about.
    pub(super) agent: Option<String>,
    /// Everything about it.
    pub(super) detail: Value,
}

/// How much a row matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tone {
    #[default]
    Plain,
    Warning,
    Alarm,
}

impl Pane {
    pub(super) const ALL: [Self; 5] =
        [Self::Requests, Self::Budgets, Self::Agents, Self::Refusals, Self::Risk];

    pub(super) fn index(self) -> usize {
        Self::ALL.iter().position(|pane| *pane == self).unwrap_or(0)
    }

    /// The pane so many places further on.
    pub(super) fn step(self, by: isize) -> Self {
        let count = Self::ALL.len();
        Self::ALL[self.index().saturating_add(count).saturating_add_signed(by) % count]
    }

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Requests => "in flight",
            Self::Budgets => "budgets",
            Self::Agents => "agents",
            Self::Refusals => "refused or cut",
            Self::Risk => "risk",
        }
    }

    /// What is said where there is nothing.
    pub(super) fn when_empty(self) -> &'static str {
        match self {
            Self::Requests => "nothing runs",
            Self::Budgets => "no budgets; tokfence budget set SUBJECT AMOUNT PERIOD",
            Self::Agents => "no agents; tokfence agent mint NAME",
            Self::Refusals => "nothing was refused",
            Self::Risk => "nothing was seen",
        }
    }

    pub(super) fn columns(self) -> &'static [Column] {
        use Column::{Left, Right};
        match self {
            Self::Requests => &[
                Left("agent"),
                Left("provider"),
                Left("model"),
                Right("in"),
                Right("out"),
                Right("cost"),
                Right("for"),
            ],
            Self::Budgets => &[
                Left("budget"),
                Left(""),
                Right("used"),
                Right("spent"),
                Right("held"),
                Right("limit"),
                Right("renews"),
            ],
            Self::Agents => &[
                Left("agent"),
                Left("state"),
                Right("running"),
                Right("requests"),
                Right("refused"),
                Right("cost today"),
                Right("last used"),
            ],
            Self::Refusals => &[Left("time"), Left("agent"), Left("provider"), Left("code"), Left("reason")],
            Self::Risk => &[Left("time"), Left("who"), Left("signal"), Left("state"), Left("done")],
        }
    }
}

/// What a pane lists.
pub(super) fn rows(pane: Pane, overview: &Overview) -> Vec<Row> {
    let now = overview.at;
    match pane {
        Pane::Requests => overview.requests.iter().map(|request| of_request(request, now)).collect(),
        Pane::Budgets => overview.budgets.iter().map(|budget| of_budget(budget, now)).collect(),
        Pane::Agents => overview.agents.iter().map(|agent| of_agent(agent, now)).collect(),
        Pane::Refusals => overview.refusals.iter().map(of_refusal).collect(),
        Pane::Risk => {
            let standings = overview.risks.iter().map(of_standing);
            standings.chain(overview.risk_events.iter().map(of_sighting)).collect()
        }
    }
}

/// Everything about something, its texts free of what a terminal would obey.
fn row(key: &str, tone: Tone, agent: Option<&str>, of: &impl Serialize, cells: Vec<String>) -> Row {
    Row {
        key: key.to_owned(),
        cells: cells.iter().map(|cell| plain(cell)).collect(),
        tone,
        agent: agent.map(str::to_owned),
        detail: serde_json::to_value(of).unwrap_or_default(),
    }
}

fn or_dash(text: Option<&str>) -> String {
    text.unwrap_or("-").to_owned()
}

fn of_request(request: &RunningRequest, now: TimestampUs) -> Row {
    let about = if request.is_estimated { "~" } else { "" };
    let cost = request.cost_usd.map_or_else(|| "?".to_owned(), |cost| format!("{about}{}", usd(cost)));
    let cells = vec![
        request.agent.clone(),
        request.provider.clone(),
        or_dash(request.model.as_deref()),
        short(request.input_tokens),
        short(request.output_tokens),
        cost,
        rough(now - request.started_at),
    ];
    let tone = if request.is_cut { Tone::Warning } else { Tone::Plain };
    row(&request.id, tone, Some(&request.agent), request, cells)
}

fn of_budget(budget: &BudgetStanding, now: TimestampUs) -> Row {
    let (spent, held, limit) = (budget.spent.number, budget.reserved.number, budget.limit.number);
    let part = |number: i64| u64::try_from(number).unwrap_or(0);
    let used = percent(part(spent.saturating_add(held)), part(limit));
    let cells = vec![
        budget.name.clone(),
        bar(spent, held, limit, BAR),
        if used.is_empty() { "0%".to_owned() } else { used },
        budget.spent.to_string(),
        budget.reserved.to_string(),
        budget.limit.to_string(),
        budget.renews_at.map_or_else(|| "never".to_owned(), |at| rough(at - now)),
    ];
    let tone = match budget.left.number {
        left if left <= 0 => Tone::Alarm,
        left if left < limit / 5 => Tone::Warning,
        _ => Tone::Plain,
    };
    row(&budget.name, tone, budget.subject.strip_prefix("agent:"), budget, cells)
}

fn of_agent(agent: &AgentToday, now: TimestampUs) -> Row {
    let (state, tone) = match agent.risk.as_str() {
        _ if agent.is_revoked => ("revoked", Tone::Warning),
        "GREEN" => ("ok", Tone::Plain),
        "YELLOW" => ("YELLOW", Tone::Warning),
        other => (other, Tone::Alarm),
    };
    let unpriced = if agent.unpriced > 0 { "+" } else { "" };
    let cells = vec![
        agent.name.clone(),
        state.to_owned(),
        agent.in_flight.to_string(),
        short(agent.requests),
        short(agent.refused),
        format!("{}{unpriced}", usd(agent.cost_usd)),
        agent.last_used_at.map_or_else(|| "never".to_owned(), |at| format!("{} ago", rough(now - at))),
    ];
    row(&agent.name, tone, Some(&agent.name), agent, cells)
}

fn of_refusal(refusal: &Refusal) -> Row {
    let times = if refusal.repeats > 1 { format!(" ×{}", refusal.repeats) } else { String::new() };
    let cells = vec![
        local_clock(refusal.at),
        or_dash(refusal.agent.as_deref()),
        or_dash(refusal.provider.as_deref()),
        format!("{}{times}", refusal.code),
        refusal.reason.clone(),
    ];
    let tone = if refusal.is_cut { Tone::Warning } else { Tone::Plain };
    row(&refusal.id, tone, refusal.agent.as_deref(), refusal, cells)
}

fn of_standing(standing: &RiskStanding) -> Row {
    let who = standing.agent.as_deref().unwrap_or(&standing.subject);
    let cells = vec![
        local_clock(standing.since),
        who.to_owned(),
        standing.signal.clone(),
        format!("is {}", standing.state),
        String::new(),
    ];
    let tone = if standing.state == "YELLOW" { Tone::Warning } else { Tone::Alarm };
    row(&standing.subject, tone, standing.agent.as_deref(), standing, cells)
}

fn of_sighting(event: &RiskSighting) -> Row {
    let state = match event.state_before == event.state_after {
        true => event.state_after.clone(),
        false => format!("{} to {}", event.state_before, event.state_after),
    };
    let times = if event.repeats > 1 { format!(" ×{}", event.repeats) } else { String::new() };
    let cells = vec![
        local_clock(event.at),
        event.agent.clone().unwrap_or_else(|| event.subject.clone()),
        event.signal.clone(),
        state,
        format!("{}{times}", event.action),
    ];
    row(&event.event.to_string(), Tone::Plain, event.agent.as_deref(), event, cells)
}
