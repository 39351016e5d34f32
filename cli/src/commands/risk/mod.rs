//! `risk`: who is restricted and why, what was seen, and how an operator lowers it.

mod clear;
mod explain;
mod replay;

use clap::{Args, Subcommand};
use gateway::overview::explain::change;
pub(super) use gateway::overview::explain::who;
use gateway::overview::form::timestamp;
use policy::{AgentName, Capability, CapabilityId, ProviderId, Risk as Known, RouteClass, Rules, Subject};
use serde_json::{Value, json};
use storage::{LogText, RiskEvent, Store};

use crate::app::{App, now_us};
use crate::columns::{Column, Columns};
use crate::failure::Failure;
use crate::format::local_time;

/// Events that are shown beside the states.
const RECENT: u32 = 20;

const STATES: [Column; 5] = [
    Column::Left("who"),
    Column::Left("state"),
    Column::SpareLeft("since"),
    Column::Left("because of"),
    Column::Right("event"),
];

const EVENTS: [Column; 8] = [
    Column::Right("event"),
    Column::Left("time"),
    Column::Left("signal"),
    Column::Left("agent"),
    Column::SpareLeft("found"),
    Column::SpareLeft("action"),
    Column::Left("state"),
    Column::SpareRight("times"),
];

#[derive(Debug, Args)]
pub(crate) struct Risk {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show who is restricted, and what was seen last
    Status(Status),
    /// Tell everything about an event: what was seen where, what was done, what follows and what lowers it
    Explain(explain::Explain),
    /// Lower the state of an agent with all its capabilities, of one capability, or of everything, to GREEN
    Clear(clear::Clear),
    /// Tell what would have been refused if signals had been enforced that were not
    Replay(replay::Replay),
}

#[derive(Debug, Args)]
struct Status {
    /// The newest so many events
    #[arg(long, value_name = "N", default_value_t = RECENT)]
    limit: u32,
}

impl Risk {
    pub(crate) fn run(self, app: &App) -> Result<(), Failure> {
        match self.command {
            None => status(app, RECENT),
            Some(Command::Status(Status { limit })) => status(app, limit),
            Some(Command::Explain(explain)) => explain.run(app),
            Some(Command::Clear(clear)) => clear.run(app),
            Some(Command::Replay(replay)) => replay.run(app),
        }
    }
}

fn status(app: &App, limit: u32) -> Result<(), Failure> {
    app.flush_log();
    let (config, store) = (app.config()?, app.store()?);
    let rules = store.load_policy()?.rules;
    let states = rules.restricted(now_us());
    let mut events = store.newest_risk_events(limit)?;
    events.reverse();
    let document = json!({
        "initial_state": config.risk.initial_state.as_str(),
        "states": states.iter().map(|(subject, risk)| state_document(&rules, subject, risk)).collect::<Vec<_>>(),
        "events": events.iter().map(event_document).collect::<Vec<_>>(),
    });
    app.output.data(&document, || {
        let rows: Vec<_> = states.iter().map(|(subject, risk)| state_cells(&rules, subject, risk)).collect();
        let states = Columns::table(&STATES, &rows, &format!("everybody is {}", config.risk.initial_state));
        let rows: Vec<_> = events.iter().map(event_cells).collect();
        let events = Columns::table(&EVENTS, &rows, "nothing was seen");
        format!("{states}\n\n{events}")
    });
    if !states.is_empty() {
        app.output.note("tokfence risk explain EVENT, tokfence risk clear AGENT --reason TEXT");
    }
    Ok(())
}

fn state_document(rules: &Rules, subject: &Subject, risk: &Known) -> Value {
    json!({
        "subject": subject.to_string(),
        "agent": rules.agent_of(subject).map(AgentName::as_str),
        "state": risk.state.as_str(),
        "since": timestamp(risk.since),
        "last_evidence_at": timestamp(risk.last_evidence_at),
        "signal": risk.signal.as_str(),
        "event": risk.event,
    })
}

fn state_cells(rules: &Rules, subject: &Subject, risk: &Known) -> Vec<String> {
    vec![
        who(rules, subject),
        risk.state.to_string(),
        local_time(risk.since),
        risk.signal.to_string(),
        risk.event.to_string(),
    ]
}

/// Every subject under which an agent can be known: itself, and what an owner minted for it.
fn subjects_of(rules: &Rules, agent: &AgentName) -> Vec<Subject> {
    let is_minted = |capability: &&Capability| capability.parent.is_none() && capability.agent == *agent;
    let minted = rules.capabilities.values().filter(is_minted);
    let minted = minted.map(|capability| Subject::Capability(capability.id));
    std::iter::once(Subject::Agent(agent.clone())).chain(minted).collect()
}

/// The capability and all that come from it.
fn family(rules: &Rules, root: CapabilityId) -> Vec<CapabilityId> {
    let of_family = rules.capabilities.values().filter(|other| rules.root(other).id == root);
    of_family.map(|capability| capability.id).collect()
}

fn event_document(event: &RiskEvent) -> Value {
    let RiskEvent { seq, seen, before, after, repeats } = event;
    let spot = seen.spot.as_ref();
    json!({
        "event": seq,
        "at": timestamp(seen.at),
        "signal": seen.signal.as_str(),
        "subject": seen.subject.to_string(),
        "agent": seen.agent.as_ref().map(AgentName::as_str),
        "capability": seen.capability.as_ref().map(CapabilityId::as_str),
        "provider": seen.provider.as_ref().map(ProviderId::as_str),
        "route_class": seen.route_class.map(RouteClass::as_str),
        "path": seen.path.as_ref().map(LogText::as_str),
        "request": seen.request.map(|id| id.to_string()),
        "pattern": seen.pattern,
        "form": spot.map(|spot| &spot.form),
        "view": spot.map(|spot| &spot.view),
        "place": spot.map(|spot| &spot.place),
        "offset": spot.map(|spot| spot.offset),
        "action": seen.action.as_str(),
        "is_enforced": seen.is_enforced,
        "state_before": before.as_str(),
        "state_after": after.as_str(),
        "repeats": repeats,
    })
}

fn event_cells(event: &RiskEvent) -> Vec<String> {
    let seen = &event.seen;
    vec![
        event.seq.to_string(),
        local_time(seen.at),
        seen.signal.to_string(),
        seen.agent.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
        if seen.pattern.is_empty() { "-".to_owned() } else { seen.pattern.clone() },
        seen.action.to_string(),
        change(event),
        event.repeats.to_string(),
    ]
}

/// The agent of a name that somebody typed; requests without a capability have one of their own.
fn find_agent(store: &Store, text: &str) -> Result<AgentName, Failure> {
    const ANONYMOUS: &str = "anonymous";
    if text == ANONYMOUS {
        return crate::commands::agent::parse_agent(ANONYMOUS);
    }
    crate::commands::agent::find_agent(store, text)
}
