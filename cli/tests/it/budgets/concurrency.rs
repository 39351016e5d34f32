//! Many requests at once, over one process or two: what is let through together never costs more than there is.

use std::sync::Barrier;

use super::{OUTPUT_NANOS, answer, cost, gateway, question, set, standing, usd};
use crate::support::{Gateway, Setup, eventually, json};

const REQUESTS: usize = 100;
const ROUNDS: usize = 20;
const INPUT: u64 = 10;
const OUTPUT: u64 = 1_000;

/// Sends so many requests at the same moment, half of them over the socket, and answers how many were let through.
fn storm(gateways: &[&Gateway], token: &str, script: &str) -> usize {
    let start = Barrier::new(REQUESTS);
    let is_let_through = |index: usize| {
        let gateway = gateways[index % gateways.len()];
        let mut client = if index.is_multiple_of(4) { gateway.unix() } else { gateway.tcp() };
        start.wait();
        let response = client.ask(&question(script, OUTPUT).bearer(token));
        match response.status() {
            200 => true,
            429 if response.code() == "budget_exceeded" => false,
            other => panic!("{other}: {}", response.text()),
        }
    };
    std::thread::scope(|scope| {
        let is_let_through = &is_let_through;
        let threads: Vec<_> = (0..REQUESTS).map(|index| scope.spawn(move || is_let_through(index))).collect();
        threads.into_iter().map(|thread| usize::from(thread.join().unwrap())).sum()
    })
}

/// Storms on gateways that share one database, each on an agent of its own with room for a few requests and not
/// quite one more.
#[track_caller]
fn check_storms(gateways: &[&Gateway], rounds: usize) {
    let gateway = gateways[0];
    let script = gateway.mock.plays(json(answer(INPUT, OUTPUT)));
    let mut seen = 0;
    for round in 0..rounds {
        let agent = format!("storm{round}");
        let token = gateway.mint(&[&agent]);
        let room = 3 + i64::try_from(round).unwrap() % 5;
        // The body is some seventy bytes, and a strict budget reserves a token for each.
        let limit = room * cost(100, OUTPUT) + OUTPUT_NANOS;
        set(gateway, &format!("agent:{agent}"), &usd(limit), "daily");
        let passed = storm(gateways, &token, &script);
        let received = gateway.mock.received(&script).len() - seen;
        seen += received;
        assert_eq!(passed, received, "round {round}");
        let billed = i64::try_from(received).unwrap() * cost(INPUT, OUTPUT);
        assert!(received >= 1 && billed <= limit, "round {round}: {billed} billed of {limit}");
        // A request is settled a moment after its answer.
        eventually(&format!("the books to balance in round {round}"), || {
            gateways.iter().for_each(|gateway| gateway.flush());
            let now = standing(gateway, &format!("agent:{agent}/daily"));
            ((now.spent, now.reserved, now.forfeited) == (billed, 0, 0)).then_some(())
        });
    }
}

#[test]
fn a_hundred_at_once_do_not_pass_a_strict_budget() {
    check_storms(&[&gateway("strict")], ROUNDS);
}

#[test]
fn a_hundred_at_once_do_not_pass_a_rolling_budget() {
    check_storms(&[&gateway("rolling")], ROUNDS);
}

/// Two daemons of two homes over one database, as after an upgrade while the old one still serves.
#[test]
fn two_processes_do_not_pass_a_budget_together() {
    let first = gateway("strict");
    let setup = Setup {
        tables: format!(
            "[budget]\nreserve = \"strict\"\n[logging]\ndb_path = \"{}\"\n",
            first.home.file("tokfence.db").display()
        ),
        ..Setup::default()
    };
    let second = Gateway::start_beside(&setup, &first.mock);
    check_storms(&[&first, &second], 5);
}

/// A daemon and its successors, one after the other, each with what it has borrowed.
#[test]
fn upgrades_in_the_middle_do_not_pass_a_budget() {
    let gateway = gateway("strict");
    std::thread::scope(|scope| {
        let storms = scope.spawn(|| check_storms(&[&gateway], 6));
        while !storms.is_finished() {
            gateway.run(["upgrade"]).expect(0);
        }
        storms.join().unwrap();
    });
}

#[test]
fn a_budget_of_nothing_allows_nothing() {
    let gateway = gateway("rolling");
    let script = gateway.mock.plays(json(answer(INPUT, OUTPUT)));
    set(&gateway, "global", "0", "total");
    gateway.ask(question(&script, 1)).expect_refusal(429, "budget_exceeded");
    assert!(gateway.mock.received(&script).is_empty());
}
