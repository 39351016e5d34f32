//! What was seen once, explained: the same words on the command line and on the owner's page.

use policy::{RiskState, Rules, Signal, Subject, TimestampUs};
use serde::Serialize;
use storage::RiskEvent;

use super::form::timestamp;

/// An event, explained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// What there is to say, each under a name of one word.
    pub facts: Vec<(&'static str, String)>,
    /// What follows from it at present, and what ends that, in sentences.
    pub consequences: Vec<String>,
}

impl Explanation {
    /// Of an event, by the rules at `now`.
    pub fn of(rules: &Rules, event: &RiskEvent, now: TimestampUs) -> Self {
        Self { facts: facts(rules, event), consequences: consequences(rules, event, now) }
    }
}

fn facts(rules: &Rules, event: &RiskEvent) -> Vec<(&'static str, String)> {
    let seen = &event.seen;
    let mut facts = vec![
        ("event", event.seq.to_string()),
        ("at", timestamp(seen.at)),
        ("signal", format!("{}: {}", seen.signal, seen.signal.reason())),
        ("who", who(rules, &seen.subject)),
    ];
    facts.extend(seen.capability.map(|id| ("presented", format!("capability {id}"))));
    facts.extend(seen.provider.as_ref().map(|provider| {
        let path = seen.path.as_ref().map(ToString::to_string).unwrap_or_default();
        ("asked for", format!("{provider} {path}"))
    }));
    facts.extend(found(event).map(|found| ("found", found)));
    facts.push(("done", seen.action.to_string()));
    let manner = if seen.is_enforced { "" } else { ", because the signal is not enforced" };
    facts.push(("state", format!("{}{manner}", change(event))));
    if event.repeats > 1 {
        facts.push(("times", format!("{} within a short time", event.repeats)));
    }
    facts.extend(seen.request.map(|id| ("request", format!("tokfence log {id}"))));
    facts
}

/// What was found where; of text that was looked for, how it was written.
fn found(event: &RiskEvent) -> Option<String> {
    let seen = &event.seen;
    if seen.pattern.is_empty() {
        return None;
    }
    let Some(spot) = &seen.spot else { return Some(seen.pattern.clone()) };
    let view = if spot.view == "plain" { String::new() } else { format!(", behind {} escapes", spot.view) };
    let (pattern, manner, place, offset) = (&seen.pattern, manner(&spot.form), &spot.place, spot.offset);
    Some(format!("{pattern}, written {manner}{view}; its end is at byte {offset} of the {place}"))
}

/// How a secret was written, after `written`: of the name of a [`policy::scan::Form`].
pub fn manner(form: &str) -> String {
    match form {
        "plain" => "plainly".to_owned(),
        "part" => "in part".to_owned(),
        "reversed" => "backwards".to_owned(),
        other => format!("in {other}"),
    }
}

/// What is known of an event's subject at `now`, if it is restricted.
pub fn present(rules: &Rules, event: &RiskEvent, now: TimestampUs) -> Option<policy::Risk> {
    let risk = rules.risks.get(&event.seen.subject)?;
    (risk.state_at(now) > RiskState::Green).then_some(*risk)
}

fn consequences(rules: &Rules, event: &RiskEvent, now: TimestampUs) -> Vec<String> {
    let seen = &event.seen;
    let Some(risk) = present(rules, event, now) else {
        return vec![format!("{} is GREEN now: nothing is restricted", who(rules, &seen.subject))];
    };
    let way_out = match seen.agent.as_ref().filter(|_| seen.signal != Signal::VaultCanary) {
        Some(agent) => format!("tokfence risk clear {agent} --reason TEXT"),
        None => "tokfence risk clear global --reason TEXT".to_owned(),
    };
    let end = match risk.state {
        RiskState::Yellow => format!("it ends half an hour after the last such event, or by: {way_out}"),
        RiskState::Green | RiskState::Orange | RiskState::Red => format!("only you lower it: {way_out}"),
    };
    vec![format!("{} is {} now: {}", who(rules, &seen.subject), risk.state, risk.state.restriction()), end]
}

/// `GREEN to RED`, or the state that it stayed.
pub fn change(event: &RiskEvent) -> String {
    match event.before == event.after {
        true => event.after.to_string(),
        false => format!("{} to {}", event.before, event.after),
    }
}

/// A subject as people know it: a capability's agent stands beside it.
pub fn who(rules: &Rules, subject: &Subject) -> String {
    match (subject, rules.agent_of(subject)) {
        (Subject::Capability(id), Some(agent)) => format!("{agent}, capability {id}"),
        (Subject::Global, _) => "everything".to_owned(),
        (_, Some(agent)) => agent.to_string(),
        (subject, None) => subject.to_string(),
    }
}
