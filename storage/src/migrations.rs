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

    /// What was summed up before there were spans is told by them as if they had been there.
    #[test]
    fn rows_that_are_summed_up_get_their_spans() {
        let mut conn = Connection::open_in_memory().unwrap();
        migrate_to(&mut conn, 7).unwrap();
        let sql = "
            WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
            INSERT INTO requests (id, started_at_us, method, path, agent, capability_id, transport, is_streaming,
                outcome, usage_basis, input_tokens, cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens,
                output_tokens, reasoning_tokens, latency_us, request_bytes, response_bytes)
            SELECT printf('%026d', i), i, 'POST', '/', iif(i % 2, 'odd', NULL), iif(i % 2, 'abcdefgh', NULL), 'tcp', 0,
                iif(i > 16390, 'refused', 'completed'), 'none', 0, 0, 0, 0, 0, 0, 1, 1, 1 FROM n";
        conn.execute(sql, []).unwrap();
        conn.execute("UPDATE request_sums_mark SET through_seq = 18000", []).unwrap();
        migrate(&mut conn).unwrap();
        let mut statement = conn.prepare("SELECT * FROM request_spans ORDER BY part, agent").unwrap();
        let spans = statement
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(3)?, row.get(4)?, row.get(7)?)));
        let spans: Vec<(i64, String, i64, i64, Option<i64>)> =
            spans.unwrap().collect::<rusqlite::Result<_>>().unwrap();
        let expected = [
            (16_384, "", 2, 16_384, Some(16_384)),
            (16_384, "odd", 1, 16_383, Some(16_383)),
            (18_000, "", 16_386, 18_000, Some(16_390)),
            (18_000, "odd", 16_385, 17_999, Some(16_389)),
        ];
        assert_eq!(
            spans,
            expected.map(|(part, agent, first, last, used)| (part, agent.to_owned(), first, last, used))
        );
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
