//! Risk: what is reported is an event, the state follows and outlives the process, and an operator lowers it.

use policy::{RiskState, Signal, Subject, TimestampUs};
use storage::{Recorded, RiskAction, RiskSeen, Spot, Store};

use crate::common::Home;
use crate::policy_rows::new;

fn lineage() -> Subject {
    Subject::Capability("aaaaaaaa".parse().unwrap())
}

fn seen(signal: Signal, at: TimestampUs) -> RiskSeen {
    RiskSeen {
        at,
        agent: Some("ci".parse().unwrap()),
        capability: Some("aaaaaaaa".parse().unwrap()),
        provider: Some("openai".parse().unwrap()),
        pattern: "key:openai".to_owned(),
        spot: Some(Spot { form: "plain".into(), view: "escaped".into(), place: "body".into(), offset: 7 }),
        ..RiskSeen::new(signal, lineage(), RiskAction::Refused)
    }
}

fn report(store: &mut Store, signal: Signal, at: TimestampUs) -> Recorded {
    store.report_risk(&seen(signal, at)).unwrap()
}

fn state(store: &Store, subject: &Subject, now: TimestampUs) -> RiskState {
    store.load_policy().unwrap().rules.risks.get(subject).map_or(RiskState::Green, |risk| risk.state_at(now))
}

#[test]
fn what_is_reported_is_written_and_the_state_follows_and_stays() {
    let home = Home::new();
    let mut store = home.store();
    store.mint(&new("aaaaaaaa", "ci"), 1).unwrap();
    let epoch = store.policy_epoch().unwrap();
    let recorded = report(&mut store, Signal::MintingAttempt, 10);
    assert_eq!((recorded.before, recorded.after), (RiskState::Green, RiskState::Orange));
    assert!(store.policy_epoch().unwrap() > epoch, "running daemons see it");
    let event = home.store().risk_event(recorded.seq).unwrap().unwrap();
    assert_eq!(event.seen, seen(Signal::MintingAttempt, 10));
    assert_eq!((event.before, event.after, event.repeats), (RiskState::Green, RiskState::Orange, 1));
    assert_eq!(state(&home.store(), &lineage(), i64::MAX), RiskState::Orange);
    assert_eq!(state(&store, &Subject::Global, 11), RiskState::Green);
}

#[test]
fn the_same_within_a_minute_is_one_event_and_no_further_evidence() {
    let home = Home::new();
    let mut store = home.store();
    let first = report(&mut store, Signal::SecretInRequest, 10);
    let again = report(&mut store, Signal::SecretInRequest, 10 + Signal::SecretInRequest.repeat_us() - 1);
    assert_eq!((again.seq, again.is_new, again.after), (first.seq, false, RiskState::Orange));
    store.repeat_risk(first.seq, 5).unwrap();
    assert_eq!(store.newest_risk_events(9).unwrap().iter().map(|event| event.repeats).sum::<u64>(), 7);
    let later = report(&mut store, Signal::SecretInRequest, 10 + Signal::SecretInRequest.repeat_us());
    assert!(later.is_new);
    assert_eq!((later.before, later.after), (RiskState::Orange, RiskState::Red));
}

#[test]
fn an_operator_lowers_a_state_and_what_follows_counts_again() {
    let home = Home::new();
    let mut store = home.store();
    report(&mut store, Signal::DecoyInRequest, 10);
    let cleared = store.clear_risk(&[lineage(), Subject::Global], "it was a test", 11).unwrap();
    assert_eq!(cleared.len(), 1);
    assert_eq!((cleared[0].before, &cleared[0].subject), (RiskState::Red, &lineage()));
    assert_eq!(state(&store, &lineage(), 11), RiskState::Green);
    assert_eq!(store.risk_clears(9).unwrap(), cleared);
    let again = report(&mut store, Signal::DecoyInRequest, 12);
    assert!(again.is_new, "less than a minute after the first, but the operator has said his word");
    assert_eq!(again.after, RiskState::Red);
    assert!(store.clear_risk(&[Subject::Global], "nothing there", 13).unwrap().is_empty());
}

#[test]
fn what_is_only_logged_changes_no_state() {
    let home = Home::new();
    let mut store = home.store();
    let epoch = store.policy_epoch().unwrap();
    let logged = RiskSeen { is_enforced: false, ..seen(Signal::DecoyInRequest, 10) };
    let recorded = store.report_risk(&logged).unwrap();
    assert_eq!((recorded.before, recorded.after), (RiskState::Green, RiskState::Green));
    assert_eq!(store.policy_epoch().unwrap(), epoch);
}

#[test]
fn the_canary_of_the_vault_is_evidence_against_everybody() {
    let home = Home::new();
    let mut store = home.store();
    report(&mut store, Signal::VaultCanary, 10);
    assert_eq!(state(&store, &Subject::Global, 11), RiskState::Red);
    assert_eq!(state(&store, &lineage(), 11), RiskState::Red);
}

#[test]
fn old_events_go_but_for_those_to_which_a_state_refers() {
    let home = Home::new();
    let mut store = home.store();
    let kept = report(&mut store, Signal::DecoyInRequest, 10).seq;
    let logged = RiskSeen { is_enforced: false, ..seen(Signal::KeyEcho, 11) };
    store.report_risk(&logged).unwrap();
    store.delete_older_than(1_000, 100).unwrap();
    let left: Vec<i64> = store.newest_risk_events(9).unwrap().iter().map(|event| event.seq).collect();
    assert_eq!(left, [kept]);
}
