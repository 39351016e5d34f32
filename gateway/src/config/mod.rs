//! The configuration: what was typed (`config.toml`) becomes what it means, whole or not at all.
//!
//! Every key is optional and has its default here, in one place. Unknown keys are faults, because a misspelt
//! limit is no limit. All faults of a file are reported at once, with their lines.

mod budget;
mod notifications;
mod prices;
mod providers;
mod reader;
mod risk;
mod watch;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use policy::ProviderId;

use crate::provider::catalogue::{AuthStyle, Provider};
pub use budget::{Budget, Reserve, UnknownModel};
pub use notifications::{Notifications, OutboundUrl};
pub use prices::{PriceOrigin, Prices, PricesError, embedded_prices};
pub use reader::{Fault, parse_duration};
use reader::{Reader, Section, boolean, duration, integer, size, text, texts};
pub use risk::Risk;
pub use watch::{Watch, WatchScope};

/// A whole, checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the gateway listens and how it ends.
    pub daemon: Daemon,
    /// Who may call.
    pub security: Security,
    /// What a caller may take up.
    pub limits: Limits,
    /// Where requests are logged and for how long.
    pub logging: Logging,
    /// How budgets reserve.
    pub budget: Budget,
    /// Who hears of what.
    pub notifications: Notifications,
    /// Where figures are shown.
    pub metrics: Metrics,
    /// What follows from what is seen.
    pub risk: Risk,
    /// How accounts are looked at.
    pub watch: Watch,
    /// Every provider, built in or configured, by name; aliases are names of their own.
    pub providers: HashMap<ProviderId, std::sync::Arc<Provider>>,
    /// Old or needless keys that were read, and what replaced them.
    pub notes: Vec<String>,
}

/// `[daemon]`
#[derive(Clone, Debug)]
pub struct Daemon {
    /// The TCP address; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// The data socket.
    pub socket_path: PathBuf,
    /// Values of `Host` that are served beside the loopback names.
    pub allowed_hosts: Vec<String>,
    /// Values of `Origin` that are served; browsers are refused otherwise.
    pub allowed_origins: Vec<String>,
    /// How long running requests may go on after a stop.
    pub shutdown_grace: Duration,
    /// How long what was accepted before an upgrade may go on.
    pub upgrade_grace: Duration,
    /// Worker threads; at least 1.
    pub threads: usize,
}

/// `[security]`
#[derive(Clone, Debug)]
pub struct Security {
    /// Whether a caller without a capability is refused; otherwise it is the agent `anonymous`.
    pub require_capability: bool,
    /// What is done about secrets in answers.
    pub scan_responses: Scan,
    /// What is done about secrets in requests.
    pub scan_requests: Scan,
}

/// What is done about secrets in traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan {
    /// Nobody looks for them.
    Off,
    /// They are told of.
    Detect,
    /// They do not pass.
    Enforce,
}

impl Scan {
    const ALL: [Self; 3] = [Self::Off, Self::Detect, Self::Enforce];

    /// The name, as it is written in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Detect => "detect",
            Self::Enforce => "enforce",
        }
    }
}

/// `[limits]`
#[derive(Clone, Debug)]
pub struct Limits {
    /// The largest request body, in bytes.
    pub request_body_bytes: u64,
    /// The largest head of a request, in bytes.
    pub header_bytes: usize,
    /// Open connections of callers.
    pub connections: usize,
    /// How many of them one address, or one user of the socket, may have.
    pub connections_per_peer: usize,
    /// All buffered bodies together, in bytes.
    pub memory_bytes: u64,
    /// From the first byte of a head to its last.
    pub head_timeout: Duration,
    /// From the head of a request to the last byte of its body.
    pub body_timeout: Duration,
    /// How long a caller may take nothing of its answer.
    pub stall_timeout: Duration,
}

/// `[logging]`
#[derive(Clone, Debug)]
pub struct Logging {
    /// The database.
    pub db_path: PathBuf,
    /// After how many days rows are removed; `None` keeps them.
    pub retention_days: Option<u32>,
    /// Whether a request is refused that cannot be logged.
    pub required: bool,
}

/// `[metrics]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// The address of the listener; port 0 lets the system choose, and `None` is no listener.
    pub listen: Option<SocketAddr>,
    /// Whether somebody asked for that address. One that nobody asked for may be taken.
    pub is_set: bool,
    /// Whether the owner's page is shown there as well.
    pub dashboard: bool,
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file says something that cannot be.
    #[error("{} {}", path.display(), list(faults))]
    Faults {
        /// The file.
        path: PathBuf,
        /// Everything that is wrong with it.
        faults: Vec<Fault>,
    },
}

/// What is wrong with an address that other machines could reach without anybody having allowed it.
const EXPOSED: &str = "can be reached from other machines; set `allow_remote = true` if that is meant";

impl ConfigError {
    /// A stable code; an address that nobody allowed has one of its own, because that is not a slip of the pen.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Faults { faults, .. } if faults.iter().any(|fault| fault.message.ends_with(EXPOSED)) => {
                "unsafe_address"
            }
            Self::Faults { .. } | Self::Io { .. } => "invalid_config",
        }
    }
}

fn list(faults: &[Fault]) -> String {
    let lines: Vec<String> = faults.iter().map(|fault| format!("\n  {fault}")).collect();
    let count =
        if faults.len() == 1 { "has a fault".to_owned() } else { format!("has {} faults", faults.len()) };
    format!("{count}:{}", lines.concat())
}

impl Config {
    /// Reads `path`; a file that does not exist means that everything is as by default. Relative paths and a
    /// leading `~/.tokfence` in values are taken from `home`.
    ///
    /// # Errors
    /// [`ConfigError`] with every fault of the file.
    pub fn load(path: &Path, home: &Path) -> Result<Self, ConfigError> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(source) => return Err(ConfigError::Io { path: path.to_owned(), source }),
        };
        Self::parse(&text, home).map_err(|faults| ConfigError::Faults { path: path.to_owned(), faults })
    }

    /// Reads a configuration from its text.
    ///
    /// # Errors
    /// Every fault of the text.
    pub fn parse(text: &str, home: &Path) -> Result<Self, Vec<Fault>> {
        let mut reader = Reader::new(text);
        let Some(document) = reader.parse() else { return Err(reader.into_faults()) };
        let mut root = Section::root(document.as_table());
        let mut notes = Vec::new();
        let config = Self {
            daemon: read_daemon(&mut reader, &mut root, home, &mut notes),
            security: read_security(&mut reader, &mut root),
            limits: read_limits(&mut reader, &mut root),
            logging: read_logging(&mut reader, &mut root, home),
            budget: budget::read_budget(&mut reader, &mut root),
            notifications: notifications::read(&mut reader, &mut root),
            metrics: read_metrics(&mut reader, &mut root),
            risk: risk::read_risk(&mut reader, &mut root),
            watch: watch::read(&mut reader, &mut root),
            providers: providers::read(&mut reader, &mut root, home),
            notes: Vec::new(),
        };
        read_former_tables(&mut root, &mut notes);
        reader.finish(root);
        let faults = reader.into_faults();
        if faults.is_empty() { Ok(Self { notes, ..config }) } else { Err(faults) }
    }

    /// What differs from `running` in a way that only a new process can take up.
    pub fn needs_restart(&self, running: &Self) -> Vec<String> {
        let (new, old) = (&self.daemon, &running.daemon);
        let changes = [
            ("daemon.host or daemon.port", new.listen != old.listen),
            ("daemon.socket_path", new.socket_path != old.socket_path),
            ("daemon.threads", new.threads != old.threads),
            ("daemon.shutdown_grace", new.shutdown_grace != old.shutdown_grace),
            ("daemon.upgrade_grace", new.upgrade_grace != old.upgrade_grace),
            ("limits.connections", self.limits.connections != running.limits.connections),
            (
                "limits.connections_per_peer",
                self.limits.connections_per_peer != running.limits.connections_per_peer,
            ),
            ("limits.header", self.limits.header_bytes != running.limits.header_bytes),
            ("limits.head_timeout", self.limits.head_timeout != running.limits.head_timeout),
            ("metrics.listen", self.metrics.listen != running.metrics.listen),
            ("logging.db_path", self.logging.db_path != running.logging.db_path),
            ("logging.retention_days", self.logging.retention_days != running.logging.retention_days),
        ];
        let changed = changes.into_iter().filter(|(_, changed)| *changed);
        changed
            .map(|(key, _)| format!("the change of `{key}` takes effect after `tokfence restart`"))
            .collect()
    }

    /// The providers to which the caller's own credential goes, by name.
    pub fn passthrough_providers(&self) -> Vec<String> {
        let own = self.providers.values().filter(|provider| provider.auth == AuthStyle::Passthrough);
        let mut names: Vec<String> = own.map(|provider| provider.id.to_string()).collect();
        names.sort();
        names.dedup();
        names
    }

    /// The provider of a name or an alias.
    pub fn provider(&self, name: &str) -> Option<&std::sync::Arc<Provider>> {
        self.providers.get(&name.parse::<ProviderId>().ok()?)
    }
}

fn read_daemon(
    reader: &mut Reader<'_>,
    root: &mut Section<'_>,
    home: &Path,
    notes: &mut Vec<String>,
) -> Daemon {
    let mut section = reader.section(root, "daemon");
    let allow_remote = reader.value(&mut section, "allow_remote", boolean).unwrap_or(false);
    let host = reader.value(&mut section, "host", |value| {
        let address = text(value)?.parse::<IpAddr>().map_err(|_| "must be an IP address".to_owned())?;
        if address.is_loopback() || allow_remote {
            return Ok(address);
        }
        Err(format!("{address} {EXPOSED}"))
    });
    let port = reader.value(&mut section, "port", |value| integer(value, 0, 65_535)).unwrap_or(9471);
    let threads = reader.value(&mut section, "threads", |value| integer(value, 0, 1024)).unwrap_or(0);
    let socket =
        reader.value(&mut section, "socket_path", text).unwrap_or_else(|| "tokfence.sock".to_owned());
    let daemon = Daemon {
        listen: SocketAddr::new(
            host.unwrap_or(IpAddr::from([127, 0, 0, 1])),
            u16::try_from(port).expect("checked against 65535 above"),
        ),
        socket_path: expand(&socket, home),
        allowed_hosts: reader.value(&mut section, "allowed_hosts", texts).unwrap_or_default(),
        allowed_origins: reader.value(&mut section, "allowed_origins", texts).unwrap_or_default(),
        shutdown_grace: reader
            .value(&mut section, "shutdown_grace", duration)
            .unwrap_or(Duration::from_secs(10)),
        upgrade_grace: reader
            .value(&mut section, "upgrade_grace", duration)
            .unwrap_or(Duration::from_secs(15 * 60)),
        threads: match usize::try_from(threads).unwrap_or(0) {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        },
    };
    for (key, instead) in FORMER_DAEMON_KEYS {
        if section.take(key).is_some() {
            notes.push(format!("`daemon.{key}` is no longer used: {instead}"));
        }
    }
    reader.finish(section);
    daemon
}

/// Keys of the Go program of the same name, and what does their job now.
const FORMER_DAEMON_KEYS: [(&str, &str); 5] = [
    ("immune_enabled", "capabilities are always checked; see `security.require_capability`"),
    ("immune_strict_mode", "see `security.require_capability`"),
    ("default_client_id", "an agent is named when its capability is minted"),
    ("default_session_id", "a session is one capability"),
    ("default_capability_scope", "a scope is given when a capability is minted"),
];

fn read_former_tables(root: &mut Section<'_>, notes: &mut Vec<String>) {
    if root.take("risk_defaults").is_some() {
        notes.push("`risk_defaults` is no longer used: see `risk.initial_state`".to_owned());
    }
}

fn read_security(reader: &mut Reader<'_>, root: &mut Section<'_>) -> Security {
    let mut section = reader.section(root, "security");
    let scan = |value: &toml_edit::Value| {
        let name = text(value)?;
        let found = Scan::ALL.into_iter().find(|scan| scan.as_str() == name);
        found.ok_or_else(|| "must be \"off\", \"detect\" or \"enforce\"".to_owned())
    };
    let require_capability = reader.value(&mut section, "require_capability", boolean).unwrap_or(true);
    let scan_responses = reader.value(&mut section, "scan_responses", scan).unwrap_or(Scan::Enforce);
    let scan_requests = reader.value(&mut section, "scan_requests", scan).unwrap_or(Scan::Enforce);
    reader.finish(section);
    Security { require_capability, scan_responses, scan_requests }
}

fn read_limits(reader: &mut Reader<'_>, root: &mut Section<'_>) -> Limits {
    let mut section = reader.section(root, "limits");
    let bounded = |max: u64| {
        move |value: &toml_edit::Value| {
            let bytes = size(value)?;
            if bytes <= max { Ok(bytes) } else { Err(format!("must be at most {max} bytes")) }
        }
    };
    let header = reader.value(&mut section, "header", bounded(1 << 20)).unwrap_or(64 << 10);
    let count = |value: &toml_edit::Value| integer(value, 1, 1_000_000);
    let connections = reader.value(&mut section, "connections", count).unwrap_or(10_000);
    // What is left is for others: a peer that takes all that it may shuts nobody else out.
    let per_peer = reader.value(&mut section, "connections_per_peer", count);
    let per_peer = per_peer.unwrap_or(connections - connections / 10);
    let mut timeout =
        |key, default_s| reader.value(&mut section, key, some_time).unwrap_or(Duration::from_secs(default_s));
    let (head_timeout, body_timeout, stall_timeout) =
        (timeout("head_timeout", 10), timeout("body_timeout", 60), timeout("stall_timeout", 60));
    let limits = Limits {
        request_body_bytes: reader.value(&mut section, "request_body", bounded(1 << 30)).unwrap_or(32 << 20),
        header_bytes: usize::try_from(header).expect("at most a mebibyte"),
        connections: usize::try_from(connections).expect("at most a million"),
        connections_per_peer: usize::try_from(per_peer).expect("at most a million"),
        memory_bytes: reader.value(&mut section, "memory", bounded(1 << 40)).unwrap_or(1 << 30),
        head_timeout,
        body_timeout,
        stall_timeout,
    };
    reader.finish(section);
    limits
}

/// A span of time that something can happen in.
fn some_time(value: &toml_edit::Value) -> Result<Duration, String> {
    duration(value)
        .and_then(|time| if time.is_zero() { Err("must be longer than nothing".into()) } else { Ok(time) })
}

fn read_logging(reader: &mut Reader<'_>, root: &mut Section<'_>, home: &Path) -> Logging {
    let mut section = reader.section(root, "logging");
    let path = reader.value(&mut section, "db_path", text).unwrap_or_else(|| "tokfence.db".to_owned());
    let days = reader.value(&mut section, "retention_days", |value| integer(value, 0, 36_500)).unwrap_or(90);
    let required = reader.value(&mut section, "required", boolean).unwrap_or(false);
    reader.finish(section);
    let days = u32::try_from(days).expect("at most a hundred years");
    Logging { db_path: expand(&path, home), retention_days: (days > 0).then_some(days), required }
}

fn read_metrics(reader: &mut Reader<'_>, root: &mut Section<'_>) -> Metrics {
    let mut section = reader.section(root, "metrics");
    let listen = reader.value(&mut section, "listen", |value| {
        let typed = text(value)?;
        if typed.is_empty() {
            return Ok(None);
        }
        let address: SocketAddr =
            typed.parse().map_err(|_| "must be an address such as \"127.0.0.1:9472\", or \"\" for none")?;
        // Figures name agents and what they spend, and nobody is asked who he is.
        if address.ip().is_loopback() {
            Ok(Some(address))
        } else {
            Err("must be an address of this machine alone".into())
        }
    });
    let dashboard = reader.value(&mut section, "dashboard", boolean).unwrap_or(true);
    reader.finish(section);
    let default = Some(SocketAddr::from(([127, 0, 0, 1], 9472)));
    Metrics { listen: listen.unwrap_or(default), is_set: listen.is_some(), dashboard }
}

/// A path of the configuration: absolute, or under the home. `~/.tokfence` is the home, wherever it is.
fn expand(path: &str, home: &Path) -> PathBuf {
    let under_home = path.strip_prefix("~/.tokfence/").unwrap_or(path);
    if let Some(rest) = under_home.strip_prefix("~/") {
        let user_home = std::env::home_dir().unwrap_or_else(|| home.to_owned());
        return user_home.join(rest);
    }
    home.join(under_home)
}
