//! One connection to the database: how it is opened, and how a change of policy is noticed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::audit::Actor;
use crate::error::{Doing, Error, is_damage};
use crate::file::FileId;
use crate::{file, migrations};

/// Versions of SQLite before this one can corrupt a WAL database when two connections checkpoint at the same
/// moment (<https://www.sqlite.org/wal.html>, "The WAL-reset bug").
const SQLITE_VERSION_MIN: (i32, &str) = (3_051_003, "3.51.3");
/// How much of a finished write-ahead log stays on disk for reuse.
const WAL_BYTES_KEPT: i64 = 64 << 20;

/// The tables that hold no rules and grow with the requests.
const GROWING: [&str; 6] =
    ["requests", "request_sums", "request_spans", "risk_events", "watch_samples", "audit"];

/// A connection that reads everything and writes policy. The request log is written by [`crate::Writer`] only.
///
/// It may move between threads but serves one at a time; open one for each thread that needs the database.
#[derive(Debug)]
pub struct Store {
    pub(crate) conn: Connection,
    pub(crate) path: PathBuf,
    pub(crate) actor: Actor,
    file: FileId,
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Reads, and writes policy.
    Policy,
    /// Appends to the request log.
    Log,
}

impl Store {
    /// Opens the database, making it (mode 0600) if there is none, and brings its schema up to date.
    ///
    /// # Errors
    /// Refuses a file that is not ours alone, is no database of ours, is damaged, or comes from a newer program;
    /// such a file is left as it is. Otherwise the failure of the system or of SQLite.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let path = file::resolve(path)?;
        if !file::check(&path)? {
            file::create(&path, |draft| {
                let mut conn = connect_raw(draft)?;
                migrations::migrate(&mut conn)?;
                conn.close().map_err(|(_, source)| source).doing("close the new database")
            })?;
        }
        Self::connected(path)
    }

    /// Opens the database if there is one, whether or not the gateway is running, and brings its schema up to
    /// date.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is none; otherwise as [`Store::open`].
    pub fn open_existing(path: &Path) -> Result<Self, Error> {
        let not_found = || Error::NotFound { path: path.to_owned() };
        let path = file::resolve(path).map_err(|_| not_found())?;
        if !file::check(&path)? {
            return Err(not_found());
        }
        Self::connected(path)
    }

    fn connected(path: PathBuf) -> Result<Self, Error> {
        let file = FileId::of(&path)?;
        Ok(Self { conn: connect(&path, Role::Policy)?, path, actor: Actor::new("unknown"), file })
    }

    /// The same connection, whose changes are written down as those of `actor`.
    #[must_use]
    pub fn acting_as(self, actor: Actor) -> Self {
        Self { actor, ..self }
    }

    /// Whether the file that this connection reads is still the one that others find at its path.
    ///
    /// # Errors
    /// [`Error::Replaced`] when it was moved, removed or replaced: what others write is not seen here.
    pub fn check_in_place(&self) -> Result<(), Error> {
        let is_same = FileId::of(&self.path)? == self.file;
        if is_same { Ok(()) } else { Err(Error::Replaced { path: self.path.clone() }) }
    }

    /// The database file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A number that differs from the last one when another connection has committed anything since: policy or
    /// log. Costs about a microsecond. What this connection commits does not change it.
    ///
    /// # Errors
    /// SQLite's failure; decisions that depend on policy must then be refused.
    pub fn data_version(&self) -> Result<i64, Error> {
        let mut statement = self.conn.prepare_cached("PRAGMA data_version").doing("watch the database")?;
        statement.query_row([], |row| row.get(0)).doing("watch the database")
    }

    /// A number that grows with every write to a policy table, by any connection, and with nothing else.
    ///
    /// # Errors
    /// SQLite's failure; decisions that depend on policy must then be refused.
    pub fn policy_epoch(&self) -> Result<i64, Error> {
        let mut statement =
            self.conn.prepare_cached("SELECT epoch FROM policy_epoch").doing("read the policy epoch")?;
        statement.query_row([], |row| row.get(0)).doing("read the policy epoch")
    }

    /// Checks the structure of every table but those that grow with the requests, so that it costs milliseconds however
    /// long the log is: by damaged rules nothing is to be decided.
    ///
    /// # Errors
    /// As [`Store::verify`].
    pub fn verify_rules(&self) -> Result<(), Error> {
        let names = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'";
        let doing = "check the database";
        let mut statement = self.conn.prepare(names).map_err(|error| self.explain(error, doing))?;
        let names = statement.query_map([], |row| row.get::<_, String>(0));
        let names = names.and_then(Iterator::collect::<rusqlite::Result<Vec<_>>>);
        let names = names.map_err(|error| self.explain(error, doing))?;
        names
            .iter()
            .filter(|name| !GROWING.contains(&name.as_str()))
            .try_for_each(|name| self.check(Some(name)))
    }

    /// Reads the whole database and checks its structure. Takes some seconds for a gigabyte; for
    /// `doctor`.
    ///
    /// # Errors
    /// [`Error::Damaged`] with the first fault found, or SQLite's failure.
    pub fn verify(&self) -> Result<(), Error> {
        self.check(None)
    }

    /// Checks the structure of a table, or of everything.
    fn check(&self, table: Option<&str>) -> Result<(), Error> {
        let found = match table {
            // The names are those of our own schema.
            Some(table) => format!("PRAGMA quick_check('{table}')"),
            None => "PRAGMA quick_check(1)".to_owned(),
        };
        match self.conn.query_row(&found, [], |row| row.get::<_, String>(0)) {
            Ok(verdict) if verdict == "ok" => Ok(()),
            Ok(what) => Err(Error::Damaged { path: self.path.clone(), what }),
            Err(error) => Err(self.explain(error, "check the database")),
        }
    }

    fn explain(&self, error: rusqlite::Error, doing: &'static str) -> Error {
        if is_damage(&error) {
            return Error::Damaged { path: self.path.clone(), what: error.to_string() };
        }
        Error::Sqlite { doing, source: error }
    }
}

/// Connects to the existing database at `path`, which has been resolved, checks it before anything is written,
/// and prepares the connection.
pub(crate) fn connect(path: &Path, role: Role) -> Result<Connection, Error> {
    let mut conn = connect_raw(path)?;
    recognise(&conn, path)?;
    migrations::migrate(&mut conn)?;
    configure(&conn, role).doing("configure the database")?;
    Ok(conn)
}

/// Opens without creating and without following links. Until it is known what the file is, closing it must not
/// write to it either.
fn connect_raw(path: &Path) -> Result<Connection, Error> {
    check_library(rusqlite::version_number())?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_NOFOLLOW
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_EXRESCODE;
    let conn = Connection::open_with_flags(path, flags).doing("open the database")?;
    conn.busy_timeout(Duration::from_secs(5)).doing("open the database")?;
    Ok(conn)
}

fn check_library(found: i32) -> Result<(), Error> {
    let (needed, text) = SQLITE_VERSION_MIN;
    if found >= needed {
        return Ok(());
    }
    Err(Error::SqliteTooOld { found: rusqlite::version(), needed: text })
}

/// Refuses what is not a sound database of ours, or one of a newer program, before anything is written.
fn recognise(conn: &Connection, path: &Path) -> Result<(), Error> {
    let damaged = |what: String| Error::Damaged { path: path.to_owned(), what };
    let explain = |source: rusqlite::Error| match source.sqlite_error_code() {
        Some(rusqlite::ErrorCode::NotADatabase) => Error::Foreign { path: path.to_owned() },
        _ if is_damage(&source) => damaged(source.to_string()),
        _ => Error::Sqlite { doing: "open the database", source },
    };
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(explain)?;
    let application: i64 =
        conn.pragma_query_value(None, "application_id", |row| row.get(0)).map_err(explain)?;
    let found = migrations::version(conn).map_err(explain)?;
    let page_count: i64 = conn.pragma_query_value(None, "page_count", |row| row.get(0)).map_err(explain)?;
    conn.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())).map_err(explain)?;
    if page_count == 0 {
        return Err(damaged("the file is empty".to_owned()));
    }
    if application != migrations::APPLICATION_ID || found < 1 {
        let path = path.to_owned();
        return Err(match is_of_the_go_program(conn).map_err(explain)? {
            true => Error::GoProgram { path },
            false => Error::Foreign { path },
        });
    }
    if found > migrations::LATEST {
        return Err(Error::NewerSchema { path: path.to_owned(), found, known: migrations::LATEST });
    }
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false).map_err(explain)?;
    Ok(())
}

/// Whether it has the tables that the Go program of the same name made, which numbers its versions nowhere.
fn is_of_the_go_program(conn: &Connection) -> rusqlite::Result<bool> {
    let sql = "SELECT count(*) = 2 FROM pragma_table_info('requests') WHERE name IN ('estimated_cost_cents', 'request_hash')";
    conn.query_row(sql, [], |row| row.get(0))
}

fn configure(conn: &Connection, role: Role) -> rusqlite::Result<()> {
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    // Otherwise SQLite plans some statements for the very values that are bound, and prepares them anew for others.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    conn.pragma_update(None, "foreign_keys", true)?;
    conn.pragma_update(None, "cell_size_check", true)?;
    conn.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    conn.pragma_update_and_check(None, "journal_size_limit", WAL_BYTES_KEPT, |_| Ok(()))?;
    match role {
        Role::Policy => {
            // Whoever is told that a revocation is done may cut the power: it must be on the disk.
            conn.pragma_update(None, "synchronous", "FULL")?;
            // Copying the log into the database is left to the writer, or to the last one who closes.
            conn.pragma_update_and_check(None, "wal_autocheckpoint", 0, |_| Ok(()))
        }
        Role::Log => {
            // NORMAL survives a crash of the process; a power failure may cost the last rows, never the file.
            // FULL would sync for every batch (milliseconds each) without making a request any safer: its
            // answer has left long before its row is written.
            conn.pragma_update(None, "synchronous", "NORMAL")?;
            // The writer has its own patience, in which it still hears a shutdown.
            conn.busy_timeout(Duration::from_millis(250))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn home() -> (tempfile::TempDir, PathBuf) {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("tokfence.db");
        (home, path)
    }

    #[track_caller]
    fn check_refused_untouched(path: &Path, code: &str) {
        let before = fs::read(path).unwrap();
        for result in [Store::open(path), Store::open_existing(path)] {
            let error = result.unwrap_err();
            assert_eq!(error.code(), code, "{error}");
        }
        assert_eq!(fs::read(path).unwrap(), before, "the file was changed");
    }

    #[test]
    fn the_bundled_library_is_new_enough_and_an_old_one_is_refused() {
        check_library(rusqlite::version_number()).unwrap();
        assert_eq!(check_library(3_051_002).unwrap_err().code(), "sqlite_too_old");
    }

    #[test]
    fn a_new_database_is_ours_alone_and_opens_again() {
        let (home, path) = home();
        assert_eq!(Store::open_existing(&path).unwrap_err().code(), "database_not_found");
        drop(Store::open(&path).unwrap());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1, "nothing else is left");
        let store = Store::open_existing(&path).unwrap();
        store.verify().unwrap();
        assert_eq!(migrations::version(&store.conn).unwrap(), migrations::LATEST);
        let mode: String = store.conn.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
        assert_eq!(mode, "wal");
    }

    #[test]
    fn garbage_is_refused_untouched() {
        let (_home, path) = home();
        drop(Store::open(&path).unwrap());
        fs::write(&path, "not a database, but long enough to be looked at as if it were one".repeat(200))
            .unwrap();
        check_refused_untouched(&path, "not_a_database");
    }

    #[test]
    fn a_file_cut_short_is_refused_untouched() {
        let (_home, path) = home();
        drop(Store::open(&path).unwrap());
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        check_refused_untouched(&path, "database_damaged");
        fs::write(&path, "").unwrap();
        check_refused_untouched(&path, "database_damaged");
        fs::write(&path, &whole[..100]).unwrap();
        check_refused_untouched(&path, "database_damaged");
    }

    #[test]
    fn a_newer_version_and_a_foreign_database_are_refused_untouched() {
        let (_home, path) = home();
        let store = Store::open(&path).unwrap();
        store.conn.pragma_update(None, "user_version", migrations::LATEST + 1).unwrap();
        drop(store);
        check_refused_untouched(&path, "unsupported_version");
        let conn = Connection::open(&path).unwrap();
        conn.pragma_update(None, "user_version", migrations::LATEST).unwrap();
        conn.pragma_update(None, "application_id", 7).unwrap();
        drop(conn);
        check_refused_untouched(&path, "not_a_database");
    }

    #[test]
    fn a_database_of_the_go_program_is_told_by_its_tables_and_left_alone() {
        let (_home, path) = home();
        let conn = Connection::open(&path).unwrap();
        conn.execute_batch("CREATE TABLE requests(id TEXT, estimated_cost_cents INTEGER, request_hash TEXT)")
            .unwrap();
        drop(conn);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        check_refused_untouched(&path, "former_database");
        let hint = Store::open(&path).unwrap_err().hint().unwrap();
        assert!(hint.ends_with(&format!("mv '{0}' '{0}.go'", path.display())), "{hint}");
    }

    #[test]
    fn a_symbolic_link_is_refused() {
        let (home, path) = home();
        drop(Store::open(&path).unwrap());
        let link = home.path().join("link.db");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert_eq!(Store::open(&link).unwrap_err().code(), "unsafe_file");
    }

    #[test]
    fn many_may_open_at_once() {
        let (_home, path) = home();
        std::thread::scope(|scope| {
            let opened: Vec<_> = (0..8).map(|_| scope.spawn(|| Store::open(&path).map(drop))).collect();
            for thread in opened {
                thread.join().unwrap().unwrap();
            }
        });
    }

    #[test]
    fn damaged_rules_are_found_and_a_damaged_log_is_left_to_verify() {
        let (_home, path) = home();
        let root = |table: &str| {
            let sql = "SELECT rootpage FROM sqlite_schema WHERE name = ?1";
            let store = Store::open(&path).unwrap();
            store.conn.query_row(sql, [table], |row| row.get::<_, i64>(0)).unwrap()
        };
        let sound = {
            root("agents");
            std::fs::read(&path).unwrap()
        };
        for (table, is_found) in
            [("agents", true), ("budgets", true), ("kill_switch", true), ("requests", false)]
        {
            let at = usize::try_from((root(table) - 1) * 4096).unwrap();
            let mut bytes = sound.clone();
            bytes[at..at + 8].copy_from_slice(&[0xa5; 8]);
            std::fs::write(&path, bytes).unwrap();
            let store = Store::open(&path).unwrap();
            assert_eq!(
                store.verify_rules().is_err_and(|error| error.code() == "database_damaged"),
                is_found,
                "{table}"
            );
            assert!(store.verify().is_err(), "{table}");
            drop(store);
            std::fs::write(&path, &sound).unwrap();
        }
        Store::open(&path).unwrap().verify_rules().unwrap();
    }

    #[test]
    fn damage_inside_is_found_by_verify() {
        let (_home, path) = home();
        drop(Store::open(&path).unwrap());
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        for byte in &mut bytes[middle..] {
            *byte ^= 0x5a;
        }
        fs::write(&path, bytes).unwrap();
        let found = Store::open(&path).and_then(|store| store.verify()).unwrap_err();
        assert_eq!(found.code(), "database_damaged", "{found}");
    }
}
