//! Summing up rows of the log that do not change any more, some thousands at a time, by the writer between its batches.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use policy::TimestampUs;
use rusqlite::{Connection, Row, Transaction, TransactionBehavior, params};

use super::{COUNTS, RAW, Sums, quarter, raw, spans};
use crate::error::{Doing, Error};

/// A row is left alone for so long: a refusal may still be folded into it.
const SETTLED_AFTER: Duration = Duration::from_secs(30);
/// Summing up begins when so many rows wait: a sum over few rows is no shorter than they are.
const ROWS_MIN: i64 = ROWS_STEP;
/// Rows that are summed up in one transaction, which takes some hundredths of a second. The more they are, the fewer sums
/// there are where many agents take turns.
const ROWS_STEP: i64 = 16_384;
/// After a failure it can wait.
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// When there is something to sum up.
#[derive(Debug)]
pub(crate) struct Rollup {
    /// The newest row at some instant.
    mark: Option<(Instant, i64)>,
    /// Rows up to this one are settled.
    settled: i64,
    due: Instant,
}

/// What is alike in a sum.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    quarter: i64,
    provider: Option<String>,
    model: Option<String>,
    agent: Option<String>,
    status: Option<u16>,
}

impl Rollup {
    pub(crate) fn new() -> Self {
        Self { mark: None, settled: 0, due: Instant::now() }
    }

    /// Sums up some rows if enough of them have settled. Answers whether there are more.
    ///
    /// # Errors
    /// SQLite's failure; it is tried again later.
    pub(crate) fn step(&mut self, conn: &mut Connection, now: Instant) -> Result<bool, Error> {
        if now < self.due {
            return Ok(false);
        }
        if self.mark.is_none_or(|(at, _)| now.saturating_duration_since(at) >= SETTLED_AFTER) {
            let newest = latest_seq(conn)?;
            self.settled = self.mark.replace((now, newest)).map_or(self.settled, |(_, seq)| seq);
        }
        let has_more = sum_up(conn, self.settled).inspect_err(|_| self.due = now + RETRY_AFTER)?;
        if !has_more {
            self.due = now + Duration::from_secs(1);
        }
        Ok(has_more)
    }
}

fn latest_seq(conn: &Connection) -> Result<i64, Error> {
    let sql = "SELECT coalesce(max(seq), 0) FROM requests";
    conn.prepare_cached(sql)
        .and_then(|mut latest| latest.query_row([], |row| row.get(0)))
        .doing("sum up the log")
}

/// Up to which row the log is summed up.
pub(crate) fn through(conn: &Connection) -> rusqlite::Result<i64> {
    conn.prepare_cached("SELECT through_seq FROM request_sums_mark")?.query_row([], |row| row.get(0))
}

/// Sums up the next rows up to `settled`, if there are enough. Answers whether there are more.
fn sum_up(conn: &mut Connection, settled: i64) -> Result<bool, Error> {
    let doing = "sum up the log";
    if settled - through(conn).doing(doing)? < ROWS_MIN {
        return Ok(false);
    }
    let write = conn.transaction_with_behavior(TransactionBehavior::Immediate).doing(doing)?;
    // Again under the lock: another process may have done it.
    let from = through(&write).doing(doing)?;
    let until = settled.min(from + ROWS_STEP);
    let mut groups: HashMap<Key, Vec<Sums>> = HashMap::new();
    collect(&write, (from, until), &mut groups)?;
    insert(&write, &groups).doing(doing)?;
    spans::insert(&write, (from, until)).doing(doing)?;
    write.execute("UPDATE request_sums_mark SET through_seq = max(through_seq, ?1)", [until]).doing(doing)?;
    write.commit().doing(doing)?;
    Ok(settled - until >= ROWS_MIN)
}

/// Sums up all that can be.
#[cfg(test)]
pub(crate) fn sum_up_all(conn: &mut Connection) {
    let newest = latest_seq(conn).unwrap();
    while sum_up(conn, newest).unwrap() {}
}

fn collect(
    conn: &Connection,
    (from, until): (i64, i64),
    groups: &mut HashMap<Key, Vec<Sums>>,
) -> Result<(), Error> {
    let doing = "sum up the log";
    let sql = format!("SELECT {RAW} FROM requests WHERE seq > ?1 AND seq <= ?2");
    let mut statement = conn.prepare_cached(&sql).doing(doing)?;
    let mut rows = statement.query([from, until]).doing(doing)?;
    // Rows that follow each other are most often alike.
    let mut run = (None, Vec::new());
    while let Some(row) = rows.next().doing(doing)? {
        if !run.0.as_ref().is_some_and(|key| is_of(row, key).unwrap_or(false)) {
            let key = key(row).doing(doing)?;
            let sums = groups.remove(&key).unwrap_or_default();
            if let (Some(key), sums) = std::mem::replace(&mut run, (Some(key), sums)) {
                groups.insert(key, sums);
            }
        }
        add(&mut run.1, row)?;
    }
    if let (Some(key), sums) = run {
        groups.insert(key, sums);
    }
    Ok(())
}

/// Adds a row of the log to the last of some sums, or begins another one that holds what the last cannot.
fn add(sums: &mut Vec<Sums>, row: &Row<'_>) -> Result<(), Error> {
    let doing = "sum up the log";
    if sums.is_empty() {
        sums.push(Sums::default());
    }
    let Some(last) = sums.last_mut() else { return Ok(()) };
    let before = last.counts;
    if last.add_request(row).doing(doing)?.is_err() {
        last.counts = before;
        let mut next = Sums::default();
        next.add_request(row).doing(doing)??;
        next.latencies = Default::default();
        next.first_bytes = Default::default();
        sums.push(next);
    }
    Ok(())
}

fn key(row: &Row<'_>) -> rusqlite::Result<Key> {
    Ok(Key {
        quarter: quarter(row.get(raw::STARTED_AT)?),
        provider: row.get(raw::PROVIDER)?,
        model: row.get(raw::MODEL)?,
        agent: row.get(raw::AGENT)?,
        status: row.get(raw::STATUS)?,
    })
}

/// Whether a row has this key.
fn is_of(row: &Row<'_>, key: &Key) -> rusqlite::Result<bool> {
    let is = |column: usize, text: &Option<String>| {
        Ok::<_, rusqlite::Error>(row.get_ref(column)?.as_str_or_null()? == text.as_deref())
    };
    Ok(quarter(row.get(raw::STARTED_AT)?) == key.quarter
        && row.get::<_, Option<u16>>(raw::STATUS)? == key.status
        && is(raw::PROVIDER, &key.provider)?
        && is(raw::MODEL, &key.model)?
        && is(raw::AGENT, &key.agent)?)
}

fn insert(write: &Transaction<'_>, groups: &HashMap<Key, Vec<Sums>>) -> rusqlite::Result<()> {
    let sql = format!(
        "INSERT INTO request_sums (quarter_us, provider, model, agent, status, {}, latencies, first_bytes)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
        COUNTS.join(", ")
    );
    let mut statement = write.prepare_cached(&sql)?;
    for (key, sums) in groups.iter().flat_map(|(key, sums)| sums.iter().map(move |sums| (key, sums))) {
        let Key { quarter, provider, model, agent, status } = key;
        let counts = sums.counts.map(u64::cast_signed);
        let [a, b, c, d, e, f, g, h, i] = counts;
        let (latencies, first_bytes) = (sums.latencies.encode(), sums.first_bytes.encode());
        statement.execute(params![
            quarter,
            provider,
            model,
            agent,
            status,
            a,
            b,
            c,
            d,
            e,
            f,
            g,
            h,
            i,
            latencies,
            first_bytes
        ])?;
    }
    Ok(())
}

/// Deletes at most `batch` sums of quarters that ended before `cutoff`, and what is told of rows that are gone.
pub(crate) fn forget_older_than(
    conn: &Connection,
    cutoff: TimestampUs,
    batch: u32,
) -> rusqlite::Result<usize> {
    let sql = "DELETE FROM request_sums WHERE id IN
                   (SELECT id FROM request_sums WHERE quarter_us < ?1 ORDER BY quarter_us LIMIT ?2)";
    spans::forget_deleted(conn)?;
    conn.prepare_cached(sql)?.execute(params![quarter(cutoff), batch])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AgentUses, StatsBy, StatsQuery, Store};

    /// Rows of some days, all kinds of them, written as fast as can be.
    fn log(store: &Store, count: u32) {
        store
            .conn
            .execute(
                "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
                 INSERT INTO requests (id, started_at_us, provider, method, path, model, agent, transport, is_streaming,
                    status, outcome, usage_basis, input_tokens, cache_read_tokens, cache_write_5m_tokens,
                    cache_write_1h_tokens, output_tokens, reasoning_tokens, cost_nano_usd, latency_us, first_byte_us,
                    request_bytes, response_bytes, repeats)
                 SELECT printf('%026d', i), i * 30000000, iif(i % 7, 'openai', NULL), 'POST', '/', 'm' || (i % 3),
                    'a' || (i % 5), 'tcp', 0, iif(i % 11, 200, 403), iif(i % 11, 'completed', 'refused'), 'reported',
                    i % 100, i % 10, 1, 2, i % 50, 0, iif(i % 13, i * 7, NULL), i * 17 % 900000, iif(i % 2, i, NULL),
                    1, 1, 1 + i % 4
                 FROM n",
                [count],
            )
            .unwrap();
    }

    fn query(by: StatsBy, since: Option<i64>, until: Option<i64>) -> StatsQuery {
        StatsQuery { since, until, by, ..StatsQuery::of(by) }
    }

    #[test]
    fn what_is_summed_up_is_what_was_there_whatever_is_asked() {
        let home = tempfile::tempdir().unwrap();
        let mut store = Store::open(&home.path().join("tokfence.db")).unwrap();
        log(&store, 40_000);
        let kinds =
            [StatsBy::Provider, StatsBy::Model, StatsBy::Agent, StatsBy::Hour, StatsBy::Day, StatsBy::Status];
        let spans = [
            (None, None),
            (Some(70_000_000_123), Some(200_000_000_456)),
            (Some(90_000_000), Some(91_000_000)),
            (Some(900_000_000), Some(1_800_000_000)),
            (Some(300_000_000_000), None),
        ];
        let ask = |store: &Store| {
            let all = kinds.iter().flat_map(|by| spans.map(|(since, until)| query(*by, since, until)));
            all.map(|query| store.stats(&query).unwrap()).collect::<Vec<_>>()
        };
        let sql = "INSERT INTO agents (name, created_at_us) VALUES ('a1', 1), ('a4', 1), ('idle', 1)";
        store.conn.execute(sql, []).unwrap();
        let (before, agents) = (ask(&store), store.agents(0).unwrap());
        let mut followed = AgentUses::default();
        store.follow_uses(&mut followed).unwrap();
        let last_used = followed.last_used.clone();
        assert!(agents.iter().all(|agent| last_used[&agent.name] == agent.last_used_at));
        // Those of the log are there who were never minted, too.
        let used = |name: &str| last_used[&name.parse().unwrap()];
        assert_eq!((last_used.len(), used("a0").is_some(), used("idle")), (6, true, None));
        assert_eq!((agents[0].requests, agents[2].requests), (20_000, 0));
        assert_eq!(agents[0].last_used_at, Some(39_991 * 30_000_000));
        assert_eq!(before[0].total.requests, (1..=40_000u64).map(|i| 1 + i % 4).sum::<u64>());
        while sum_up(&mut store.conn, 36_000).unwrap() {}
        assert_eq!(through(&store.conn).unwrap(), 2 * ROWS_STEP);
        assert_eq!((ask(&store), store.agents(0).unwrap()), (before, agents));
        let mut fresh = AgentUses::default();
        for uses in [&mut followed, &mut fresh] {
            store.follow_uses(uses).unwrap();
            assert_eq!(uses.last_used, last_used);
        }
        assert_eq!(followed, fresh);
        let sql = "UPDATE request_spans SET last_used_us = 1";
        store.conn.execute(sql, []).unwrap();
        store.follow_uses(&mut followed).unwrap();
        assert_eq!(followed.last_used, last_used, "what was read is not read again");
    }

    #[test]
    fn the_quarter_of_now_is_told_from_its_sum_when_all_of_it_is_asked_for() {
        let home = tempfile::tempdir().unwrap();
        let mut store = Store::open(&home.path().join("tokfence.db")).unwrap();
        log(&store, 16_384);
        let newest = ROWS_STEP * 30_000_000;
        let ask = |store: &Store| {
            let ends = [newest - 1, newest, newest + 1, newest + 1_000_000_000];
            ends.map(|until| store.stats(&query(StatsBy::Agent, None, Some(until))).unwrap())
        };
        let before = ask(&store);
        sum_up(&mut store.conn, ROWS_STEP).unwrap();
        assert_eq!(through(&store.conn).unwrap(), ROWS_STEP);
        assert_eq!(ask(&store), before);
        // What is not read needs not be there: the rows are gone, and their sums are told.
        store.conn.execute("DELETE FROM requests WHERE seq < 16384", []).unwrap();
        assert_eq!(ask(&store)[2..], before[2..]);
    }

    /// The log of ninety busy days. `cargo test --release -p storage -- --ignored --nocapture a_long_log`
    #[test]
    #[ignore = "writes two gigabytes"]
    #[expect(clippy::print_stderr, reason = "it is run for its figures")]
    fn a_long_log_is_summed_up_at_once() {
        let home = tempfile::tempdir().unwrap();
        let mut store = Store::open(&home.path().join("tokfence.db")).unwrap();
        let rows: u32 = 5_000_000;
        log(&store, 1);
        store
            .conn
            .execute(
                "WITH RECURSIVE n (i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
                 INSERT INTO requests (id, started_at_us, provider, route_class, method, path, model, agent,
                    capability_id, transport, is_streaming, status, outcome, usage_basis, input_tokens,
                    cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens, output_tokens, reasoning_tokens,
                    cost_nano_usd, latency_us, first_byte_us, request_bytes, response_bytes)
                 SELECT printf('%026d', i), i * 1555200, 'provider' || (i % 20 % 4), 'generate', 'POST',
                    '/v1/chat/completions', 'model-' || (i % 20 % 10), 'agent' || (i % 20), 'abcdefgh', 'tcp', 1,
                    iif(i % 50, 200, 429), 'completed', 'reported', i % 90000, i % 8000, 0, 0, i % 4000, 0, i * 7,
                    1000000 + i * 7919 % 30000000, 200000 + i * 104729 % 2000000, 9000, 20000 FROM n",
                [rows],
            )
            .unwrap();
        let time = |what: &str, store: &Store, query: &StatsQuery| {
            let start = Instant::now();
            assert!(store.stats(query).unwrap().total.requests > 0);
            eprintln!("{what}: {:?}", start.elapsed());
            start.elapsed()
        };
        let all = query(StatsBy::Model, None, None);
        time("row by row", &store, &all);
        let start = Instant::now();
        while sum_up(&mut store.conn, rows.into()).unwrap() {}
        eprintln!("summed up in {:?}", start.elapsed());
        for by in
            [StatsBy::Provider, StatsBy::Model, StatsBy::Agent, StatsBy::Status, StatsBy::Day, StatsBy::Hour]
        {
            assert!(time(&format!("{by:?}"), &store, &query(by, None, None)) < Duration::from_secs(2));
        }
        let start = Instant::now();
        store.agents(0).unwrap();
        eprintln!("agents: {:?}", start.elapsed());
        let start = Instant::now();
        store.follow_uses(&mut AgentUses::default()).unwrap();
        store.newest_refusals(50).unwrap();
        eprintln!("agents' last uses and the newest refusals: {:?}", start.elapsed());
        time("a month", &store, &query(StatsBy::Day, Some(1_000_000_000_000), Some(3_600_000_000_000)));
    }

    #[test]
    fn rows_rest_before_they_are_summed_up_and_it_waits_until_they_are_many() {
        let home = tempfile::tempdir().unwrap();
        let mut store = Store::open(&home.path().join("tokfence.db")).unwrap();
        log(&store, 17_000);
        let (mut rollup, start) = (Rollup::new(), Instant::now());
        let mut at = |seconds: u64, store: &mut Store| {
            rollup.step(&mut store.conn, start + Duration::from_secs(seconds)).unwrap();
            through(&store.conn).unwrap()
        };
        assert_eq!(at(1, &mut store), 0);
        assert_eq!(at(29, &mut store), 0);
        assert_eq!(at(32, &mut store), ROWS_STEP);
        assert_eq!(at(100, &mut store), ROWS_STEP, "the rest are few");
    }

    #[test]
    fn a_sum_that_a_row_cannot_hold_goes_into_two() {
        let home = tempfile::tempdir().unwrap();
        let mut store = Store::open(&home.path().join("tokfence.db")).unwrap();
        log(&store, 17_000);
        store.conn.execute_batch("DROP TRIGGER requests_are_not_edited").unwrap();
        let huge = "UPDATE requests SET cost_nano_usd = 9000000000000000000 WHERE seq IN (1, 16, 31)";
        store.conn.execute(huge, []).unwrap();
        sum_up(&mut store.conn, 17_000).unwrap();
        let kept: i64 = store
            .conn
            .query_row(
                "SELECT count(*) FROM request_sums WHERE cost_nano_usd >= 9000000000000000000",
                [],
                |row| row.get(0),
            )
            .unwrap();
        assert_eq!(kept, 3);
        assert!(store.stats(&query(StatsBy::Day, None, None)).is_err());
    }
}
