//! The control socket: how the command line speaks to a running daemon. One JSON line there, one back.
//!
//! Everything administrative is here and nowhere else: the socket is 0600 in a folder of its own, and the
//! process at its other end must have the daemon's user.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use vault::Secret;

use crate::overview::{InFlight, Overview};

/// A command in one line; a passphrase is the longest thing in one.
pub(super) const LINE_BYTES_MAX: u64 = 64 * 1024;
/// An answer in one line; the requests in flight are the longest thing in one that a process tells its successor.
pub(super) const REPLY_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// What the daemon is asked to do.
#[derive(Deserialize, Serialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Command {
    /// Tell how it is.
    Status,
    /// Read configuration, policy and vault again; answered when the next request will see them.
    Reload,
    /// Wait until every row so far is in the database.
    Flush,
    /// Forget the keys.
    Lock {
        /// Whether requests that run may end by themselves; otherwise they are cut.
        lets_finish: bool,
    },
    /// Open the vault.
    Unlock {
        /// With what.
        with: UnlockWith,
    },
    /// Tell how much of the limits on rates is used.
    Rates,
    /// Tell how everything stands.
    Overview,
    /// Make a link that lets a browser in to the dashboard, once.
    DashboardLink,
    /// End every session and every link of the dashboard.
    DashboardLogOut,
    /// Tell which requests are in flight; for the process that has taken the place of this one.
    Running,
    /// Turn the kill switch on.
    Kill {
        /// Why.
        reason: String,
    },
    /// End, after running requests have had their grace period.
    Stop,
    /// Start a successor and hand everything over to it; answered when it serves.
    Upgrade {
        /// The program to start.
        program: PathBuf,
    },
}

/// How to open the vault.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UnlockWith {
    /// The passphrase.
    Passphrase(String),
    /// The recovery code.
    Recovery(String),
    /// The system's keyring.
    Keyring,
}

/// The daemon's answer.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// It is done.
    Done {
        /// Things worth knowing, such as old keys in the configuration.
        notes: Vec<String>,
    },
    /// How the daemon is.
    Status(Box<DaemonStatus>),
    /// What is used of each limit on rates.
    Rates(Vec<RateStatus>),
    /// How everything stands.
    Overview(Box<Overview>),
    /// A way into the dashboard.
    DashboardLink(LoginLink),
    /// So many browsers were let out.
    LoggedOut(usize),
    /// What is in flight.
    Running(InFlight),
    /// It cannot be done.
    Failed {
        /// A stable code.
        code: String,
        /// What happened.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
}

/// A link that lets a browser in, once.
#[derive(Deserialize, Serialize)]
pub struct LoginLink {
    /// The link, with its secret.
    pub url: String,
    /// From when on it is of no use, in microseconds since the Unix epoch.
    pub expires_at_us: i64,
}

/// How a running daemon is.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct DaemonStatus {
    /// Its process.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// The process that it took over from and that still answers what it had accepted.
    #[serde(default)]
    pub predecessor: Option<u32>,
    /// The TCP address it serves, `127.0.0.1:9471`.
    pub address: String,
    /// The Unix socket it serves.
    pub socket: String,
    /// Where figures for Prometheus are, if anywhere.
    #[serde(default)]
    pub metrics: Option<String>,
    /// `ok`, `locked`, or `killed` while the kill switch is on.
    pub state: String,
    /// Whether the keys are not loaded.
    pub is_locked: bool,
    /// When and why the kill switch was turned on.
    pub killed: Option<Revoked>,
    /// The providers that are not served.
    pub revoked_providers: Vec<Revoked>,
    /// How many budgets were found to have much spent of them since the start.
    pub budget_warnings: u64,
    /// Who is restricted because of what was seen of him.
    #[serde(default)]
    pub risks: Vec<RiskStatus>,
    /// How often each signal of risk was seen since the start, by its name.
    #[serde(default)]
    pub risk_signals: BTreeMap<String, u64>,
    /// When it started, in microseconds since the Unix epoch.
    pub started_at_us: i64,
    /// Requests in flight.
    pub in_flight: usize,
    /// Providers for which a key is loaded.
    pub providers: Vec<String>,
    /// Providers to which the caller's own credential goes.
    #[serde(default)]
    pub passthrough: Vec<String>,
    /// Whether rows reach the database: `ok`, or what is wrong.
    pub log: String,
}

/// How much of a subject's limits on rates is used.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct RateStatus {
    /// Whose limits: `openai`, `agent:ci`.
    pub subject: String,
    /// Requests that have not refilled yet.
    pub requests_used: u64,
    /// Tokens that have not refilled yet; more than the limit is a debt.
    pub tokens_used: u64,
    /// Requests in flight.
    pub in_flight: u32,
}

/// How far somebody is restricted, and why.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct RiskStatus {
    /// Who: `agent:ci`, `capability:1a2b3c4d`, `global`.
    pub subject: String,
    /// `YELLOW`, `ORANGE` or `RED`.
    pub state: String,
    /// Since when, in microseconds since the Unix epoch.
    pub since_us: i64,
    /// The signal that led to it.
    pub signal: String,
    /// The number of its event.
    pub event: i64,
}

/// Something that its owner took back.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Revoked {
    /// What; empty where that is said already.
    pub name: String,
    /// When, in microseconds since the Unix epoch.
    pub at_us: i64,
    /// Why.
    pub reason: String,
}

/// Why the daemon could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nobody answers on the socket.
    #[error("the daemon is not running")]
    NotRunning,
    /// The conversation broke off.
    #[error("the daemon does not answer")]
    Io(#[source] std::io::Error),
    /// The daemon says something else than we understand.
    #[error("the daemon's answer is not understood; it may be of another version")]
    NotUnderstood(#[source] serde_json::Error),
}

impl Reply {
    /// The answer to a command of another version.
    pub(super) fn not_understood() -> Self {
        Self::Failed {
            code: "not_understood".to_owned(),
            message: "the command is not understood; it may be of another version".to_owned(),
            hint: Some("tokfence restart".to_owned()),
        }
    }
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Status => "Status",
            Self::Reload => "Reload",
            Self::Flush => "Flush",
            Self::Lock { .. } => "Lock",
            Self::Unlock { .. } => "Unlock",
            Self::Rates => "Rates",
            Self::Overview => "Overview",
            Self::DashboardLink => "DashboardLink",
            Self::DashboardLogOut => "DashboardLogOut",
            Self::Running => "Running",
            Self::Kill { .. } => "Kill",
            Self::Stop => "Stop",
            Self::Upgrade { .. } => "Upgrade",
        })
    }
}

impl std::fmt::Debug for LoginLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LoginLink(..)")
    }
}

impl std::fmt::Debug for UnlockWith {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("UnlockWith(..)")
    }
}

/// Asks the daemon whose control socket is at `path`. An answer is awaited for `patience`.
///
/// # Errors
/// [`ControlError::NotRunning`] when nobody listens, otherwise what went wrong on the way.
pub fn ask(path: &Path, command: &Command, patience: Duration) -> Result<Reply, ControlError> {
    let mut stream = UnixStream::connect(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => ControlError::NotRunning,
        _ => ControlError::Io(error),
    })?;
    stream.set_read_timeout(Some(patience)).map_err(ControlError::Io)?;
    let line = Secret::new(serde_json::to_string(command).map_err(ControlError::NotUnderstood)? + "\n");
    stream.write_all(line.expose().as_bytes()).map_err(ControlError::Io)?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).map_err(ControlError::Io)?;
    serde_json::from_str(&answer).map_err(ControlError::NotUnderstood)
}
