//! The schema, as numbered steps that are only ever added.
//!
//! `user_version` says how many steps a database has taken. Each step and its number are one transaction, so a
//! database is never between two of them.

use rusqlite::{Connection, TransactionBehavior};

use crate::error::{Doing, Error};

const STEPS: [&str; 9] = [
    include_str!("../migrations/0001_policy.sql"),
    include_str!("../migrations/0002_requests.sql"),
    include_str!("../migrations/0003_control.sql"),
    include_str!("../migrations/0004_canaries.sql"),
    include_str!("../migrations/0005_risk.sql"),
    include_str!("../migrations/0006_sums.sql"),
    include_str!("../migrations/0007_watch.sql"),
    include_str!("../migrations/0008_spans.sql"),
    include_str!("../migrations/0009_audit.sql"),
];

/// The version of the schema this program works with.
pub(crate) const LATEST: i64 = {
    assert!(STEPS.len() < 1_000);
    #[expect(clippy::cast_possible_wrap, reason = "checked on the line above")]
    let latest = STEPS.len() as i64;
    latest
};

/// `tkfc`: marks the file as ours, in its header.
pub(crate) const APPLICATION_ID: i64 = 0x746b_6663;

/// The version of the schema in the file; 0 is none.
pub(crate) fn version(conn: &Connection) -> rusqlite::Result<i64> {
    conn.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Takes the steps that the database has not taken yet.
pub(crate) fn migrate(conn: &mut Connection) -> Result<(), Error> {
    migrate_to(conn, LATEST)
}

fn migrate_to(conn: &mut Connection, target: i64) -> Result<(), Error> {
    while version(conn).doing("read the schema version")? < target {
        take_next_step(conn).doing("migrate the database")?;
    }
    Ok(())
}

fn take_next_step(conn: &mut Connection) -> rusqlite::Result<()> {
    let step = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Read again under the lock: another process may have taken this step meanwhile.
    let version = version(&step)?;
    if let Some(sql) = usize::try_from(version).ok().and_then(|index| STEPS.get(index)) {
        step.execute_batch(sql)?;
        step.pragma_update(None, "application_id", APPLICATION_ID)?;
        step.pragma_update(None, "user_version", version + 1)?;
    }
    step.commit()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(conn: &Connection) -> Vec<(String, Option<String>)> {
        let mut statement = conn.prepare("SELECT name, sql FROM sqlite_schema ORDER BY name").unwrap();
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        rows.collect::<rusqlite::Result<_>>().unwrap()
    }

    #[test]
    fn every_earlier_version_ends_in_the_same_schema() {
        let mut fresh = Connection::open_in_memory().unwrap();
        migrate(&mut fresh).unwrap();
        for earlier in 0..=LATEST {
            let mut conn = Connection::open_in_memory().unwrap();
            migrate_to(&mut conn, earlier).unwrap();
            assert_eq!(version(&conn).unwrap(), earlier);
            if earlier >= 1 {
                conn.execute("INSERT INTO agents (name, created_at_us) VALUES ('ci', 1)", []).unwrap();
            }
            migrate(&mut conn).unwrap();
            assert_eq!(version(&conn).unwrap(), LATEST);
            assert_eq!(schema(&conn), schema(&fresh));
            let kept: i64 = conn.query_row("SELECT count(*) FROM agents", [], |row| row.get(0)).unwrap();
            assert_eq!(kept, i64::from(earlier >= 1), "rows from version {earlier} are kept");
        }
    }

    #[test]
    fn a_step_that_fails_leaves_nothing_behind() {
        let mut conn = Connection::open_in_memory().unwrap();
        migrate_to(&mut conn, 1).unwrap();
        conn.execute_batch("CREATE INDEX requests_by_time ON agents (note)").unwrap();
        let before = schema(&conn);
        assert!(migrate(&mut conn).is_err());
        assert_eq!((version(&conn).unwrap(), schema(&conn)), (1, before));
    }

    #[test]
    fn tables_are_strict_and_policy_tables_bump_the_epoch() {
        let mut conn = Connection::open_in_memory().unwrap();
        migrate(&mut conn).unwrap();
        for (name, sql) in schema(&conn) {
            let sql = sql.unwrap_or_default();
            if !sql.starts_with("CREATE TABLE") || name == "sqlite_sequence" {
                continue;
            }
            assert!(sql.contains("STRICT"), "{name}");
            if matches!(
                name.as_str(),
                "requests"
                    | "policy_epoch"
                    | "budget_spend"
                    | "budget_leases"
                    | "clock"
                    | "canary_plants"
                    | "risk_events"
                    | "risk_clears"
                    | "request_sums"
                    | "request_sums_mark"
                    | "request_spans"
                    | "watch_starts"
                    | "watch_samples"
                    | "watch_findings"
                    | "audit"
            ) {
                continue; // the tables that hold no policy
            }
            for event in ["inserted", "updated", "deleted"] {
                let trigger = format!("{name}_{event}");
                assert!(schema(&conn).iter().any(|(other, _)| *other == trigger), "{trigger}");
            }
        }
    }
}
