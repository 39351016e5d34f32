use std::net::TcpListener;
use std::time::Instant;

use policy::{Signal, Subject, Unit};

use super::*;
use crate::config::OutboundUrl;

const AT: TimestampUs = 1_764_000_000_000_000;

fn warning() -> Warning {
    let limit = Unit::NanoUsd.of(10_000_000_000);
    Warning { budget: "agent:ci/daily".to_owned(), percent: 81, limit, spent: 8_123_000_000 }
}

#[test]
fn a_budget_is_told_of_in_words_and_in_figures() {
    let document = Notice::budget(&warning()).document(AT);
    assert_eq!(
        document.to_string(),
        r#"{"kind":"budget_warning","level":"warning","text":"tokfence: 81 % of the budget agent:ci/daily is spent ($8.123000 of $10.000000)","at":"2025-11-24T16:00:00Z","details":{"budget":"agent:ci/daily","percent":81,"spent":"$8.123000","limit":"$10.000000"}}"#
    );
}

#[test]
fn risk_is_told_of_with_its_event() {
    let agent: policy::AgentName = "ci".parse().unwrap();
    let mut notice = RiskNotice {
        state: RiskState::Red,
        signal: Signal::DecoyInRequest,
        subject: Subject::Agent(agent.clone()),
        agent: Some(agent.to_string()),
        event: 7,
    };
    assert_eq!(
        Notice::risk(&notice).document(AT).to_string(),
        r#"{"kind":"risk","level":"critical","text":"tokfence: the agent `ci` is RED: a planted key was in a request; tokfence risk explain 7","at":"2025-11-24T16:00:00Z","details":{"state":"RED","signal":"decoy_in_request","subject":"agent:ci","agent":"ci","event":7}}"#
    );
    notice.state = RiskState::Orange;
    assert_eq!(Notice::risk(&notice).level, Level::Warning);
}

#[test]
fn a_leak_is_told_of_with_what_was_done() {
    let mut leak = Leak {
        provider: "openai".parse().unwrap(),
        kind: FindingKind::IdleUse,
        finding: 3,
        model: None,
        begin: AT,
        end: AT + 3_600_000_000,
        is_revoked: false,
    };
    assert_eq!(
        Notice::leak(&leak).document(AT).to_string(),
        r#"{"kind":"leak","level":"critical","text":"tokfence: openai: the provider reports use while nothing went through this gateway; tokfence watch --once","at":"2025-11-24T16:00:00Z","details":{"provider":"openai","finding":3,"signal":"idle_use","model":null,"begin":"2025-11-24T16:00:00Z","end":"2025-11-24T17:00:00Z","is_revoked":false}}"#
    );
    leak.is_revoked = true;
    assert!(Notice::leak(&leak).message().contains("; it is revoked;"));
}

#[test]
fn a_slow_address_holds_up_nobody() {
    // It takes connections and never says anything.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let place = tempfile::tempdir().unwrap();
    let told = place.path().join("told");
    let script = format!("echo \"$1\" >> {}", told.display());
    let config = Notifications {
        budget_warning_percent: 80,
        command: ["sh", "-c", &script, "sh"].map(str::to_owned).to_vec(),
        webhook: Some(OutboundUrl::parse(&url).unwrap()),
        desktop: false,
    };
    let notifier = Notifier::default();
    let since = Instant::now();
    notifier.tell(&[Notice::budget(&warning()), Notice::budget(&warning())], &config);
    assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
    notifier.programs.finish(Duration::from_secs(10));
    assert_eq!(std::fs::read_to_string(told).unwrap().lines().count(), 2, "the command does not wait for it");
    notifier.finish(Duration::from_millis(10));
}
