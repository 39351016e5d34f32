//! A daemon that is killed under load: what the provider billed is charged at the next start, and the books balance.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{answer, cost, gateway, question, set, standing};
use crate::support::{Client, Gateway, Then, eventually, json};

const CALLERS: usize = 8;
const INPUT: u64 = 10;
const OUTPUT: u64 = 300;

/// How often the daemon is killed: a few times in an ordinary run; `TOKFENCE_TEST_KILLS` says how often otherwise.
fn kills() -> u64 {
    std::env::var("TOKFENCE_TEST_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(12)
}

/// A provider that counts the requests that it got, which is what it bills.
struct Provider {
    script: String,
    received: Arc<AtomicI64>,
}

impl Provider {
    fn of(gateway: &Gateway) -> Self {
        let received = Arc::new(AtomicI64::new(0));
        let (count, answer) = (received.clone(), json(answer(INPUT, OUTPUT)));
        let script = gateway.mock.script(move |_, conn| {
            count.fetch_add(1, Ordering::SeqCst);
            conn.send(&answer).map(|()| Then::Keep)
        });
        Self { script, received }
    }

    fn received(&self) -> i64 {
        self.received.load(Ordering::SeqCst)
    }
}

/// Asks until it is told to stop; a daemon that dies is no reason to.
fn ask_on(gateway: &Gateway, provider: &Provider, is_over: &AtomicBool) {
    let request = question(&provider.script, OUTPUT).bearer(&gateway.token).bytes();
    while !is_over.load(Ordering::SeqCst) {
        let Ok(mut client) = Client::try_unix(&gateway.socket()) else { continue };
        while !is_over.load(Ordering::SeqCst) {
            if client.try_send(&request).is_err() || client.try_response().is_err() {
                break;
            }
        }
    }
}

/// Says that it is over when it is dropped.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Kills the daemon while requests are at every stage.
fn kill_under_load(gateway: &Gateway, provider: &Provider, after: Duration) {
    let is_over = AtomicBool::new(false);
    let before = provider.received();
    std::thread::scope(|scope| {
        // However this ends, a failed test included.
        let _over = Over(&is_over);
        for _ in 0..CALLERS {
            scope.spawn(|| ask_on(gateway, provider, &is_over));
        }
        eventually("requests at the provider", || (provider.received() > before).then_some(()));
        let due = Instant::now() + after;
        while Instant::now() < due {
            std::hint::spin_loop();
        }
        gateway.home.signal(Signal::KILL);
    });
    gateway.home.wait_for_end();
}

#[track_caller]
fn check_books(gateway: &Gateway, provider: &Provider, round: u64) {
    let billed = provider.received() * cost(INPUT, OUTPUT);
    let now = standing(gateway, "agent:tester/total");
    assert!(now.spent >= billed, "round {round}: {} charged of {billed} billed", now.spent);
    assert_eq!(now.reserved, 0, "round {round}: nothing stays held");
    let conn = rusqlite::Connection::open(gateway.home.file("tokfence.db")).unwrap();
    let logged: i64 =
        conn.query_row("SELECT coalesce(sum(cost_nano_usd), 0) FROM requests", [], |row| row.get(0)).unwrap();
    assert_eq!(now.spent, logged + now.forfeited, "round {round}: the books balance");
    let verdict: String = conn.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(verdict, "ok", "round {round}");
}

#[track_caller]
fn check_kills(reserve: &str) {
    let mut gateway = gateway(reserve);
    let provider = Provider::of(&gateway);
    for round in 0..kills() {
        // Each kill may cost a hundredth of the budget, so that a fixed one would be used up after some hundred.
        set(&gateway, "agent:tester", &(100_000 * (round + 1)).to_string(), "total");
        // Different moments, the same in every run.
        kill_under_load(&gateway, &provider, Duration::from_micros(round * 7_919 % 20_000));
        gateway.start_again();
        check_books(&gateway, &provider, round);
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
