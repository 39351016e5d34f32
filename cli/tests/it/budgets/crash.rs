//! A daemon that is killed under load: what the provider billed is charged at the next start, and the books balance.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use policy::NanoUsd;
use rustix::process::Signal;

use super::{answer, cost, gateway, question, set, standing};
use crate::support::{Client, Gateway, eventually, json};

const CALLERS: usize = 8;
const INPUT: u64 = 10;
const OUTPUT: u64 = 300;

/// How often the daemon is killed: a few times in an ordinary run; `TOKFENCE_TEST_KILLS` says how often otherwise.
fn kills() -> u64 {
    std::env::var("TOKFENCE_TEST_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(12)
}

/// Asks until it is told to stop; a daemon that dies is no reason to.
fn ask_on(gateway: &Gateway, script: &str, is_over: &AtomicBool) {
    while !is_over.load(Ordering::SeqCst) {
        let Ok(mut client) = Client::try_unix(&gateway.socket()) else { continue };
        let request = question(script, OUTPUT).bearer(&gateway.token).bytes();
        while !is_over.load(Ordering::SeqCst) {
            if client.try_send(&request).is_err() || client.try_response().is_err() {
                break;
            }
        }
    }
}

/// Kills the daemon while requests are at every stage.
fn kill_under_load(gateway: &Gateway, script: &str, after: Duration) {
    let is_over = AtomicBool::new(false);
    let before = gateway.mock.received(script).len();
    std::thread::scope(|scope| {
        for _ in 0..CALLERS {
            scope.spawn(|| ask_on(gateway, script, &is_over));
        }
        eventually("requests at the provider", || {
            (gateway.mock.received(script).len() > before).then_some(())
        });
        let due = Instant::now() + after;
        while Instant::now() < due {
            std::hint::spin_loop();
        }
        gateway.home.signal(Signal::KILL);
        is_over.store(true, Ordering::SeqCst);
    });
    gateway.home.wait_for_end();
}

#[track_caller]
fn check_books(gateway: &Gateway, script: &str, round: u64) {
    let received = i64::try_from(gateway.mock.received(script).len()).unwrap();
    let billed = received * cost(INPUT, OUTPUT);
    let now = standing(gateway, "agent:tester/total");
    assert!(now.spent >= billed, "round {round}: {} charged of {billed} billed", now.spent);
    assert_eq!(now.reserved, 0, "round {round}: nothing stays held");
    let logged = gateway.rows().iter().filter_map(|row| row.request.cost).map(NanoUsd::nanos).sum::<i64>();
    assert_eq!(now.spent, logged + now.forfeited, "round {round}: the books balance");
    let conn = rusqlite::Connection::open(gateway.home.file("tokfence.db")).unwrap();
    let verdict: String = conn.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(verdict, "ok", "round {round}");
}

#[track_caller]
fn check_kills(reserve: &str) {
    let mut gateway = gateway(reserve);
    let script = gateway.mock.plays(json(answer(INPUT, OUTPUT)));
    set(&gateway, "agent:tester", "100000", "total");
    for round in 0..kills() {
        // Different moments, the same in every run.
        kill_under_load(&gateway, &script, Duration::from_micros(round * 7_919 % 20_000));
        gateway.start_again();
        check_books(&gateway, &script, round);
    }
}

#[test]
fn what_a_killed_daemon_let_through_is_charged() {
    check_kills("rolling");
}

#[test]
fn what_a_killed_daemon_let_through_is_charged_in_a_strict_budget() {
    check_kills("strict");
}
