//! What can go wrong, each with a stable code and, where there is one, the way out.

use std::io;
use std::path::{Path, PathBuf};

use policy::{AgentName, CanaryName, CapabilityId};
use rusqlite::ErrorCode;

/// Everything this crate can refuse or fail with. The text says what failed, [`Error::hint`] what to do about
/// it, and [`Error::code`] is stable for scripts.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The SQLite library linked in has a known fault that can corrupt a database in WAL mode.
    #[error("SQLite {found} can corrupt a database; {needed} or newer is needed")]
    SqliteTooOld {
        /// The version found at run time.
        found: &'static str,
        /// The oldest version accepted.
        needed: &'static str,
    },
    /// The database file has the wrong owner, mode or type; refused, not mended silently.
    #[error("{} is not safe to use: {fault}", path.display())]
    UnsafeFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: FileFault,
    },
    /// There is no database at this path.
    #[error("there is no database at {}", path.display())]
    NotFound {
        /// The file.
        path: PathBuf,
    },
    /// The file is something else than a database of this program. It was left as it is.
    #[error("{} is not a tokfence database", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The file is the database of the Go program of the same name. It was left as it is.
    #[error("{} is the database of the Go program of the same name", path.display())]
    GoProgram {
        /// The file.
        path: PathBuf,
    },
    /// The file is a damaged database: cut short, overwritten or missing. It was left as it is.
    #[error("the database {} is damaged: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// The database was written by a newer program. It was left as it is.
    #[error("{} has schema version {found}, and this program knows versions up to {known}", path.display())]
    NewerSchema {
        /// The file.
        path: PathBuf,
        /// The version in the file.
        found: i64,
        /// The newest version this program knows.
        known: i64,
    },
    /// The file at this path is no longer the one that was opened.
    #[error("the database {} was removed or replaced while in use", path.display())]
    Replaced {
        /// The file.
        path: PathBuf,
    },
    /// The operating system refused a file operation.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was attempted, as a verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// No agent has this name.
    #[error("there is no agent `{name}`")]
    NoSuchAgent {
        /// The name asked for.
        name: AgentName,
    },
    /// No capability has this id.
    #[error("there is no capability `{id}`")]
    NoSuchCapability {
        /// The id asked for.
        id: CapabilityId,
    },
    /// A capability with this id or secret exists already.
    #[error("a capability `{id}` exists already")]
    CapabilityExists {
        /// The id that is taken.
        id: CapabilityId,
    },
    /// The capability would end before it begins.
    #[error("the capability `{id}` would expire before it is minted")]
    ExpiresTooEarly {
        /// The id of the new capability.
        id: CapabilityId,
    },
    /// A capability that is not in force was to be changed.
    #[error("the capability `{id}` has ended")]
    CapabilityEnded {
        /// The id asked for.
        id: CapabilityId,
    },
    /// An agent that is revoked was to get a capability.
    #[error("the agent `{name}` is revoked")]
    AgentRevoked {
        /// Its name.
        name: AgentName,
    },
    /// A canary with this name exists already.
    #[error("there is a canary `{name}` already")]
    CanaryExists {
        /// The name that is taken.
        name: CanaryName,
    },
    /// No request in the log has an id that begins like this.
    #[error("there is no request `{prefix}` in the log")]
    NoSuchRequest {
        /// The text asked for, without control characters.
        prefix: String,
    },
    /// Several requests in the log have ids that begin like this.
    #[error("several requests in the log begin with `{prefix}`")]
    AmbiguousRequest {
        /// The text asked for, without control characters.
        prefix: String,
    },
    /// A sum does not fit in 64 bits.
    #[error("cannot {doing}: the sum is too large")]
    Overflow {
        /// What was attempted, as a verb.
        doing: &'static str,
    },
    /// The writer did not commit everything in time.
    #[error("the request log did not catch up within {waited_ms} ms")]
    Behind {
        /// How long it was waited for, in milliseconds.
        waited_ms: u128,
    },
    /// The writer has ended.
    #[error("the writer of the request log has stopped")]
    Stopped,
    /// The writer gave up at shutdown with finished requests that are not in the log.
    #[error("{rows} finished requests could not be written to the log")]
    Unwritten {
        /// How many.
        rows: usize,
        /// The last error of the database.
        #[source]
        source: Option<Box<Error>>,
    },
    /// At shutdown some requests still held a reservation; they are not in the log.
    #[error("{requests} requests had not ended at shutdown and are not in the log")]
    Unsettled {
        /// How many.
        requests: usize,
    },
    /// SQLite failed; busy and full databases are among these.
    #[error("cannot {doing}")]
    Sqlite {
        /// What was attempted, as a verb.
        doing: &'static str,
        /// SQLite's reason.
        #[source]
        source: rusqlite::Error,
    },
}

/// What makes a file unsafe to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FileFault {
    /// Group or others have access; carries the permission bits.
    #[error("mode {0:04o} gives others access")]
    Mode(u32),
    /// It belongs to another user; carries that user's id.
    #[error("it belongs to user id {0}")]
    Owner(u32),
    /// The path is a symbolic link.
    #[error("it is a symbolic link")]
    SymbolicLink,
    /// It is a directory, a device, a pipe or a socket.
    #[error("it is not a regular file")]
    NotRegular,
}

impl Error {
    /// A stable `snake_case` code, the same in every release.
    pub fn code(&self) -> &'static str {
        match self {
            Self::SqliteTooOld { .. } => "sqlite_too_old",
            Self::UnsafeFile { .. } => "unsafe_file",
            Self::NotFound { .. } => "database_not_found",
            Self::Foreign { .. } => "not_a_database",
            Self::GoProgram { .. } => "former_database",
            Self::Damaged { .. } => "database_damaged",
            Self::NewerSchema { .. } => "unsupported_version",
            Self::Replaced { .. } => "database_replaced",
            Self::Io { .. } => "io",
            Self::NoSuchAgent { .. } => "no_such_agent",
            Self::NoSuchCapability { .. } => "no_such_capability",
            Self::CapabilityExists { .. } => "capability_exists",
            Self::ExpiresTooEarly { .. } => "expires_too_early",
            Self::CapabilityEnded { .. } => "capability_ended",
            Self::AgentRevoked { .. } => "agent_revoked",
            Self::CanaryExists { .. } => "canary_exists",
            Self::NoSuchRequest { .. } => "no_such_request",
            Self::AmbiguousRequest { .. } => "ambiguous_request",
            Self::Overflow { .. } => "overflow",
            Self::Behind { .. } => "log_behind",
            Self::Stopped => "log_stopped",
            Self::Unwritten { .. } => "log_unwritten",
            Self::Unsettled { .. } => "log_unsettled",
            Self::Sqlite { source, .. } => sqlite_code(source),
        }
    }

    /// What the person can do about it, if anything is known to help.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::SqliteTooOld { .. } => "build with the bundled SQLite",
            Self::UnsafeFile { path, fault } => return Some(unsafe_file_hint(path, *fault)),
            Self::NotFound { .. } => "`tokfence init` makes one",
            Self::Foreign { .. } => "check the path; the file was left as it is",
            Self::GoProgram { path } => {
                return Some(format!("put it aside, and begin a log: mv '{0}' '{0}.go'", path.display()));
            }
            Self::Damaged { path, .. } => return Some(damaged_hint(path)),
            Self::NewerSchema { .. } => "use a newer tokfence; the file was left as it is",
            Self::Replaced { .. } => "put the file back, or restart the gateway to use the new one",
            Self::NoSuchAgent { .. } | Self::NoSuchCapability { .. } => {
                "`tokfence agent list` shows what there is"
            }
            Self::CapabilityExists { .. } => "mint again: the id is chosen at random",
            Self::CapabilityEnded { .. } => "`tokfence agent mint` makes a new one",
            Self::AgentRevoked { name } => return Some(format!("tokfence agent restore {name}")),
            Self::CanaryExists { .. } => "`tokfence canary list` shows what there is",
            Self::NoSuchRequest { .. } => "`tokfence log` shows recent requests with their ids",
            Self::AmbiguousRequest { .. } => "give more characters of the id",
            Self::Overflow { .. } => "ask for a shorter period",
            Self::Behind { .. } => "`tokfence status` shows what the log is waiting for",
            Self::Sqlite { source, .. } => match sqlite_code(source) {
                "database_busy" => "another program holds the database; try again when it is done",
                "disk_full" => "free some disk space",
                "database_damaged" => "stop the gateway and restore the database from a backup",
                _ => return None,
            },
            Self::Io { .. }
            | Self::ExpiresTooEarly { .. }
            | Self::Stopped
            | Self::Unwritten { .. }
            | Self::Unsettled { .. } => return None,
        };
        Some(text.to_owned())
    }

    /// Whether the same connection may simply be asked again: somebody held a lock, or the disk was full.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self.code(), "database_busy" | "disk_full")
    }

    /// Whether a constraint of the schema refused what was to be written.
    pub(crate) fn is_constraint(&self) -> bool {
        matches!(self, Self::Sqlite { source, .. } if sqlite_code(source) == "constraint")
    }
}

/// Names the attempt in which SQLite failed.
pub(crate) trait Doing<T> {
    /// Turns SQLite's error into ours; `what` completes "cannot …".
    fn doing(self, what: &'static str) -> Result<T, Error>;
}

impl<T> Doing<T> for rusqlite::Result<T> {
    fn doing(self, doing: &'static str) -> Result<T, Error> {
        self.map_err(|source| match &source {
            // `sum()` of integers is exact and fails like this instead of wrapping
            rusqlite::Error::SqliteFailure(_, Some(text)) if text == "integer overflow" => {
                Error::Overflow { doing }
            }
            _ => Error::Sqlite { doing, source },
        })
    }
}

/// Whether SQLite says that the file is no database, or a damaged one.
pub(crate) fn is_damage(error: &rusqlite::Error) -> bool {
    sqlite_code(error) == "database_damaged"
}

fn sqlite_code(error: &rusqlite::Error) -> &'static str {
    match error {
        rusqlite::Error::FromSqlConversionFailure(..)
        | rusqlite::Error::InvalidColumnType(..)
        | rusqlite::Error::IntegralValueOutOfRange(..) => "database_damaged",
        error => match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => "database_busy",
            Some(ErrorCode::DiskFull) => "disk_full",
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => "database_damaged",
            Some(ErrorCode::ConstraintViolation) => "constraint",
            _ => "sqlite",
        },
    }
}

fn unsafe_file_hint(path: &Path, fault: FileFault) -> String {
    let path = path.display();
    match fault {
        FileFault::Mode(_) => format!("chmod 600 '{path}'"),
        FileFault::Owner(_) => format!("run as the owner, or: sudo chown \"$(id -u)\" '{path}'"),
        FileFault::SymbolicLink | FileFault::NotRegular => {
            format!("replace '{path}' by a regular file of your own")
        }
    }
}

fn damaged_hint(path: &Path) -> String {
    let path = path.display();
    format!(
        "the file was left as it is; restore a backup: cp <backup> '{path}' && rm -f '{path}-wal' '{path}-shm'"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_may_cross_threads() {
        fn check<T: Send + Sync + 'static>() {}
        check::<Error>();
    }

    #[test]
    fn a_locked_database_may_be_asked_again_and_a_damaged_one_not() {
        let of = |code| Error::Sqlite {
            doing: "test",
            source: rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None),
        };
        for (code, name, is_passing) in [
            (rusqlite::ffi::SQLITE_BUSY, "database_busy", true),
            (rusqlite::ffi::SQLITE_FULL, "disk_full", true),
            (rusqlite::ffi::SQLITE_CORRUPT, "database_damaged", false),
            (rusqlite::ffi::SQLITE_NOTADB, "database_damaged", false),
            (rusqlite::ffi::SQLITE_IOERR_FSYNC, "sqlite", false),
        ] {
            let error = of(code);
            assert_eq!((error.code(), error.is_passing()), (name, is_passing));
        }
    }
}
