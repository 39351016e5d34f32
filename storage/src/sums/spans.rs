//! Where in the log an agent's and a capability's rows are, and when either was last used.
//!
//! Instead of by indexes, which would cost a page of the disk with nearly every row where many agents take turns: for
//! each part of the log that is summed up there is a row for each capability in it, with the first and the last of its
//! requests. Who looks for an agent's requests reads those parts, newest first, and nothing else of the log.

use std::ops::RangeInclusive;

use rusqlite::{Connection, params_from_iter};

use super::rollup;
use crate::error::{Doing, Error};
use crate::query::Conditions;

/// When capabilities were used: what is in the spans, and the admitted requests behind them. A row has `agent`,
/// `capability_id` (empty where there was none) and `at_us`.
pub(crate) const USES: &str = "
    uses (agent, capability_id, at_us) AS (
        SELECT agent, capability_id, last_used_us FROM request_spans
        UNION ALL
        SELECT coalesce(agent, ''), coalesce(capability_id, ''), started_at_us FROM requests NOT INDEXED
        WHERE seq > (SELECT through_seq FROM request_sums_mark) AND outcome <> 'refused')";

/// Writes down where everybody's rows are in the part of the log that ends with `until`.
pub(super) fn insert(write: &Connection, (from, until): (i64, i64)) -> rusqlite::Result<usize> {
    let sql = "
        INSERT INTO request_spans
        SELECT ?2, coalesce(agent, ''), coalesce(capability_id, ''), min(seq), max(seq), min(started_at_us),
               max(started_at_us), max(iif(outcome <> 'refused', started_at_us, NULL))
        FROM requests NOT INDEXED WHERE seq > ?1 AND seq <= ?2
        GROUP BY 2, 3";
    write.prepare_cached(sql)?.execute([from, until])
}

/// The first and last row of each part of the log that may hold some of `wanted`, the newest part first, until `each`
/// answers that it has enough. What is not summed up yet is the first part.
///
/// # Errors
/// SQLite's failure, or that of `each`.
pub(crate) fn parts(
    conn: &Connection,
    wanted: &Conditions,
    mut each: impl FnMut(RangeInclusive<i64>) -> Result<bool, Error>,
) -> Result<(), Error> {
    let doing = "look up who has rows where";
    let summed_up = rollup::through(conn).doing(doing)?;
    if each(summed_up.saturating_add(1)..=i64::MAX)? {
        return Ok(());
    }
    let sql = format!(
        "SELECT min(first_seq), max(last_seq) FROM request_spans WHERE {} GROUP BY part ORDER BY part DESC",
        wanted.sql()
    );
    let mut statement = conn.prepare_cached(&sql).doing(doing)?;
    let mut rows = statement.query(params_from_iter(wanted.values.iter())).doing(doing)?;
    while let Some(row) = rows.next().doing(doing)? {
        let (first, last) = (row.get(0).doing(doing)?, row.get(1).doing(doing)?);
        if each(first..=last)? {
            break;
        }
    }
    Ok(())
}

/// The first row of the log that may be one of `wanted`.
pub(crate) fn first_seq(conn: &Connection, wanted: &Conditions) -> rusqlite::Result<i64> {
    let sql = format!(
        "SELECT coalesce(min(first_seq), (SELECT through_seq + 1 FROM request_sums_mark)) FROM request_spans WHERE {}",
        wanted.sql()
    );
    conn.query_row(&sql, params_from_iter(wanted.values.iter()), |row| row.get(0))
}

/// Forgets the parts of which no row is left.
pub(crate) fn forget_deleted(conn: &Connection) -> rusqlite::Result<usize> {
    let sql = "DELETE FROM request_spans
               WHERE part < coalesce((SELECT min(seq) FROM requests), (SELECT through_seq + 1 FROM request_sums_mark))";
    conn.prepare_cached(sql)?.execute([])
}

#[cfg(test)]
mod tests {
    use policy::{Amount, Period, Subject, Unit};

    use crate::Store;
    use crate::sums::sum_up_all;

    /// 40,000 requests at a nano-dollar each: the first is of `early`, of the others every fourth of `often`.
    fn store() -> (tempfile::TempDir, Store) {
        let home = tempfile::tempdir().unwrap();
        let mut store = Store::open(&home.path().join("tokfence.db")).unwrap();
        let sql = "
            WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40000)
            INSERT INTO requests (id, started_at_us, method, path, agent, transport, is_streaming, outcome, usage_basis,
                input_tokens, cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens, output_tokens,
                reasoning_tokens, cost_nano_usd, latency_us, request_bytes, response_bytes)
            SELECT printf('%026d', i), i, 'POST', '/', iif(i = 1, 'early', iif(i % 4 = 0, 'often', 'other')), 'tcp', 0,
                'completed', 'none', 0, 0, 0, 0, 0, 0, 1, 1, 1, 1 FROM n";
        store.conn.execute(sql, []).unwrap();
        sum_up_all(&mut store.conn);
        (home, store)
    }

    #[test]
    fn a_new_budget_is_charged_with_what_is_summed_up_and_what_is_not() {
        let (_home, mut store) = store();
        for (agent, spent) in [("early", 1), ("often", 10_000), ("nobody", 0)] {
            let subject: Subject = format!("agent:{agent}").parse().unwrap();
            let limit = Amount { unit: Unit::NanoUsd, number: 1_000_000 };
            let zone = jiff::tz::TimeZone::UTC;
            let set = store.set_budget(&subject, Period::Total, limit, 50_000, &zone).unwrap();
            assert_eq!(set.counted, spent, "{agent}");
        }
    }

    #[test]
    fn what_is_told_of_a_part_goes_with_its_last_row() {
        let (_home, store) = store();
        let parts = |store: &Store| {
            let sql = "SELECT count(DISTINCT part) FROM request_spans";
            store.conn.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap()
        };
        assert_eq!(parts(&store), 2);
        store.delete_older_than(16_384, 1_000_000).unwrap();
        store.delete_older_than(16_384, 1_000_000).unwrap();
        assert_eq!(parts(&store), 2, "one row of the first part is left");
        store.delete_older_than(16_385, 1_000_000).unwrap();
        store.delete_older_than(16_385, 1_000_000).unwrap();
        assert_eq!(parts(&store), 1);
    }
}
