//! What `watch` reads of the log, and what it remembers from one look at a provider's account to the next.

use std::collections::HashSet;

use policy::reconcile::{Finding, LoggedMinute, Totals};
use policy::{NanoUsd, ProviderId, TimestampUs};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};

use crate::error::{Doing, Error};
use crate::row::{LogText, parsed, unsigned};
use crate::store::Store;

/// A request that began so long before a time may still have been running in it.
const RUNS_AT_MOST_US: i64 = 24 * 3_600_000_000;
/// Counters older than this are forgotten.
const SAMPLES_KEPT_US: i64 = 100 * 24 * 3_600_000_000;

/// The models that were asked for, up to a place in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The place from which to go on.
    pub seq: i64,
    /// Each provider and model once.
    pub models: Vec<(ProviderId, LogText)>,
}

/// What a counter of money stood at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CounterSample {
    /// When.
    pub at: TimestampUs,
    /// All that was ever spent.
    pub total: NanoUsd,
}

/// A finding that is remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RaisedFinding {
    /// Its number.
    pub seq: i64,
    /// What was found.
    pub finding: Finding,
    /// When it was found first.
    pub first_seen_at: TimestampUs,
    /// Whether its owner was told of it.
    pub is_told: bool,
}

impl Store {
    /// What the log has of a provider: the requests that were running at some time of the span and reached it for a
    /// model's answer, by minutes.
    ///
    /// # Errors
    /// [`Error::Overflow`], or SQLite's failure.
    pub fn logged_minutes(
        &self,
        provider: &ProviderId,
        since: TimestampUs,
        until: TimestampUs,
    ) -> Result<Vec<LoggedMinute>, Error> {
        let doing = "sum up the request log";
        let read = self.conn.unchecked_transaction().doing(doing)?;
        let span = (since.saturating_sub(RUNS_AT_MOST_US), until);
        let begun = minutes(&read, provider, span, "started_at_us").doing(doing)?;
        let ended = minutes(&read, provider, span, "started_at_us + min(latency_us, 604800000000)");
        let begun =
            begun.into_iter().map(|(at, begun)| LoggedMinute { at, begun, ..LoggedMinute::default() });
        let ended = ended.doing(doing)?.into_iter();
        let ended = ended.map(|(at, ended)| LoggedMinute { at, ended, ..LoggedMinute::default() });
        Ok(begun.chain(ended).collect())
    }

    /// The models that admitted requests asked for, behind a place in the log.
    ///
    /// # Errors
    /// SQLite's failure.
    pub fn models_asked(&self, after: i64) -> Result<Asked, Error> {
        let doing = "look up which models were asked for";
        let read = self.conn.unchecked_transaction().doing(doing)?;
        let sql = "SELECT coalesce(max(seq), 0) FROM requests";
        let seq = read.query_row(sql, [], |row| row.get(0)).doing(doing)?;
        let sql = "SELECT DISTINCT provider, model FROM requests NOT INDEXED
                   WHERE seq > ?1 AND outcome <> 'refused' AND provider IS NOT NULL AND model IS NOT NULL";
        let mut statement = read.prepare_cached(sql).doing(doing)?;
        let rows = statement.query_map([after], |row| {
            let model: String = row.get("model")?;
            Ok((parsed(row, "provider")?, LogText::model(&model)))
        });
        let models = rows.doing(doing)?.collect::<rusqlite::Result<_>>().doing(doing)?;
        Ok(Asked { seq, models })
    }

    /// Since when the log can say what went through: its oldest row, or the first look at the provider where there was
    /// none.
    ///
    /// # Errors
    /// SQLite's failure.
    pub fn start_watching(&mut self, provider: &ProviderId, now: TimestampUs) -> Result<TimestampUs, Error> {
        let doing = "begin to watch a provider";
        let sql = "INSERT INTO watch_starts (provider, started_us) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
        self.conn.execute(sql, params![provider.as_str(), now]).doing(doing)?;
        let sql = "SELECT min(started_us, coalesce((SELECT min(started_at_us) FROM requests), started_us))
                   FROM watch_starts WHERE provider = ?1";
        self.conn.query_row(sql, [provider.as_str()], |row| row.get(0)).doing(doing)
    }

    /// Remembers what a counter stands at, and answers what it stood at since an instant, oldest first. The last look
    /// before that instant is among them. `since` tells the counter of one key from that of the key before it.
    ///
    /// # Errors
    /// SQLite's failure; nothing is remembered then.
    pub fn sample_counter(
        &mut self,
        provider: &ProviderId,
        (counter, since): (&str, TimestampUs),
        sample: CounterSample,
        from: TimestampUs,
    ) -> Result<Vec<CounterSample>, Error> {
        let doing = "remember a counter";
        let write = self.conn.transaction_with_behavior(TransactionBehavior::Immediate).doing(doing)?;
        write
            .execute(
                "INSERT OR REPLACE INTO watch_samples (provider, counter, since_us, at_us, total_nano_usd)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
                params![provider.as_str(), counter, since, sample.at, sample.total.nanos()],
            )
            .doing(doing)?;
        let old = sample.at.saturating_sub(SAMPLES_KEPT_US);
        write.execute("DELETE FROM watch_samples WHERE at_us < ?1", [old]).doing(doing)?;
        let samples = samples(&write, provider, (counter, since), from).doing(doing)?;
        write.commit().doing(doing)?;
        Ok(samples)
    }

    /// Remembers what was found. A finding that overlaps or touches one of the same kind is that one.
    ///
    /// # Errors
    /// SQLite's failure; nothing is remembered then.
    pub fn raise_findings(
        &mut self,
        provider: &ProviderId,
        findings: Vec<Finding>,
        now: TimestampUs,
    ) -> Result<Vec<RaisedFinding>, Error> {
        let doing = "remember what was found";
        let write = self.conn.transaction_with_behavior(TransactionBehavior::Immediate).doing(doing)?;
        let raised = findings.into_iter().map(|finding| raise(&write, provider, finding, now));
        let mut raised = raised.collect::<rusqlite::Result<Vec<_>>>().doing(doing)?;
        write.commit().doing(doing)?;
        // Two that touch the same one are it, both of them.
        let mut seen = HashSet::new();
        raised.retain(|raised| seen.insert(raised.seq));
        Ok(raised)
    }

    /// Remembers that the owner was told of a finding, and what follows from it was done.
    ///
    /// # Errors
    /// SQLite's failure; it will be told of again then.
    pub fn mark_finding_told(&mut self, seq: i64, now: TimestampUs) -> Result<(), Error> {
        let sql = "UPDATE watch_findings SET told_us = ?2 WHERE seq = ?1 AND told_us IS NULL";
        self.conn.execute(sql, params![seq, now]).doing("remember who was told what was found")?;
        Ok(())
    }
}

/// Sums by the minute of an instant of each request.
fn minutes(
    conn: &Connection,
    provider: &ProviderId,
    (since, until): (TimestampUs, TimestampUs),
    instant: &str,
) -> rusqlite::Result<Vec<(TimestampUs, Totals)>> {
    // What the provider answered with an error it does not charge; of anything else that it told no usage of, it may.
    let unmeasured = "usage_basis = 'estimated'
                      OR usage_basis = 'none' AND NOT (outcome = 'completed' AND coalesce(status, 0) >= 400)";
    let tokens =
        "input_tokens + cache_read_tokens + cache_write_5m_tokens + cache_write_1h_tokens + output_tokens";
    let sql = format!(
        "SELECT ({instant}) / 60000000 * 60000000 AS minute, sum(repeats) AS requests, sum({tokens}) AS tokens,
                coalesce(sum(cost_nano_usd), 0) AS cost,
                count(*) FILTER (WHERE cost_nano_usd IS NULL) AS unpriced,
                count(*) FILTER (WHERE {unmeasured}) AS unmeasured,
                coalesce(sum({tokens}) FILTER (WHERE {unmeasured}), 0) AS unmeasured_tokens,
                coalesce(sum(cost_nano_usd) FILTER (WHERE {unmeasured}), 0) AS unmeasured_cost,
                count(*) FILTER (WHERE model IS NULL) AS nameless
         FROM requests
         WHERE provider = ?1 AND started_at_us >= ?2 AND started_at_us < ?3 AND outcome <> 'refused'
               AND coalesce(route_class, 'generate') IN ('generate', 'embed')
         GROUP BY minute"
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let rows = statement
        .query_map(params![provider.as_str(), since, until], |row| Ok((row.get("minute")?, totals(row)?)))?;
    rows.collect()
}

fn totals(row: &Row<'_>) -> rusqlite::Result<Totals> {
    Ok(Totals {
        requests: unsigned(row, "requests")?,
        tokens: unsigned(row, "tokens")?,
        cost_nanos: u128::from(unsigned(row, "cost")?),
        unpriced: unsigned(row, "unpriced")?,
        unmeasured: unsigned(row, "unmeasured")?,
        unmeasured_tokens: unsigned(row, "unmeasured_tokens")?,
        unmeasured_cost_nanos: u128::from(unsigned(row, "unmeasured_cost")?),
        nameless: unsigned(row, "nameless")?,
    })
}

fn samples(
    conn: &Connection,
    provider: &ProviderId,
    (counter, since): (&str, TimestampUs),
    from: TimestampUs,
) -> rusqlite::Result<Vec<CounterSample>> {
    let sql = "SELECT at_us, total_nano_usd FROM watch_samples
               WHERE provider = ?1 AND counter = ?2 AND since_us = ?3 AND at_us >= coalesce(
                   (SELECT max(at_us) FROM watch_samples
                    WHERE provider = ?1 AND counter = ?2 AND since_us = ?3 AND at_us <= ?4), ?4)
               ORDER BY at_us";
    let mut statement = conn.prepare_cached(sql)?;
    let rows = statement.query_map(params![provider.as_str(), counter, since, from], |row| {
        Ok(CounterSample { at: row.get(0)?, total: NanoUsd::from_nanos(row.get(1)?) })
    })?;
    rows.collect()
}

fn raise(
    write: &Transaction<'_>,
    provider: &ProviderId,
    finding: Finding,
    now: TimestampUs,
) -> rusqlite::Result<RaisedFinding> {
    let model = finding.model.as_deref().map(|model| LogText::model(model).as_str().to_owned());
    let near = finding.span.widened(finding.kind.gap_us());
    let known = write
        .query_row(
            "SELECT seq, first_seen_us, told_us IS NOT NULL FROM watch_findings
             WHERE provider = ?1 AND kind = ?2 AND model IS ?3 AND begin_us <= ?5 AND end_us >= ?4
             ORDER BY seq LIMIT 1",
            params![provider.as_str(), finding.kind.as_str(), model, near.begin, near.end],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .optional()?;
    if let Some((seq, first_seen_at, is_told)) = known {
        write.execute(
            "UPDATE watch_findings
             SET begin_us = min(begin_us, ?2), end_us = max(end_us, ?3), last_seen_us = ?4 WHERE seq = ?1",
            params![seq, finding.span.begin, finding.span.end, now],
        )?;
        return Ok(RaisedFinding { seq, finding, first_seen_at, is_told });
    }
    write.execute(
        "INSERT INTO watch_findings (provider, kind, model, begin_us, end_us, first_seen_us, last_seen_us)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)",
        params![provider.as_str(), finding.kind.as_str(), model, finding.span.begin, finding.span.end, now],
    )?;
    Ok(RaisedFinding { seq: write.last_insert_rowid(), finding, first_seen_at: now, is_told: false })
}
