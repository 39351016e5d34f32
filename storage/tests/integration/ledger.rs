//! The ledger as requests meet it: reservations on a running writer, and what is left when it ends.

use jiff::tz::TimeZone;
use policy::{
    Ask, Caller, DenialCode, Method, NanoUsd, Plan, Quote, RiskVerdict, RouteClass, Rules, Subject,
    Transport, Unit, admit,
};
use storage::{Growth, Ledger, Reservation, Store, Used, Writer, WriterConfig};

use crate::common::{Home, PATIENCE, config, row, until};

const DAY_US: i64 = 86_400_000_000;
const TODAY: i64 = 20_000 * DAY_US;

/// A request that may use so many tokens.
fn plan(rules: &Rules, tokens: u64) -> Plan {
    let (agent, provider) = ("ci".parse().unwrap(), "openai".parse().unwrap());
    let ask = Ask {
        provider: &provider,
        class: RouteClass::Generate,
        method: Method::Post,
        model: None,
        names_other_models: false,
        transport: Transport::Tcp,
        quote: Quote::unpriced(tokens, 1),
    };
    admit(rules, &Caller { agent: &agent, capability: None, risk: &RiskVerdict::default() }, &ask).unwrap()
}

/// Sets a budget of tokens for everybody and makes the ledger know it.
fn set(store: &mut Store, ledger: &Ledger, period: &str, tokens: i64) -> Rules {
    let zone = TimeZone::UTC;
    store
        .set_budget(&Subject::Global, period.parse().unwrap(), Unit::Tokens.of(tokens), TODAY, &zone)
        .unwrap();
    let rules = store.load_policy().unwrap().rules;
    ledger.set_budgets(&rules, &zone, 80);
    rules
}

fn reserve(ledger: &Ledger, rules: &Rules, tokens: u64) -> Result<Reservation, DenialCode> {
    pollster::block_on(ledger.reserve(plan(rules, tokens))).map_err(|denial| denial.code())
}

fn used(tokens: u64) -> Used {
    Used::Known { cost: NanoUsd::ZERO, tokens }
}

/// Spent, forfeited and reserved of the only budget.
fn standing(store: &Store) -> (i64, i64, i64) {
    let status = store.budgets(TODAY, &TimeZone::UTC).unwrap().remove(0);
    (status.spent, status.forfeited, status.reserved)
}

#[test]
fn what_is_settled_is_in_the_database_with_the_row() {
    let home = Home::new();
    let (ledger, writer) = home.writer();
    let rules = set(&mut home.store(), &ledger, "total", 1_000);
    let first = reserve(&ledger, &rules, 600).unwrap();
    assert_eq!(reserve(&ledger, &rules, 500).unwrap_err(), DenialCode::BudgetExceeded);
    first.settle(row(1), used(100));
    reserve(&ledger, &rules, 500).unwrap().settle(row(2), used(50));
    ledger.flush(PATIENCE).unwrap();
    assert_eq!(standing(&home.store()), (150, 0, 0));
    assert_eq!(home.store().latest_seq().unwrap(), 2);
    writer.shutdown().unwrap();
}

#[test]
fn what_is_charged_ahead_of_the_row_is_free_for_others_and_charged_once() {
    let home = Home::new();
    let (ledger, writer) = home.writer();
    let rules = set(&mut home.store(), &ledger, "total", 1_000);
    let mut ending = reserve(&ledger, &rules, 900).unwrap();
    ending.charge(used(100));
    ending.charge(used(700));
    let next = reserve(&ledger, &rules, 900).unwrap();
    ending.settle(row(1), used(100));
    next.settle(row(2), used(40));
    let mut lost = reserve(&ledger, &rules, 500).unwrap();
    lost.charge(used(7));
    drop(lost);
    ledger.flush(PATIENCE).unwrap();
    assert_eq!(standing(&home.store()), (147, 0, 0));
    writer.shutdown().unwrap();
}

/// A reservation for a hundred tokens of input and an answer of two hundred, which may grow.
fn reserve_answer(ledger: &Ledger, rules: &Rules) -> Reservation {
    let quote = Quote::unpriced(100, 1).with_output(200, 200);
    let (agent, provider) = ("ci".parse().unwrap(), "openai".parse().unwrap());
    let (class, method, transport) = (RouteClass::Generate, Method::Post, Transport::Tcp);
    let names_other_models = false;
    let ask = Ask { provider: &provider, class, method, model: None, names_other_models, transport, quote };
    let plan = admit(rules, &Caller { agent: &agent, capability: None, risk: &RiskVerdict::default() }, &ask)
        .unwrap();
    pollster::block_on(ledger.reserve(plan)).unwrap()
}

#[test]
fn a_reservation_grows_as_far_as_there_is_room() {
    let home = Home::new();
    let (ledger, writer) = home.writer();
    let rules = set(&mut home.store(), &ledger, "total", 1_000);
    let mut reservation = reserve_answer(&ledger, &rules);
    assert_eq!(reservation.covered_output(), Some(200));
    let mut grow = |output| {
        let mut growth = Growth::Pending;
        until("the ledger to answer", || {
            growth = reservation.grow(output);
            growth != Growth::Pending
        });
        growth
    };
    assert_eq!(grow(900), Growth::Covered);
    let Growth::Refused(denial) = grow(901) else { panic!("there is no room for it") };
    assert_eq!(denial.code(), DenialCode::BudgetExceeded);
    assert_eq!(reservation.covered_output(), Some(900), "what is covered stays so");
    reservation.settle(row(1), used(1_000));
    writer.shutdown().unwrap();
    assert_eq!(standing(&home.store()), (1_000, 0, 0));
}

/// A provider may report anything. Neither a sum in memory nor one in the database may fail over it: the first would
/// lose a row and its place, the second would stop the log for ever.
#[test]
fn amounts_beyond_reason_use_a_budget_up_and_stop_nothing() {
    let home = Home::new();
    let (ledger, writer) = home.writer();
    let limit = 100_000_000_000_000_000;
    let rules = set(&mut home.store(), &ledger, "total", limit);
    let rows = |numbers: std::ops::Range<u64>, is_apart: bool| {
        let reserved: Vec<_> = numbers.clone().map(|_| reserve(&ledger, &rules, 10).unwrap()).collect();
        for (number, reservation) in numbers.zip(reserved) {
            reservation.settle(row(number), used(u64::MAX));
            if is_apart {
                ledger.flush(PATIENCE).unwrap();
            }
        }
        ledger.flush(PATIENCE).unwrap();
    };
    rows(1..50, false);
    rows(50..100, true);
    assert_eq!(home.store().latest_seq().unwrap(), 99);
    let (spent, _, reserved) = standing(&home.store());
    assert!(spent > limit / 1_000 && reserved == 0, "{spent} {reserved}");
    let budget = rules.budgets.values().flatten().next().unwrap().id;
    let conn = rusqlite::Connection::open(home.path()).unwrap();
    conn.execute("UPDATE budget_spend SET spent_amount = ?2 - 1 WHERE budget_id = ?1", (budget.0, limit))
        .unwrap();
    ledger.flush(PATIENCE).unwrap();
    let running = reserve(&ledger, &rules, 1).unwrap();
    running.settle(row(100), used(u64::MAX));
    ledger.flush(PATIENCE).unwrap();
    assert_eq!(standing(&home.store()), (limit, 0, 0));
    assert_eq!(reserve(&ledger, &rules, 1).unwrap_err(), DenialCode::BudgetExceeded);
    writer.shutdown().unwrap();
}

#[test]
fn who_asks_for_more_each_time_is_covered_all_the_same() {
    let home = Home::new();
    let (ledger, writer) = home.writer();
    let rules = set(&mut home.store(), &ledger, "total", 1_000_000);
    let mut reservation = reserve_answer(&ledger, &rules);
    // More than what is borrowed ahead of need.
    let mut output = 200;
    until("what was asked for first", || {
        output += 20_000;
        let growth = reservation.grow(output);
        let is_covered = reservation.covered_output() > Some(200);
        assert!(is_covered || !matches!(growth, Growth::Refused(_)), "{output}");
        is_covered
    });
    reservation.settle(row(1), used(300));
    writer.shutdown().unwrap();
    assert_eq!(standing(&home.store()), (300, 0, 0));
}

#[test]
fn a_reservation_that_nobody_settles_is_charged_in_full() {
    let home = Home::new();
    let (ledger, writer) = home.writer();
    let rules = set(&mut home.store(), &ledger, "total", 1_000);
    drop(reserve(&ledger, &rules, 300).unwrap());
    ledger.flush(PATIENCE).unwrap();
    assert_eq!(standing(&home.store()), (300, 0, 0));
    assert_eq!(ledger.health().leaked, 1);
    writer.shutdown().unwrap();
}

#[test]
fn a_clock_that_is_set_back_opens_no_budget_again() {
    let home = Home::new();
    let start = |clock| Writer::start(&home.path(), WriterConfig { clock, ..config() }).unwrap();
    let (ledger, writer) = start(|| TODAY + DAY_US);
    let rules = set(&mut home.store(), &ledger, "daily", 1_000);
    reserve(&ledger, &rules, 1_000).unwrap().settle(row(1), used(1_000));
    writer.shutdown().unwrap();
    // Yesterday's clock: the budget of tomorrow, which was used up, is still the one that counts.
    let (ledger, writer) = start(|| TODAY);
    ledger.set_budgets(&rules, &TimeZone::UTC, 0);
    assert!(ledger.now() >= TODAY + DAY_US);
    assert_eq!(reserve(&ledger, &rules, 1).unwrap_err(), DenialCode::BudgetExceeded);
    writer.shutdown().unwrap();
    // The day after that one it is open.
    let (ledger, writer) = start(|| TODAY + 2 * DAY_US);
    ledger.set_budgets(&rules, &TimeZone::UTC, 0);
    reserve(&ledger, &rules, 1_000).unwrap().settle(row(2), used(1));
    writer.shutdown().unwrap();
}

#[test]
fn slices_that_count_no_more_are_forgotten() {
    let home = Home::new();
    let start = |clock| Writer::start(&home.path(), WriterConfig { clock, ..config() }).unwrap();
    let (ledger, writer) = start(|| TODAY);
    let rules = set(&mut home.store(), &ledger, "5h", 1_000);
    reserve(&ledger, &rules, 10).unwrap().settle(row(1), used(10));
    writer.shutdown().unwrap();
    let slices = || {
        let conn = rusqlite::Connection::open(home.path()).unwrap();
        conn.query_row("SELECT count(*) FROM budget_spend", [], |row| row.get::<_, i64>(0)).unwrap()
    };
    start(|| TODAY + 7 * DAY_US).1.shutdown().unwrap();
    assert_eq!(slices(), 1);
    start(|| TODAY + 9 * DAY_US).1.shutdown().unwrap();
    assert_eq!(slices(), 0);
}

#[test]
fn a_request_that_gives_up_waiting_leaves_nothing_held() {
    let home = Home::new();
    let (ledger, writer) = home.writer();
    let rules = set(&mut home.store(), &ledger, "total", 1_000);
    for number in 0..20 {
        let mut waiting = Box::pin(ledger.reserve(plan(&rules, 900)));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let polled = std::future::Future::poll(waiting.as_mut(), &mut context);
        if let std::task::Poll::Ready(Ok(reservation)) = polled {
            reservation.settle(row(1_000 + number), used(0)); // what another one had wished for was there
        }
    }
    until("everything to be given back", || {
        ledger.flush(PATIENCE).unwrap();
        standing(&home.store()) == (0, 0, 0)
    });
    reserve(&ledger, &rules, 1_000).unwrap().settle(row(1), used(1));
    writer.shutdown().unwrap();
}

/// While a database is out of order for long, many come and give up.
#[test]
fn a_request_that_gives_up_waiting_leaves_no_waker_behind() {
    struct Task;
    impl std::task::Wake for Task {
        fn wake(self: std::sync::Arc<Self>) {}
    }
    let home = Home::new();
    let (ledger, writer) = home.writer();
    let rules = set(&mut home.store(), &ledger, "total", 1_000);
    let mut blocker = rusqlite::Connection::open(home.path()).unwrap();
    let blocked = blocker.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).unwrap();
    let task = std::sync::Arc::new(Task);
    for _ in 0..20 {
        let waker = task.clone().into();
        let mut waiting = Box::pin(ledger.reserve(plan(&rules, 900)));
        let polled = std::future::Future::poll(waiting.as_mut(), &mut std::task::Context::from_waker(&waker));
        assert!(polled.is_pending());
    }
    assert_eq!(std::sync::Arc::strong_count(&task), 1);
    drop(blocked);
    writer.shutdown().unwrap();
}

#[test]
fn without_a_database_nothing_is_let_through() {
    let home = Home::new();
    let (ledger, writer) = home.writer();
    let rules = set(&mut home.store(), &ledger, "total", 1_000);
    let mut blocker = rusqlite::Connection::open(home.path()).unwrap();
    let blocked = blocker.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).unwrap();
    let (ledger, rules) = (&ledger, &rules);
    std::thread::scope(|scope| {
        let asked = scope.spawn(move || reserve(ledger, rules, 100));
        until("the writer to be refused", || ledger.health().failure.is_some());
        assert!(!asked.is_finished(), "no room is borrowed, so nothing is let through");
        drop(blocked);
        asked.join().unwrap().unwrap().settle(row(1), used(1));
    });
    writer.shutdown().unwrap();
}
