use proptest::prelude::*;

use super::*;
use crate::{
    AgentName, Capability, DenialCode, Method, ProviderId, RateLimit, RouteClass, Rules, Scope, Subject,
};

fn evidence(signal: Signal, at: TimestampUs) -> Evidence {
    Evidence { signal, at, event: at }
}

fn after(signals: &[(Signal, TimestampUs)]) -> Option<Risk> {
    signals
        .iter()
        .fold(None, |before: Option<Risk>, (signal, at)| Risk::after(before.as_ref(), evidence(*signal, *at)))
}

fn state(signals: &[(Signal, TimestampUs)], now: TimestampUs) -> RiskState {
    after(signals).map_or(RiskState::Green, |risk| risk.state_at(now))
}

#[test]
fn yellow_ends_by_itself_and_nothing_else_does() {
    let mark = (Signal::PromptMarkInResponse, 0);
    assert_eq!(state(&[mark], YELLOW_US - 1), RiskState::Yellow);
    assert_eq!(state(&[mark], YELLOW_US), RiskState::Green);
    assert_eq!(state(&[mark, (Signal::ScopeDenials, 10)], YELLOW_US), RiskState::Yellow, "there was more");
    assert_eq!(state(&[(Signal::MintingAttempt, 0)], i64::MAX), RiskState::Orange);
    assert_eq!(state(&[(Signal::DecoyInRequest, 0)], i64::MAX), RiskState::Red);
}

#[test]
fn a_second_secret_within_a_day_is_no_slip_even_when_the_first_was_cleared() {
    let secret = Signal::SecretInRequest;
    assert_eq!(state(&[(secret, 0)], 1), RiskState::Orange);
    assert_eq!(state(&[(secret, 0), (secret, SECOND_SECRET_US - 1)], SECOND_SECRET_US), RiskState::Red);
    assert_eq!(state(&[(secret, 0), (secret, SECOND_SECRET_US)], SECOND_SECRET_US), RiskState::Orange);
    let cleared = after(&[(secret, 0)]).unwrap().cleared(5);
    assert_eq!(cleared.state_at(5), RiskState::Green);
    let again = Risk::after(Some(&cleared), evidence(secret, 6)).unwrap();
    assert_eq!(again.state_at(6), RiskState::Red);
}

#[test]
fn what_leads_nowhere_changes_nothing() {
    assert_eq!(after(&[(Signal::SecretShaped, 0)]), None);
    let orange = after(&[(Signal::MintingAttempt, 0)]);
    assert_eq!(after(&[(Signal::MintingAttempt, 0), (Signal::KeyEcho, 9)]), orange);
}

#[test]
fn names_are_stable_and_read_back() {
    for signal in Signal::ALL {
        assert_eq!(signal.as_str().parse(), Ok(signal));
    }
    for state in RiskState::ALL {
        assert_eq!(state.as_str().parse(), Ok(state));
    }
    for action in SignalAction::ALL {
        assert_eq!(action.as_str().parse(), Ok(action));
    }
    let mut names: Vec<_> = Signal::ALL.map(Signal::as_str).to_vec();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Signal::ALL.len());
}

#[test]
fn each_signal_has_an_action_of_its_own() {
    for signal in Signal::ALL {
        let off = Signals::default().with(signal, SignalAction::Off);
        for other in Signal::ALL {
            let expected = if other == signal { SignalAction::Off } else { other.default_action() };
            assert_eq!(off.action(other), expected);
        }
    }
}

/// An agent `ci` whose capability `aaaaaaaa` has a child `bbbbbbbb`, and `cccccccc` of another root.
fn family() -> Rules {
    let capability = |id: &str, parent: Option<&str>| Capability {
        id: id.parse().unwrap(),
        secret_hash: [0; 32],
        agent: "ci".parse().unwrap(),
        parent: parent.map(|id| id.parse().unwrap()),
        scope: Scope::OPEN,
        created_at: 0,
        expires_at: None,
        revoked_at: None,
    };
    let capabilities = [
        capability("aaaaaaaa", None),
        capability("bbbbbbbb", Some("aaaaaaaa")),
        capability("cccccccc", None),
    ];
    Rules { capabilities: capabilities.into_iter().map(|one| (one.id, one)).collect(), ..Rules::default() }
}

fn with_risk(subject: Subject, signal: Signal) -> Rules {
    let risk = after(&[(signal, 0)]).unwrap();
    Rules { risks: [(subject, risk)].into_iter().collect(), ..family() }
}

fn state_of(rules: &Rules, id: &str, now: TimestampUs) -> RiskState {
    let capability = &rules.capabilities[&id.parse().unwrap()];
    rules.risk(Some(capability), &capability.agent, now).state
}

#[test]
fn risk_is_a_lineages_an_agents_or_everybodys() {
    let lineage = with_risk(Subject::Capability("aaaaaaaa".parse().unwrap()), Signal::DecoyInRequest);
    let states = ["aaaaaaaa", "bbbbbbbb", "cccccccc"].map(|id| state_of(&lineage, id, 1));
    assert_eq!(states, [RiskState::Red, RiskState::Red, RiskState::Green]);
    for subject in [Subject::Agent("ci".parse().unwrap()), Subject::Global] {
        let rules = with_risk(subject, Signal::VaultCanary);
        assert!(
            ["aaaaaaaa", "bbbbbbbb", "cccccccc"].iter().all(|id| state_of(&rules, id, 1) == RiskState::Red)
        );
    }
    let floor = Rules { risk_floor: RiskState::Yellow, ..family() };
    assert_eq!(state_of(&floor, "cccccccc", 1), RiskState::Yellow);
}

#[track_caller]
fn check_route(signal: Signal, class: RouteClass, method: Method, is_served: bool) {
    let rules = with_risk(Subject::Global, signal);
    let agent: AgentName = "ci".parse().unwrap();
    let served = rules.risk(None, &agent, 1).check_route(&agent, class, method);
    assert_eq!(served.clone().map_err(|denial| denial.code()).is_ok(), is_served, "{signal} {class}");
    if let Err(denial) = served {
        assert_eq!(denial.code(), DenialCode::RiskRestricted);
        assert!(!denial.to_string().contains(signal.reason()), "the caller is not told what was planted");
    }
}

#[test]
fn each_state_serves_less() {
    let (yellow, orange, red) = (Signal::ScopeDenials, Signal::MintingAttempt, Signal::DecoyInRequest);
    check_route(yellow, RouteClass::Generate, Method::Post, true);
    check_route(yellow, RouteClass::File, Method::Get, false);
    check_route(orange, RouteClass::Metadata, Method::Get, true);
    check_route(orange, RouteClass::Metadata, Method::Post, false);
    check_route(orange, RouteClass::Generate, Method::Post, false);
    check_route(orange, RouteClass::Count, Method::Post, false);
    check_route(red, RouteClass::Metadata, Method::Get, false);
}

#[test]
fn who_stays_yellow_for_an_hour_is_not_served_until_it_ends() {
    let mut rules = with_risk(Subject::Global, Signal::ScopeDenials);
    let agent: AgentName = "ci".parse().unwrap();
    let minute = |minutes: i64| minutes * MINUTE_US;
    let check = |rules: &Rules, now| rules.check_risk(None, &agent, now).map_err(|denial| denial.code());
    for at in [20, 40] {
        let before = rules.risks[&Subject::Global];
        let risk = Risk::after(Some(&before), evidence(Signal::ScopeDenials, minute(at))).unwrap();
        rules.risks.insert(Subject::Global, risk);
    }
    assert_eq!(check(&rules, minute(59)), Ok(()));
    assert_eq!(check(&rules, minute(60)), Err(DenialCode::RiskRestricted));
    assert_eq!(check(&rules, minute(70)), Ok(()));
}

#[test]
fn yellow_halves_what_the_caller_may_do_and_nobody_elses() {
    let mut rules = with_risk(Subject::Capability("aaaaaaaa".parse().unwrap()), Signal::ScopeDenials);
    let (agent, provider): (AgentName, ProviderId) = ("ci".parse().unwrap(), "openai".parse().unwrap());
    let child = rules.capabilities[&"bbbbbbbb".parse().unwrap()].clone();
    let own = |limits: &[(Subject, RateLimit)]| {
        let root = Subject::Capability("aaaaaaaa".parse().unwrap());
        limits.iter().find(|(subject, _)| *subject == root).map(|(_, limit)| *limit)
    };
    let limits = rules.rate_limits_at(Some(&child), &agent, &provider, 1);
    assert_eq!(own(&limits).unwrap().requests_per_minute, Some(YELLOW_REQUESTS_PER_MINUTE));
    let global =
        RateLimit { requests_per_minute: Some(9), tokens_per_minute: Some(1_000), concurrent: Some(1) };
    rules.rate_limits.insert(Subject::Global, global);
    let limits = rules.rate_limits_at(Some(&child), &agent, &provider, 1);
    let half = RateLimit { requests_per_minute: Some(5), tokens_per_minute: Some(500), concurrent: Some(1) };
    assert_eq!(own(&limits), Some(half));
    assert!(limits.contains(&(Subject::Global, global)));
    assert_eq!(own(&rules.rate_limits_at(Some(&child), &agent, &provider, YELLOW_US)), None);
}

fn any_signal() -> impl Strategy<Value = Signal> {
    proptest::sample::select(Signal::ALL.to_vec())
}

proptest! {
    #[test]
    fn the_state_falls_only_from_yellow_and_only_by_time(
        seen in proptest::collection::vec((any_signal(), 0..YELLOW_US), 0..12),
    ) {
        let (mut before, mut now): (Option<Risk>, i64) = (None, 0);
        for (signal, later) in seen {
            let state_before = before.map_or(RiskState::Green, |risk| risk.state_at(now));
            now += later;
            let decayed = before.map_or(RiskState::Green, |risk| risk.state_at(now));
            prop_assert!(decayed == state_before || state_before == RiskState::Yellow);
            let risk = Risk::after(before.as_ref(), evidence(signal, now));
            let state = risk.map_or(RiskState::Green, |risk| risk.state_at(now));
            prop_assert!(state >= decayed);
            prop_assert!(state >= signal.leads_to().unwrap_or_default());
            before = risk;
        }
    }

    #[test]
    fn the_order_of_evidence_at_one_instant_does_not_matter(
        mut seen in proptest::collection::vec(any_signal(), 0..8),
    ) {
        let at_once = |seen: &[Signal]| state(&seen.iter().map(|signal| (*signal, 7)).collect::<Vec<_>>(), 7);
        let forwards = at_once(&seen);
        seen.reverse();
        prop_assert_eq!(at_once(&seen), forwards);
    }
}
