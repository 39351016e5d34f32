//! A history of random length, and everything that somebody may do to it with a database shell.

use proptest::prelude::*;
use rusqlite::Connection;
use serde_json::json;

use super::chain::hash_of;
use super::*;
use crate::audit::AuditFault::{Edited, HeadDiffers, Missing, Moved, NoHead, Rewritten};

/// A history in a folder of its own.
struct History {
    folder: tempfile::TempDir,
    store: Store,
}

impl History {
    fn of(rows: i64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("tokfence.db")).unwrap();
        let mut history = Self { folder, store };
        (1..=rows).for_each(|number| history.add(number));
        history
    }

    fn add(&mut self, number: i64) {
        let detail = json!({ "before": number - 1, "after": number });
        self.store
            .record(&AuditNote::new(AuditAction::Kill, format!("agent:a{number}"), detail), number)
            .unwrap();
    }

    /// A connection as the shell of SQLite has one, without what guards against mistakes.
    fn shell(&self) -> Connection {
        let conn = Connection::open(self.store.path()).unwrap();
        let triggers =
            "DROP TRIGGER audit_is_not_edited; DROP TRIGGER audit_is_not_cut; DROP TRIGGER audit_is_a_chain;";
        // Whoever was here before has dropped them already.
        let _ = conn.execute_batch(triggers);
        conn
    }

    fn shell_runs(&self, sql: &str) {
        self.shell().execute_batch(sql).unwrap();
    }

    /// The rows from `first` on are hashed anew, as an attacker would do it who knows how.
    fn hash_anew(&self, first: i64, last: i64) {
        let conn = self.shell();
        for seq in first..=last {
            let sql = "SELECT * FROM audit WHERE seq = ?1";
            let mut row = conn.query_row(sql, [seq], from_row).unwrap();
            let before = "SELECT hash FROM audit WHERE seq = ?1 - 1";
            row.prev_hash =
                conn.query_row(before, [seq], |row| row.get(0)).optional().unwrap().unwrap_or([0; 32]);
            row.hash = hash_of(&row);
            let sql = "UPDATE audit SET prev_hash = ?2, hash = ?3 WHERE seq = ?1";
            conn.execute(sql, params![seq, row.prev_hash, row.hash]).unwrap();
        }
    }

    fn report(&self) -> AuditReport {
        self.store.verify_audit(None).unwrap()
    }

    fn faults(&self) -> Vec<AuditFault> {
        self.report().faults
    }

    fn anchor(&self) -> std::path::PathBuf {
        anchor_path(self.store.path())
    }
}

#[test]
fn a_history_is_whole_and_its_head_is_kept_beside_it() {
    for rows in 0..5 {
        let history = History::of(rows);
        let report = history.report();
        assert_eq!((report.rows, report.head.seq), (rows.try_into().unwrap(), rows));
        assert_eq!((report.unanchored, report.faults), (0, vec![]));
        assert_eq!(history.anchor().exists(), rows > 0, "nothing is made before there is a change");
    }
    let history = History::of(2);
    let text = std::fs::read_to_string(history.anchor()).unwrap();
    assert_eq!(text.trim_end().parse(), Ok(history.report().head));
    assert_eq!(std::fs::metadata(history.anchor()).unwrap().permissions_mode() & 0o777, 0o600);
}

trait Mode {
    fn permissions_mode(&self) -> u32;
}

impl Mode for std::fs::Metadata {
    fn permissions_mode(&self) -> u32 {
        std::os::unix::fs::PermissionsExt::mode(&self.permissions())
    }
}

#[test]
fn every_edit_of_every_row_is_found_where_it_is() {
    const EDITS: [&str; 5] = [
        "at_us = at_us + 1",
        "actor = actor || 'x'",
        "action = 'unkill'",
        "subject = 'agent:b'",
        "detail = '{\"before\":1,\"after\":2 }'",
    ];
    for seq in 1..=4 {
        for edit in EDITS {
            let history = History::of(4);
            history.shell_runs(&format!("UPDATE audit SET {edit} WHERE seq = {seq}"));
            assert_eq!(history.faults(), [Edited { seq }], "{edit}");
        }
        let history = History::of(4);
        history.shell_runs(&format!("UPDATE audit SET prev_hash = randomblob(32) WHERE seq = {seq}"));
        assert_eq!(history.faults(), [Moved { seq }]);
        let history = History::of(4);
        history.shell_runs(&format!("UPDATE audit SET hash = zeroblob(32) WHERE seq = {seq}"));
        let next = if seq < 4 { Rewritten { seq: seq + 1 } } else { HeadDiffers { seq } };
        assert_eq!(history.faults(), [Edited { seq }, next]);
    }
}

#[test]
fn bytes_do_not_move_from_one_field_to_the_next() {
    let history = History::of(2);
    history.shell_runs("UPDATE audit SET actor = actor || 'k', action = 'ill' WHERE seq = 2");
    assert_eq!(history.faults(), [Edited { seq: 2 }]);
}

#[test]
fn every_row_that_is_removed_is_missed() {
    for seq in 1..=4 {
        let history = History::of(4);
        history.shell_runs(&format!("DELETE FROM audit WHERE seq = {seq}"));
        assert_eq!(history.faults(), [Missing { from: seq, to: seq }]);
        let history = History::of(4);
        history.shell_runs(&format!(
            "DELETE FROM audit WHERE seq = {seq};
             UPDATE audit SET seq = seq - 1 WHERE seq > {seq}"
        ));
        let first = if seq < 4 { Moved { seq } } else { Missing { from: 4, to: 4 } };
        assert_eq!(history.faults().first(), Some(&first), "and the others were renumbered");
    }
}

#[test]
fn a_tail_that_is_cut_is_missed_even_when_changes_follow() {
    for cut in 1..=4 {
        let mut history = History::of(4);
        let from = 5 - cut;
        history.shell_runs(&format!("DELETE FROM audit WHERE seq >= {from}"));
        assert_eq!(history.faults(), [Missing { from, to: 4 }]);
        // What is changed now makes no new head, and so does not cover it up.
        for number in from..=6 {
            history.add(number + 100);
            let expected =
                if number < 4 { Missing { from: number + 1, to: 4 } } else { HeadDiffers { seq: 4 } };
            assert_eq!(history.faults(), [expected]);
        }
    }
}

#[test]
fn a_chain_that_is_made_anew_is_told_from_the_old_one() {
    for seq in 1..=4 {
        let history = History::of(4);
        history.shell_runs(&format!("UPDATE audit SET subject = 'agent:b' WHERE seq = {seq}"));
        history.hash_anew(seq, seq);
        let found = if seq < 4 { Rewritten { seq: seq + 1 } } else { HeadDiffers { seq: 4 } };
        assert_eq!(history.faults(), [found], "one row");
        history.hash_anew(seq, 4);
        assert_eq!(history.faults(), [HeadDiffers { seq: 4 }], "all that follow");
    }
}

#[test]
fn a_head_that_was_noted_elsewhere_is_looked_for() {
    let mut history = History::of(3);
    let noted = history.report().head;
    history.add(4);
    assert_eq!(history.store.verify_audit(Some(noted)).unwrap().faults, []);
    let other = AuditHead { hash: [7; 32], ..noted };
    assert_eq!(history.store.verify_audit(Some(other)).unwrap().faults, [HeadDiffers { seq: 3 }]);
    let later = AuditHead { seq: 9, ..noted };
    assert_eq!(history.store.verify_audit(Some(later)).unwrap().faults, [Missing { from: 5, to: 9 }]);
    // Somebody who rewrites both places is found by it alone.
    history.shell_runs("UPDATE audit SET subject = 'agent:b' WHERE seq = 2");
    history.hash_anew(2, 4);
    anchor::write(history.store.path(), head(&history.store.conn).unwrap()).unwrap();
    assert_eq!(history.faults(), []);
    assert_eq!(history.store.verify_audit(Some(noted)).unwrap().faults, [HeadDiffers { seq: 3 }]);
}

#[test]
fn a_row_that_is_added_without_the_hash_is_found_and_one_with_it_is_told_as_new() {
    let insert = "INSERT INTO audit SELECT seq + 1, at_us, actor, action, subject, detail, hash, hash
                  FROM audit ORDER BY seq DESC LIMIT 1";
    let history = History::of(3);
    history.shell_runs(insert);
    assert_eq!(history.faults(), [Edited { seq: 4 }]);
    history.hash_anew(4, 4);
    let report = history.report();
    assert_eq!((report.unanchored, report.faults), (1, vec![]), "without a key no more can be said");
    for seq in 1..=3 {
        let history = History::of(3);
        history.shell_runs(&format!(
            "CREATE TEMP TABLE later AS SELECT * FROM audit WHERE seq >= {seq};
             DELETE FROM audit WHERE seq >= {seq};
             INSERT INTO audit SELECT seq, at_us, actor, action, 'agent:b', detail, prev_hash, hash FROM later
                 WHERE seq = {seq};
             INSERT INTO audit SELECT seq + 1, at_us, actor, action, subject, detail, prev_hash, hash FROM later"
        ));
        assert_eq!(history.faults().first(), Some(&Edited { seq }));
    }
}

#[test]
fn a_head_that_is_gone_or_unreadable_is_told_until_it_is_accepted() {
    let mut history = History::of(2);
    std::fs::remove_file(history.anchor()).unwrap();
    assert_eq!(history.faults(), [NoHead]);
    history.add(3);
    assert_eq!(history.faults(), [NoHead], "a change does not cover it up");
    for garbage in [&b""[..], b"3:\n", b"3:abc\n", b"\xff\xfe", &[b'7'; 4096]] {
        std::fs::write(history.anchor(), garbage).unwrap();
        assert_eq!(history.faults(), [NoHead], "{garbage:?}");
    }
    assert_eq!(history.store.accept_audit("restored", 4).unwrap(), NotedHead::Unreadable);
    assert_eq!((history.report().rows, history.faults()), (4, vec![]));
    history.add(5);
    assert_eq!(history.report().unanchored, 0);
}

#[test]
fn a_head_that_is_behind_is_no_fault_and_catches_up() {
    let mut history = History::of(2);
    let behind = std::fs::read(history.anchor()).unwrap();
    history.add(3);
    history.add(4);
    // As a crash between the commit and the file leaves it.
    std::fs::write(history.anchor(), behind).unwrap();
    assert_eq!((history.report().unanchored, history.faults()), (2, vec![]));
    history.add(5);
    assert_eq!((history.report().unanchored, history.faults()), (0, vec![]));
}

#[test]
fn a_change_is_kept_where_no_head_can_be_written() {
    let mut history = History::of(1);
    std::fs::remove_file(history.anchor()).unwrap();
    std::fs::create_dir(history.anchor()).unwrap();
    history.add(2);
    assert_eq!((history.report().rows, history.faults()), (2, vec![NoHead]));
    assert!(history.folder.path().exists());
}

#[test]
fn the_database_itself_refuses_slips() {
    let history = History::of(3);
    for sql in [
        "UPDATE audit SET subject = 'x' WHERE seq = 2",
        "DELETE FROM audit WHERE seq = 3",
        "DELETE FROM audit",
        "INSERT OR REPLACE INTO audit SELECT * FROM audit WHERE seq = 3",
        "INSERT INTO audit SELECT seq + 2, at_us, actor, action, subject, detail, hash, hash FROM audit WHERE seq = 3",
        "INSERT INTO audit SELECT 4, at_us, actor, action, subject, detail, prev_hash, hash FROM audit WHERE seq = 3",
    ] {
        let error = history.store.conn.execute(sql, []).unwrap_err().to_string();
        assert!(error.contains("rows of the audit log are"), "{sql}: {error}");
    }
    assert_eq!((history.report().rows, history.faults()), (3, vec![]));
}

#[test]
fn many_who_change_at_once_make_one_chain() {
    let history = History::of(0);
    let path = history.store.path().to_owned();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut store = Store::open(&path).unwrap();
                for number in 0..25 {
                    let note = AuditNote::new(AuditAction::Kill, "global", json!({ "after": number }));
                    store.record(&note, number).unwrap();
                }
            });
        }
    });
    assert_eq!((history.report().rows, history.faults()), (100, vec![]));
}

#[test]
fn retention_leaves_it_alone() {
    let history = History::of(3);
    history.store.delete_older_than(i64::MAX, 1_000).unwrap();
    assert_eq!((history.report().rows, history.faults()), (3, vec![]));
}

#[test]
fn a_head_is_read_as_it_is_written_and_nothing_else_is_one() {
    let head = AuditHead { seq: 12, hash: std::array::from_fn(|index| u8::try_from(index).unwrap() * 7) };
    assert_eq!(head.to_string().parse(), Ok(head));
    let digits = "ab".repeat(32);
    for text in [
        "",
        ":",
        "1",
        "1:",
        "x:y",
        &digits,
        &format!("-1:{digits}"),
        &format!("1:{digits}0"),
        &format!("+1:{digits}"),
    ] {
        assert_eq!(text.parse::<AuditHead>(), Err(InvalidHead), "{text}");
    }
}

#[test]
fn every_action_is_read_as_it_is_written() {
    for action in AuditAction::ALL {
        assert_eq!(action.as_str().parse(), Ok(*action));
    }
    assert!("other".parse::<AuditAction>().is_err());
}

/// One thing that is done to a history with a shell.
#[derive(Clone, Debug)]
enum Tampering {
    Edit(i64, &'static str),
    Remove(i64),
    Swap(i64, i64),
    Cut(i64),
    Rewrite(i64),
}

fn tampering(rows: i64) -> impl Strategy<Value = Tampering> {
    let seq = 1..=rows;
    let field = proptest::sample::select(vec!["actor", "action", "subject"]);
    prop_oneof![
        (seq.clone(), field).prop_map(|(seq, field)| Tampering::Edit(seq, field)),
        seq.clone().prop_map(Tampering::Remove),
        (seq.clone(), seq.clone())
            .prop_filter("two rows", |(a, b)| a != b)
            .prop_map(|(a, b)| Tampering::Swap(a.min(b), a.max(b))),
        seq.clone().prop_map(Tampering::Cut),
        seq.prop_map(Tampering::Rewrite),
    ]
}

impl Tampering {
    /// Does it, and answers the first fault that must be found.
    fn apply(&self, history: &History, rows: i64) -> AuditFault {
        match *self {
            Self::Edit(seq, field) => {
                history.shell_runs(&format!("UPDATE audit SET {field} = {field} || 'x' WHERE seq = {seq}"));
                Edited { seq }
            }
            Self::Remove(seq) => {
                history.shell_runs(&format!("DELETE FROM audit WHERE seq = {seq}"));
                Missing { from: seq, to: seq }
            }
            Self::Swap(first, second) => {
                history.shell_runs(&format!(
                    "UPDATE audit SET seq = 1000000 WHERE seq = {first};
                     UPDATE audit SET seq = {first} WHERE seq = {second};
                     UPDATE audit SET seq = {second} WHERE seq = 1000000"
                ));
                Moved { seq: first }
            }
            Self::Cut(from) => {
                history.shell_runs(&format!("DELETE FROM audit WHERE seq >= {from}"));
                Missing { from, to: rows }
            }
            Self::Rewrite(seq) => {
                history.shell_runs(&format!("UPDATE audit SET at_us = at_us + 7 WHERE seq = {seq}"));
                history.hash_anew(seq, rows);
                HeadDiffers { seq: rows }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_done_to_a_history_is_found_where_it_was_done(
        (rows, tampering) in (2..12i64).prop_flat_map(|rows| (Just(rows), tampering(rows)))
    ) {
        let history = History::of(rows);
        let noted = history.report().head;
        prop_assert_eq!(history.faults(), []);
        let expected = tampering.apply(&history, rows);
        let found = history.faults();
        prop_assert_eq!(found.first(), Some(&expected), "{:?}", tampering);
        let elsewhere = history.store.verify_audit(Some(noted)).unwrap();
        prop_assert_eq!(elsewhere.faults.first(), Some(&expected));
    }
}
