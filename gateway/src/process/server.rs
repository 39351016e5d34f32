//! From start to stop: one instance, everything checked and bound before anything is served, and at the end
//! no request cut before its grace period is over and no row lost.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pingora::tls::{RootCertStore, load_platform_certs_incl_env_into_store};
use storage::{Actor, Store, Writer, WriterConfig};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use vault::Vault;

use crate::caller::listen::ListenError;
use crate::config::{Config, ConfigError};
use crate::process::accounts;
use crate::process::bound::Bound;
use crate::process::daemon::{Daemon, DaemonError, Place, load_snapshot};
use crate::process::handover::Predecessor;
use crate::process::home::{Home, HomeError, make_private_dir};
use crate::process::open_files;
use crate::process::running::{Ours, Running, Signals, write_pid};
use crate::process::runs;
use crate::process::service::Service;
use crate::rules_watch::RulesWatch;
use crate::state::Shared;

/// How often changes by other processes are looked for.
const WATCH_INTERVAL: Duration = Duration::from_millis(100);
/// How long the end waits for what the owner is still being told.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Longer than any look at the lock of the home.
const LOOK: Duration = Duration::from_millis(100);
/// Commands that end the daemon and wait to be heard.
const ENDS_MAX: usize = 8;

/// What to serve.
#[derive(Debug)]
pub struct ServeOptions {
    /// Where everything is kept.
    pub home: Home,
    /// The configuration file.
    pub config_path: PathBuf,
    /// The vault, if it could be opened already; otherwise the daemon starts locked.
    pub vault: Option<Vault>,
    /// The daemon in whose place this one comes, if it was started for that.
    pub predecessor: Option<UnixStream>,
    /// With which arguments a successor is started; it finds its predecessor at its standard input.
    pub successor_args: Vec<OsString>,
    /// With which arguments accounts are looked at, by a process that is given the vault's key at its standard input;
    /// without any the daemon never looks.
    pub watch_args: Vec<OsString>,
    /// Whether there is no terminal and no supervisor that reads what a successor writes.
    pub is_detached: bool,
}

impl ServeOptions {
    /// A daemon that takes nobody's place, and in whose place nobody comes.
    pub fn new(home: Home, config_path: PathBuf, vault: Option<Vault>) -> Self {
        Self {
            home,
            config_path,
            vault,
            predecessor: None,
            successor_args: Vec::new(),
            watch_args: Vec::new(),
            is_detached: false,
        }
    }
}

/// What is told once everything is bound and served.
#[derive(Clone, Debug)]
pub struct Serving {
    /// The TCP address, with the port that was bound.
    pub address: String,
    /// The data socket.
    pub socket: PathBuf,
    /// `ok`, `locked`, or `killed` while the kill switch is on.
    pub state: &'static str,
    /// Whether the keys are not loaded.
    pub is_locked: bool,
    /// Things worth knowing about the configuration.
    pub notes: Vec<String>,
}

/// Why the daemon could not start, or not end well.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The home.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// Another daemon has this home.
    #[error("a daemon is already running for {} (process {pid})", home.display())]
    AlreadyRunning {
        /// The home.
        home: PathBuf,
        /// Its process, as it wrote into the lock file.
        pid: String,
    },
    /// An address.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Configuration, database or vault.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// The certificates that providers are verified with.
    #[error("the machine's certificates cannot be read: {reason}")]
    Certificates {
        /// Why.
        reason: String,
    },
    /// What another daemon hands over cannot be taken.
    #[error("the running daemon's place cannot be taken: {reason}")]
    Handover {
        /// Why.
        reason: String,
    },
    /// The system.
    #[error("{doing}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

impl From<ConfigError> for ServeError {
    fn from(error: ConfigError) -> Self {
        Self::Daemon(error.into())
    }
}

impl From<storage::Error> for ServeError {
    fn from(error: storage::Error) -> Self {
        Self::Daemon(error.into())
    }
}

impl ServeError {
    /// A stable code: that of the cause where it has one of its own.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Home(HomeError::Io { .. }) => "io",
            Self::Home(_) => "unsafe_home",
            Self::Daemon(error) => error.code(),
            Self::Handover { .. } => "upgrade_failed",
            Self::AlreadyRunning { .. } | Self::Listen(_) | Self::Certificates { .. } | Self::Io { .. } => {
                "cannot_serve"
            }
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Home(error) => error.hint(),
            Self::AlreadyRunning { .. } => Some("tokfence status, or tokfence restart".to_owned()),
            Self::Listen(ListenError::Tcp { .. }) => {
                Some("see who has the port, or set `daemon.port` in config.toml".to_owned())
            }
            Self::Listen(_) => Some("set `daemon.socket_path` in config.toml".to_owned()),
            Self::Daemon(error) => error.hint(),
            Self::Certificates { .. } => Some("install the package `ca-certificates`".to_owned()),
            Self::Handover { .. } => Some("tokfence restart".to_owned()),
            Self::Io { .. } => None,
        }
    }
}

/// Serves until the process is told to stop, by a signal or over the control socket, or until a successor serves in its
/// place and what was accepted before is answered. `on_serving` is called once, when requests are answered.
///
/// # Errors
/// [`ServeError`] when it cannot start; nothing is left behind then.
pub fn serve(mut options: ServeOptions, on_serving: impl FnOnce(&Serving)) -> Result<(), ServeError> {
    // Everything this process makes is for its user alone.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    options.home.prepare()?;
    make_private_dir(&options.home.control_dir())?;
    let Some(link) = options.predecessor.take() else {
        let lock = claim_home(&options.home)?;
        let config = Config::load(&options.config_path, options.home.dir())?;
        return serve_with(options, config, lock, &mut None, on_serving);
    };
    let (predecessor, handed) = Predecessor::meet(link)?;
    let mut predecessor = Some((predecessor, handed.listeners));
    let served =
        Config::load(&options.config_path, options.home.dir()).map_err(ServeError::from).and_then(|config| {
            let open =
                |key| Vault::open_with_data_key(&options.home.vault(), &key).map_err(DaemonError::from);
            options.vault = handed.data_key.map(open).transpose()?;
            serve_with(options, config, handed.lock.into(), &mut predecessor, on_serving)
        });
    if let (Err(error), Some((predecessor, _))) = (&served, &mut predecessor) {
        predecessor.decline(error);
    }
    served
}

/// The daemon in whose place this one comes, until this one serves, and what that one listens on.
type Before = Option<(Predecessor, Vec<OwnedFd>)>;

fn serve_with(
    options: ServeOptions,
    config: Config,
    lock: File,
    before: &mut Before,
    on_serving: impl FnOnce(&Serving),
) -> Result<(), ServeError> {
    let store = Store::open(&config.logging.db_path)?.acting_as(Actor::new("daemon"));
    store.verify_rules()?;
    let retention = config.logging.retention_days.map(|days| Duration::from_secs(u64::from(days) * 86_400));
    let writer_config = WriterConfig { retention, ..WriterConfig::default() };
    let (ledger, writer) = Writer::start(&config.logging.db_path, writer_config)?;

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config.daemon.threads)
        .thread_name("gateway")
        .enable_all()
        .build()
        .map_err(|source| ServeError::Io { doing: "start the worker threads", source })?;
    let served = runtime.block_on(run(options, config, &lock, (store, ledger), before, on_serving));
    // What is still running is dropped here and settles itself; after that the writer has every row.
    runtime.shutdown_timeout(Duration::from_secs(2));
    let written = writer.shutdown();
    served?;
    Ok(written?)
}

/// Runs on a thread of its own, which may wait; what is served is served by others.
async fn run(
    options: ServeOptions,
    config: Config,
    lock: &File,
    (store, ledger): (Store, storage::Ledger),
    before: &mut Before,
    on_serving: impl FnOnce(&Serving),
) -> Result<(), ServeError> {
    check_certificates()?;
    let signals = Signals::listen()?;
    let home = options.home.clone();
    let mut bound = match before {
        Some((_, listeners)) => Bound::handed_over(std::mem::take(listeners), &config)?,
        None => Bound::new(&config, &home)?,
    };
    let too_few_files = open_files::allow(config.limits.connections);
    let notes =
        [config.notes.clone(), std::mem::take(&mut bound.notes), Vec::from_iter(too_few_files)].concat();
    let (rules_watch, rules) = RulesWatch::start(store)?;
    let snapshot = load_snapshot(config.clone(), &home, rules)?;
    let shared = Arc::new(Shared::new(snapshot, rules_watch, ledger, bound.address.port()));
    let address = reachable(bound.address).to_string();
    let socket = config.daemon.socket_path.clone();
    let place = Place {
        home: home.clone(),
        config_path: options.config_path.clone(),
        address: address.clone(),
        socket: socket.clone(),
        metrics: bound.metrics_address(),
    };
    let daemon = Arc::new(Daemon::new(shared.clone(), place, options.vault));
    let (asked, ends) = mpsc::channel(ENDS_MAX);
    let service = Service::new(shared.clone(), daemon.clone(), &config, asked);
    let mut running = Running { daemon: daemon.clone(), service, signals, ends };

    // Before anything is served: what died while no daemon ran has no capability any more.
    runs::look(&daemon, false).await;
    if let Some((predecessor, _)) = before {
        predecessor.await_turn()?;
        bound.own_names(&config, &home);
    }
    write_pid(lock)?;
    running.service.accept(&bound)?;
    if let Some((mut predecessor, _)) = before.take() {
        predecessor.tell_serving()?;
        daemon.follow(predecessor);
    }
    let watching = watch(&daemon, options.watch_args);
    on_serving(&Serving { address, socket, state: shared.health(), is_locked: shared.is_locked(), notes });
    let ours = Ours { lock, bound, args: options.successor_args, is_detached: options.is_detached };
    let names = running.until_end(ours, config.daemon.upgrade_grace).await?;
    tracing::info!("stopping");
    running.stop(config.daemon.shutdown_grace).await;
    watching.iter().for_each(JoinHandle::abort);
    daemon.tell_warnings();
    shared.notifier.finish(LAST_WORDS);
    running.finish_answers().await;
    drop(names);
    Ok(())
}

/// What a daemon does without being asked.
fn watch(daemon: &Arc<Daemon>, watch_args: Vec<OsString>) -> [JoinHandle<()>; 4] {
    [
        tokio::spawn(accounts::watch(daemon.clone(), watch_args)),
        tokio::spawn(watch_for_changes(daemon.clone())),
        tokio::spawn(runs::watch(daemon.clone())),
        tokio::spawn(tell_warnings(daemon.clone())),
    ]
}

/// The address that callers on this machine use: one that stands for all of them cannot be called.
fn reachable(bound: SocketAddr) -> SocketAddr {
    let ip = match bound.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, bound.port())
}

/// Reads the machine's certificates the way the engine will, which panics where this returns an error.
fn check_certificates() -> Result<(), ServeError> {
    let mut store = RootCertStore::empty();
    let read = load_platform_certs_incl_env_into_store(&mut store);
    read.map_err(|error| ServeError::Certificates { reason: error.to_string() })
}

async fn watch_for_changes(daemon: Arc<Daemon>) {
    let mut interval = tokio::time::interval(WATCH_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut was_failing = false;
    loop {
        interval.tick().await;
        let daemon = daemon.clone();
        let looked = tokio::task::spawn_blocking(move || daemon.look_for_changes()).await;
        match looked {
            Ok(Err(error)) if !was_failing => {
                tracing::error!(%error, "a change cannot be read; the old state stays in force");
                was_failing = true;
            }
            Ok(Err(_)) | Err(_) => {}
            Ok(Ok(())) => was_failing = false,
        }
    }
}

/// Apart from the watcher, whose look at files may take its time.
async fn tell_warnings(daemon: Arc<Daemon>) {
    let mut interval = tokio::time::interval(WATCH_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        daemon.tell_warnings();
    }
}

/// Takes the lock, or finds a daemon that keeps it. A command that only looks whether there is one holds it for an
/// instant.
fn locks(file: &File) -> bool {
    let deadline = Instant::now() + LOOK;
    while file.try_lock().is_err() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

/// Takes the lock of the home, which lasts as long as the file is open: however a daemon ends, it is free then.
fn claim_home(home: &Home) -> Result<File, ServeError> {
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(home.lock())
        .map_err(lock_failed)?;
    if !locks(&file) {
        let mut pid = String::new();
        // What is in there only makes the message better.
        let _ = file.read_to_string(&mut pid);
        return Err(ServeError::AlreadyRunning { home: home.dir().to_owned(), pid: pid.trim().to_owned() });
    }
    write_pid(&file)?;
    Ok(file)
}

pub(super) fn lock_failed(source: io::Error) -> ServeError {
    ServeError::Io { doing: "open the lock file", source }
}
