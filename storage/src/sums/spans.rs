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
