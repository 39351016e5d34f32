//! The writer under load, under a database that refuses, and at its end.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use policy::DenialCode;
use rusqlite::Connection;
use storage::{Error, LogFilter, LogOrder, LogState, RequestRow, StatsBy, StatsQuery, Writer, WriterConfig};

use crate::common::{FREE, Home, PATIENCE, config, refusal, reserve, row, until};

fn everything() -> StatsQuery {
    StatsQuery::of(StatsBy::Provider)
}

#[test]
fn rows_of_many_threads_are_all_there_with_exact_sums() {
    const THREADS: u64 = 8;
    const ROWS: u64 = 2_500;
    let home = Home::new();
    let (ledger, writer) = home.writer();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let ledger = ledger.clone();
            scope.spawn(move || {
                for number in thread * ROWS..(thread + 1) * ROWS {
                    reserve(&ledger).unwrap().settle(row(number), FREE);
                }
            });
        }
    });
    writer.shutdown().unwrap();
    let count = THREADS * ROWS;
    let sum = count * (count - 1) / 2;
    let total = home.store().stats(&everything()).unwrap().total;
    assert_eq!((total.requests, total.input_tokens), (count, sum));
    assert_eq!(total.cost.nanos().unsigned_abs(), sum * 7);
    assert_eq!(total.cache_read_tokens, sum + count);
    let health = ledger.health();
    assert_eq!((health.slots_free, health.leaked, health.late), (health.slots, 0, 0));
    assert_eq!((health.rows_written, health.rows_rejected), (count, 0));
    assert_eq!(health.state, LogState::Stopped);
    let wal = fs::metadata(home.path().with_extension("db-wal")).map_or(0, |metadata| metadata.len());
    assert_eq!(wal, 0, "the write-ahead log was copied into the database");
}

#[test]
fn a_locked_database_costs_slots_and_then_nothing_is_lost() {
    const SLOTS: usize = 50;
    let home = Home::new();
    let (ledger, writer) =
        Writer::start(&home.path(), WriterConfig { slots: SLOTS, refusal_slots: 3, ..config() }).unwrap();
    let other = Connection::open(home.path()).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    for number in 0..50 {
        reserve(&ledger).unwrap().settle(row(number), FREE);
    }
    for number in 100..105 {
        ledger.record_refusal(refusal(number, "killed", "/openai"));
    }
    let denial = reserve(&ledger).unwrap_err();
    assert_eq!(denial.code(), DenialCode::Overloaded);
    assert!(denial.message().contains("log is behind"), "{denial}");
    until("the lock is noticed", || ledger.health().state == LogState::Failing);
    assert_eq!(ledger.health().failure.unwrap().code, "database_busy");
    assert!(matches!(ledger.flush(Duration::from_millis(20)), Err(Error::Behind { .. })));
    assert_eq!(ledger.health().refusals_dropped, 2, "refusals take no room from requests");
    assert_eq!(home.store().latest_seq().unwrap(), 0, "who only reads is not held up");

    other.execute_batch("COMMIT").unwrap();
    ledger.flush(PATIENCE).unwrap();
    let health = ledger.health();
    assert_eq!((health.state, health.failure, health.slots_free), (LogState::Writing, None, SLOTS));
    reserve(&ledger).unwrap().settle(row(50), FREE);
    writer.shutdown().unwrap();
    let total = home.store().stats(&everything()).unwrap().total;
    assert_eq!((total.requests, total.refused, total.input_tokens), (54, 3, 1_275));
}

#[test]
fn flush_waits_for_what_was_pushed_before_it() {
    let home = Home::new();
    let (ledger, writer) = home.writer();
    let store = home.store();
    let writers_pushed = AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..2_000 {
                reserve(&ledger).unwrap().settle(row(number), FREE);
                writers_pushed.fetch_add(1, Ordering::SeqCst);
            }
        });
        for _ in 0..20 {
            let pushed = writers_pushed.load(Ordering::SeqCst);
            ledger.flush(PATIENCE).unwrap();
            assert!(store.latest_seq().unwrap().unsigned_abs() >= pushed);
        }
    });
    writer.shutdown().unwrap();
}

#[test]
fn a_cursor_misses_nothing_while_rows_are_written() {
    const ROWS: u64 = 4_000;
    let home = Home::new();
    let (ledger, writer) = home.writer();
    let reader = home.store();
    let mut seen = Vec::new();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let ledger = &ledger;
            scope.spawn(move || {
                for number in (thread..ROWS).step_by(4) {
                    reserve(ledger).unwrap().settle(row(number), FREE);
                }
            });
        }
        let mut cursor = 0;
        until("every row is seen", || {
            let filter = LogFilter { order: LogOrder::After(cursor), limit: 100, ..LogFilter::default() };
            for logged in reader.requests(&filter).unwrap() {
                assert!(logged.seq > cursor);
                cursor = logged.seq;
                seen.push(logged.request.usage.input);
            }
            seen.len() as u64 == ROWS
        });
    });
    writer.shutdown().unwrap();
    seen.sort_unstable();
    assert!(seen.into_iter().eq(0..ROWS), "each row once");
}

#[test]
fn equal_refusals_share_a_row_for_ten_seconds() {
    let home = Home::new();
    let (ledger, writer) = home.writer();
    for number in 0..5 {
        ledger.record_refusal(refusal(number, "killed", "/openai"));
    }
    ledger.flush(PATIENCE).unwrap();
    ledger.record_refusal(refusal(9, "killed", "/openai"));
    ledger.record_refusal(refusal(9_999, "killed", "/openai"));
    ledger.record_refusal(refusal(10, "killed", "/groq"));
    ledger.record_refusal(refusal(11, "overloaded", "/openai"));
    let stranger = refusal(12, "killed", "/openai");
    ledger.record_refusal(RequestRow { agent: None, ..stranger });
    ledger.flush(PATIENCE).unwrap();
    ledger.record_refusal(refusal(10_000, "killed", "/openai"));
    writer.shutdown().unwrap();
    let store = home.store();
    let rows = store.requests(&LogFilter { order: LogOrder::After(0), ..LogFilter::default() }).unwrap();
    let repeats: Vec<_> = rows.iter().map(|row| (row.request.usage.input, row.repeats)).collect();
    let firsts: Vec<_> = rows.iter().map(|row| row.request.started_at / 1_000_000).collect();
    // The order of the first ones depends on how they fell into batches; the counts do not.
    assert_eq!(repeats.iter().map(|(_, repeats)| repeats).sum::<u64>(), 11);
    assert_eq!(rows[0].repeats + rows[1].repeats, 8, "{firsts:?} {repeats:?}");
    assert_eq!(rows.len(), 5);
    assert_eq!(store.stats(&everything()).unwrap().total.refused, 11);
}

#[test]
fn a_flood_of_different_refusals_is_folded_too() {
    let home = Home::new();
    let (ledger, writer) = home.writer();
    for number in 0..3_000 {
        ledger
            .record_refusal(RequestRow { started_at: 1, ..refusal(number, "killed", &format!("/{number}")) });
    }
    writer.shutdown().unwrap();
    let store = home.store();
    let dropped = ledger.health().refusals_dropped;
    assert_eq!(store.stats(&everything()).unwrap().total.refused + dropped, 3_000);
    assert!(store.latest_seq().unwrap() <= 1_025, "{}", store.latest_seq().unwrap());
}

#[test]
fn who_knocks_at_ever_new_doors_for_hours_has_a_row_each_ten_seconds_at_last() {
    const SECONDS: i64 = 4 * 60 * 60;
    let home = Home::new();
    let (ledger, writer) = home.writer();
    // Old rows would be removed.
    let begin = ledger.now();
    for second in 0..SECONDS {
        let row = refusal(second.unsigned_abs(), "invalid_route", &format!("/{second}"));
        ledger.record_refusal(RequestRow { started_at: begin + second * 1_000_000, agent: None, ..row });
        if second % 1_000 == 0 {
            ledger.flush(PATIENCE).unwrap();
        }
    }
    let honest = RequestRow {
        started_at: begin + SECONDS * 1_000_000,
        ..refusal(SECONDS.unsigned_abs(), "killed", "/openai")
    };
    ledger.record_refusal(honest);
    writer.shutdown().unwrap();
    let store = home.store();
    let rows =
        store.requests(&LogFilter { order: LogOrder::NewestFirst, limit: u32::MAX, ..LogFilter::default() });
    let rows = rows.unwrap();
    assert_eq!(rows[0].request.path.as_str(), "/openai", "others are told apart as before");
    let all: u64 = rows.iter().map(|row| row.repeats).sum();
    assert_eq!(all + ledger.health().refusals_dropped, 4 * 60 * 60 + 1);
    // What is kept apart, and the rows for the rest, each ten seconds.
    assert!(rows.len() < 256 + 2 * 1_440 + 10, "{} rows", rows.len());
}

#[test]
fn every_file_of_the_database_is_ours_alone() {
    let home = Home::new();
    let (ledger, writer) = home.writer();
    reserve(&ledger).unwrap().settle(row(1), FREE);
    ledger.flush(PATIENCE).unwrap();
    for suffix in ["db", "db-wal", "db-shm"] {
        let metadata = fs::metadata(home.path().with_extension(suffix)).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600, "{suffix}");
    }
    writer.shutdown().unwrap();
}

#[test]
fn what_was_committed_survives_a_process_that_just_ends() {
    let home = Home::new();
    let (ledger, writer) = home.writer();
    reserve(&ledger).unwrap().settle(row(1), FREE);
    ledger.flush(PATIENCE).unwrap();
    // The files as a killed process would leave them: the row is in the write-ahead log only.
    let left = Home::new();
    for suffix in ["db", "db-wal"] {
        fs::copy(home.path().with_extension(suffix), left.path().with_extension(suffix)).unwrap();
    }
    writer.shutdown().unwrap();
    assert_eq!(left.store().requests(&LogFilter::default()).unwrap()[0].request, row(1));
}

#[test]
fn a_dropped_reservation_gives_its_slot_back_and_is_counted() {
    let home = Home::new();
    let (ledger, writer) = Writer::start(&home.path(), WriterConfig { slots: 1, ..config() }).unwrap();
    drop(reserve(&ledger).unwrap());
    assert_eq!(ledger.health().leaked, 1);
    ledger.flush(PATIENCE).unwrap();
    reserve(&ledger).unwrap().settle(row(1), FREE);
    ledger.flush(PATIENCE).unwrap();
    reserve(&ledger).unwrap().settle(row(2), FREE);
    writer.shutdown().unwrap();
    assert_eq!(home.store().latest_seq().unwrap(), 2);
}

#[test]
fn shutdown_waits_for_requests_in_flight() {
    let home = Home::new();
    let (ledger, writer) = home.writer();
    let reservation = reserve(&ledger).unwrap();
    let ended = std::thread::scope(|scope| {
        let ended = scope.spawn(|| writer.shutdown());
        until("new requests are refused", || {
            reserve(&ledger).is_err_and(|denial| denial.code() == DenialCode::StateUnavailable)
        });
        reservation.settle(row(7), FREE);
        ended.join().unwrap()
    });
    ended.unwrap();
    assert_eq!(home.store().latest_seq().unwrap(), 1);
}

#[test]
fn shutdown_says_what_it_could_not_write() {
    let home = Home::new();
    let impatient = WriterConfig { shutdown_wait: Duration::from_millis(50), ..config() };
    let (ledger, writer) = Writer::start(&home.path(), impatient.clone()).unwrap();
    let reservation = reserve(&ledger).unwrap();
    assert!(matches!(writer.shutdown(), Err(Error::Unsettled { requests: 1 })));
    reservation.settle(row(1), FREE);
    assert_eq!(ledger.health().late, 1);

    let (ledger, writer) = Writer::start(&home.path(), impatient).unwrap();
    let other = Connection::open(home.path()).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    reserve(&ledger).unwrap().settle(row(2), FREE);
    assert!(matches!(writer.shutdown(), Err(Error::Unwritten { rows: 1, .. })));
    assert!(matches!(ledger.flush(PATIENCE), Err(Error::Stopped)));
}

#[test]
fn a_database_that_is_moved_away_is_not_made_anew() {
    let home = Home::new();
    let (ledger, writer) = home.writer();
    let aside = home.path().with_extension("aside");
    fs::rename(home.path(), &aside).unwrap();
    reserve(&ledger).unwrap().settle(row(1), FREE);
    until("it is missed", || ledger.health().state == LogState::Failing);
    assert_eq!(ledger.health().failure.unwrap().code, "database_replaced");
    assert!(!home.path().exists());
    fs::rename(&aside, home.path()).unwrap();
    ledger.flush(PATIENCE).unwrap();
    writer.shutdown().unwrap();
    assert_eq!(home.store().latest_seq().unwrap(), 1);
}

#[test]
fn a_row_that_the_schema_refuses_does_not_hold_up_the_others() {
    let home = Home::new();
    let (ledger, writer) = home.writer();
    for row in [row(1), row(1), RequestRow { started_at: -1, ..row(2) }, row(3)] {
        reserve(&ledger).unwrap().settle(row, FREE);
    }
    writer.shutdown().unwrap();
    let health = ledger.health();
    assert_eq!((health.rows_written, health.rows_rejected, health.slots_free), (2, 2, health.slots));
    assert_eq!(home.store().stats(&everything()).unwrap().total.input_tokens, 4);
}

#[test]
fn old_rows_are_deleted_by_the_writer_itself() {
    let home = Home::new();
    home.log((0..3_000).map(row));
    let keep = Some(Duration::from_secs(1_000));
    let retention = WriterConfig { retention: keep, clock: || 3_500_000_000, ..config() };
    let (ledger, writer) = Writer::start(&home.path(), retention).unwrap();
    let store = home.store();
    until("old rows are gone", || store.stats(&everything()).unwrap().total.requests == 500);
    reserve(&ledger).unwrap().settle(row(3_000), FREE);
    writer.shutdown().unwrap();
    assert_eq!(store.latest_seq().unwrap(), 3_001);
}

#[test]
fn dropping_the_writer_loses_nothing() {
    let home = Home::new();
    let (ledger, writer) = home.writer();
    reserve(&ledger).unwrap().settle(row(1), FREE);
    drop(writer);
    assert_eq!(home.store().latest_seq().unwrap(), 1);
}
