//! Retention: old rows are deleted a few at a time, so that no transaction is long.

use policy::TimestampUs;
use rusqlite::Connection;

use crate::error::{Doing, Error};
use crate::store::Store;
use crate::{risk, sums};

impl Store {
    /// Deletes at most `batch` rows of requests that began before `cutoff`, oldest first, and answers how many; and as
    /// many events of risk, but for those to which a state refers. The
    /// running writer does this by itself; this is for an explicit request.
    ///
    /// # Errors
    /// SQLite's failure.
    pub fn delete_older_than(&self, cutoff: TimestampUs, batch: u32) -> Result<u64, Error> {
        delete_older_than(&self.conn, cutoff, batch)
    }
}

/// Deletes at most `batch` rows of requests that began before `cutoff`.
pub(crate) fn delete_older_than(conn: &Connection, cutoff: TimestampUs, batch: u32) -> Result<u64, Error> {
    let doing = "delete old rows of the log";
    let mut statement = conn
        .prepare_cached(
            "DELETE FROM requests WHERE seq IN
                (SELECT seq FROM requests WHERE started_at_us < ?1 ORDER BY started_at_us LIMIT ?2)",
        )
        .doing(doing)?;
    // As old, and a few beside many requests.
    risk::delete_older_than(conn, cutoff, batch).doing(doing)?;
    sums::forget_older_than(conn, cutoff, batch).doing(doing)?;
    let deleted = statement.execute([cutoff, i64::from(batch)]).doing(doing)?;
    Ok(u64::try_from(deleted).unwrap_or(u64::MAX))
}
