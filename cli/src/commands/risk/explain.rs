//! `risk explain`: one event, whole.

use clap::Args;
use policy::{RiskState, Rules, Signal};
use serde_json::json;
use storage::RiskEvent;

use super::{change, event_document, state_document, who};
use crate::app::{App, now_us};
use crate::commands::stop::timestamp;
use crate::failure::{Exit, Failure};

#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// The number of the event
    event: i64,
}

impl Explain {
    pub(super) fn run(self, app: &App) -> Result<(), Failure> {
        app.flush_log();
        let store = app.store()?;
        let rules = store.load_policy()?.rules;
        let event = store.risk_event(self.event)?.ok_or_else(|| {
            let message = format!("there is no event {}", self.event);
            Failure::new(Exit::NotFound, "no_such_event", message).with_hint("tokfence risk status")
        })?;
        let document = json!({
            "event": event_document(&event),
            "reason": event.seen.signal.reason(),
            "state": now(&rules, &event).map(|risk| state_document(&rules, &event.seen.subject, &risk)),
        });
        app.output.data(&document, || describe(&rules, &event).join("\n"));
        Ok(())
    }
}

/// What is known of the subject at present, if it is restricted.
fn now(rules: &Rules, event: &RiskEvent) -> Option<policy::Risk> {
    let risk = rules.risks.get(&event.seen.subject)?;
    (risk.state_at(now_us()) > RiskState::Green).then_some(*risk)
}

fn describe(rules: &Rules, event: &RiskEvent) -> Vec<String> {
    let seen = &event.seen;
    let mut lines = vec![
        format!("event      {}, at {}", event.seq, timestamp(seen.at)),
        format!("signal     {}: {}", seen.signal, seen.signal.reason()),
        format!("who        {}", who(rules, &seen.subject)),
    ];
    lines.extend(seen.capability.map(|id| format!("presented  capability {id}")));
    lines.extend(seen.provider.as_ref().map(|provider| {
        let path = seen.path.as_ref().map(ToString::to_string).unwrap_or_default();
        format!("asked for  {provider} {path}")
    }));
    lines.extend(found(event));
    lines.push(format!("done       {}", seen.action));
    let manner = if seen.is_enforced { "" } else { ", because the signal is not enforced" };
    lines.push(format!("state      {}{manner}", change(event)));
    if event.repeats > 1 {
        lines.push(format!("times      {} within a short time", event.repeats));
    }
    lines.extend(seen.request.map(|id| format!("request    tokfence log {id}")));
    lines.push(String::new());
    lines.extend(consequences(rules, event));
    lines
}

/// What was found where; of text that was looked for, how it was written.
fn found(event: &RiskEvent) -> Option<String> {
    let seen = &event.seen;
    if seen.pattern.is_empty() {
        return None;
    }
    let Some(spot) = &seen.spot else { return Some(format!("found      {}", seen.pattern)) };
    let view = if spot.view == "plain" { String::new() } else { format!(", behind {} escapes", spot.view) };
    let (pattern, form, place, offset) = (&seen.pattern, &spot.form, &spot.place, spot.offset);
    Some(format!("found      {pattern}, written {form}{view}; its end is at byte {offset} of the {place}"))
}

fn consequences(rules: &Rules, event: &RiskEvent) -> Vec<String> {
    let seen = &event.seen;
    let Some(risk) = now(rules, event) else {
        return vec![format!("{} is GREEN now: nothing is restricted", who(rules, &seen.subject))];
    };
    let way_out = match seen.agent.as_ref().filter(|_| seen.signal != Signal::VaultCanary) {
        Some(agent) => format!("tokfence risk clear {agent} --reason TEXT"),
        None => "tokfence risk clear global --reason TEXT".to_owned(),
    };
    let end = match risk.state {
        RiskState::Yellow => format!("it ends half an hour after the last such event, or by: {way_out}"),
        _ => format!("only you lower it: {way_out}"),
    };
    vec![format!("{} is {} now: {}", who(rules, &seen.subject), risk.state, risk.state.restriction()), end]
}
