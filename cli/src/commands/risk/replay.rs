//! `risk replay`: what was seen, seen again with other signals enforced, and which requests that would have refused.

use std::collections::BTreeMap;

use clap::Args;
use gateway::overview::form::timestamp;
use policy::{
    CapabilityId, Evidence, Method, Risk, RiskState, RiskVerdict, RouteClass, Rules, Signal, SignalAction,
    Signals, Subject, TimestampUs, YELLOW_US,
};
use serde_json::{Value, json};
use storage::{RiskEvent, Store};

use super::{family, who};
use crate::app::{App, now_us};
use crate::commands::log::READING;
use crate::failure::Failure;
use crate::format::{local_time, parse_instant};

#[derive(Debug, Args)]
pub(crate) struct Replay {
    /// What was seen since then: `7d`, `12h`, `2026-11-25`
    #[arg(long, value_name = "TIME", default_value = "7d")]
    since: String,
    /// With this action for a signal instead of the configured one; `all=enforce` is for every signal
    #[arg(long, value_name = "NAME=ACTION")]
    signal: Vec<String>,
}

/// A time in which somebody would have been in one state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    state: RiskState,
    from: TimestampUs,
    until: TimestampUs,
    signal: Signal,
    event: i64,
}

/// What would have become of somebody.
struct Course {
    subject: Subject,
    spans: Vec<Span>,
    /// Requests that would have been refused.
    refused: u64,
}

impl Replay {
    pub(super) fn run(self, app: &App) -> Result<(), Failure> {
        app.flush_log();
        let store = app.store()?;
        let (now, rules) = (now_us(), store.load_policy()?.rules);
        let since = parse_instant(&self.since, now)?;
        let signals =
            self.signal.iter().try_fold(app.config()?.risk.signals, |signals, text| set(signals, text))?;
        let events = store.risk_events_since(since)?;
        let courses = replay(&events, &clears(&store, since)?, &signals, now);
        let courses = courses.into_iter().map(|(subject, spans)| {
            let refused =
                spans.iter().map(|span| refused(&store, &rules, &subject, span)).sum::<Result<_, _>>()?;
            Ok(Course { subject, spans, refused })
        });
        let courses = app.output.during(READING, || courses.collect::<Result<Vec<Course>, Failure>>())?;
        let document = json!({
            "since": timestamp(since),
            "events": events.len(),
            "signals": Signal::ALL.map(|signal| (signal.to_string(), signals.action(signal).as_str().into()))
                .into_iter().collect::<serde_json::Map<String, Value>>(),
            "courses": courses.iter().map(|course| course.document(&rules)).collect::<Vec<_>>(),
        });
        app.output.data(&document, || describe(&rules, since, events.len(), &courses));
        Ok(())
    }
}

/// The signals with one of them, or all, set as typed.
fn set(signals: Signals, text: &str) -> Result<Signals, Failure> {
    let hint = "such as scope_denials=enforce";
    let (name, action) = text
        .split_once('=')
        .ok_or_else(|| Failure::usage(format!("`{text}` is not NAME=ACTION")).with_hint(hint))?;
    let action: SignalAction = action.parse().map_err(|error: policy::UnknownSignalAction| {
        Failure::usage(format!("`{action}`: {error}")).with_hint(hint)
    })?;
    if name == "all" {
        return Ok(Signal::ALL.into_iter().fold(signals, |signals, signal| signals.with(signal, action)));
    }
    let signal: Signal =
        name.parse().map_err(|error: policy::UnknownSignal| Failure::usage(format!("`{name}`: {error}")))?;
    Ok(signals.with(signal, action))
}

/// What operators lowered since then, and when.
fn clears(store: &Store, since: TimestampUs) -> Result<Vec<(TimestampUs, Subject)>, Failure> {
    let clears = store.risk_clears(u32::MAX)?.into_iter().filter(|clear| clear.at >= since);
    Ok(clears.map(|clear| (clear.at, clear.subject)).collect())
}

/// The courses that states would have taken.
fn replay(
    events: &[RiskEvent],
    clears: &[(TimestampUs, Subject)],
    signals: &Signals,
    now: TimestampUs,
) -> BTreeMap<Subject, Vec<Span>> {
    let mut steps: Vec<(TimestampUs, Subject, Option<Evidence>)> =
        clears.iter().map(|(at, subject)| (*at, subject.clone(), None)).collect();
    for event in events.iter().filter(|event| signals.action(event.seen.signal) == SignalAction::Enforce) {
        let seen = &event.seen;
        let evidence = Evidence { signal: seen.signal, at: seen.at, event: event.seq };
        let everybody = seen.signal.is_everybodys().then_some(Subject::Global);
        let subjects = std::iter::once(seen.subject.clone()).chain(everybody);
        steps.extend(subjects.map(|subject| (seen.at, subject, Some(evidence))));
    }
    steps.sort_by_key(|(at, _, _)| *at);
    let mut courses: BTreeMap<Subject, Vec<(TimestampUs, Risk)>> = BTreeMap::new();
    for (at, subject, evidence) in steps {
        let course = courses.entry(subject).or_default();
        let before = course.last().map(|(_, risk)| *risk);
        let after = match evidence {
            Some(evidence) => Risk::after(before.as_ref(), evidence),
            None => before.map(|before| before.cleared(at)),
        };
        course.extend(after.filter(|after| before != Some(*after)).map(|after| (at, after)));
    }
    let spans = courses.into_iter().map(|(subject, course)| (subject, spans(&course, now)));
    spans.filter(|(_, spans)| !spans.is_empty()).collect()
}

/// The times in which a state stood: each to the next change, YELLOW no longer than it lasts by itself.
fn spans(course: &[(TimestampUs, Risk)], now: TimestampUs) -> Vec<Span> {
    let ends = course.iter().skip(1).map(|(at, _)| *at).chain([now]);
    let mut spans: Vec<Span> = Vec::new();
    for ((from, risk), end) in course.iter().zip(ends) {
        let lasts = if risk.state == RiskState::Yellow { from.saturating_add(YELLOW_US) } else { end };
        let Risk { state, signal, event, .. } = *risk;
        let span = Span { state, from: *from, until: end.min(lasts), signal, event };
        match spans.last_mut() {
            _ if state == RiskState::Green => {}
            Some(last) if last.until == span.from && last.event == event => last.until = span.until,
            _ => spans.push(span),
        }
    }
    spans
}

/// How many requests in the log the state would have refused by their route.
fn refused(store: &Store, rules: &Rules, subject: &Subject, span: &Span) -> Result<u64, Failure> {
    let nobody =
        "replayed".parse().map_err(|error: policy::InvalidName| Failure::usage(error.to_string()))?;
    let verdict = RiskVerdict { state: span.state, cause: None };
    let is_refused = |class: RouteClass| verdict.check_route(&nobody, class, Method::Get).is_err();
    let capabilities: Option<Vec<CapabilityId>> = match subject {
        Subject::Capability(root) => Some(family(rules, *root)),
        Subject::Global | Subject::Agent(_) | Subject::Provider(_) => None,
    };
    let agent = match subject {
        Subject::Agent(name) => Some(name),
        Subject::Global | Subject::Capability(_) | Subject::Provider(_) => None,
    };
    Ok(store.count_answered(agent, capabilities.as_deref(), (span.from, span.until), is_refused)?)
}

impl Course {
    fn document(&self, rules: &Rules) -> Value {
        json!({
            "subject": self.subject.to_string(),
            "agent": rules.agent_of(&self.subject).map(policy::AgentName::as_str),
            "states": self.spans.iter().map(|span| json!({
                "state": span.state.as_str(),
                "from": timestamp(span.from),
                "until": timestamp(span.until),
                "signal": span.signal.as_str(),
                "event": span.event,
            })).collect::<Vec<_>>(),
            "refused_requests": self.refused,
        })
    }
}

fn describe(rules: &Rules, since: TimestampUs, events: usize, courses: &[Course]) -> String {
    let noun = if events == 1 { "event" } else { "events" };
    let mut lines = vec![format!("{events} {noun} since {}", local_time(since))];
    if courses.is_empty() {
        lines.push("nobody would have been restricted".to_owned());
    }
    for course in courses {
        lines.push(String::new());
        lines.push(who(rules, &course.subject));
        lines.extend(course.spans.iter().map(|span| {
            let Span { state, from, until, signal, event } = span;
            format!("  {state:6}  {} to {}  {signal}, event {event}", local_time(*from), local_time(*until))
        }));
        let noun = if course.refused == 1 { "request" } else { "requests" };
        lines.push(format!("  {} {noun} of the log would have been refused by their route", course.refused));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use storage::{RiskAction, RiskSeen};

    fn event(seq: i64, signal: Signal, at: TimestampUs) -> RiskEvent {
        let subject = Subject::Capability("aaaaaaaa".parse().unwrap());
        let seen = RiskSeen { at, ..RiskSeen::new(signal, subject, RiskAction::Logged) };
        RiskEvent { seq, seen, before: RiskState::Green, after: RiskState::Green, repeats: 1 }
    }

    fn states(
        events: &[RiskEvent],
        clears: &[(TimestampUs, Subject)],
        now: TimestampUs,
    ) -> Vec<(RiskState, i64, i64)> {
        let courses = replay(events, clears, &Signals::default(), now);
        let spans = courses.into_values().flatten();
        spans.map(|span| (span.state, span.from, span.until)).collect()
    }

    #[test]
    fn a_state_stands_to_its_end_or_until_it_was_lowered() {
        let subject = event(1, Signal::KeyEcho, 0).seen.subject;
        let yellow = event(1, Signal::ScopeDenials, 100);
        assert_eq!(
            states(std::slice::from_ref(&yellow), &[], i64::MAX),
            [(RiskState::Yellow, 100, 100 + YELLOW_US)]
        );
        let again = event(2, Signal::ScopeDenials, 200);
        assert_eq!(states(&[yellow.clone(), again], &[], 300), [(RiskState::Yellow, 100, 300)]);
        let red = event(3, Signal::DecoyInRequest, 150);
        let both = [(RiskState::Yellow, 100, 150), (RiskState::Red, 150, 400)];
        assert_eq!(states(&[yellow, red], &[(400, subject)], 900), both);
    }

    #[test]
    fn what_is_not_enforced_or_leads_nowhere_restricts_nobody() {
        assert!(states(&[event(1, Signal::SecretShaped, 100)], &[], 900).is_empty());
        let off = Signals::default().with(Signal::DecoyInRequest, SignalAction::Log);
        assert!(replay(&[event(1, Signal::DecoyInRequest, 100)], &[], &off, 900).is_empty());
    }

    #[test]
    fn a_slip_in_a_signal_is_told() {
        let signals = Signals::default();
        assert_eq!(set(signals, "key_echo=off").unwrap().action(Signal::KeyEcho), SignalAction::Off);
        assert!(
            ["key_echo", "key_echo=on", "key=off", "=log"].iter().all(|text| set(signals, text).is_err())
        );
        let all = set(signals, "all=log").unwrap();
        assert!(Signal::ALL.iter().all(|signal| all.action(*signal) == SignalAction::Log));
    }
}
