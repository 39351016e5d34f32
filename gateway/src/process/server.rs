//! From start to stop: one instance, everything checked and bound before anything is served, and at the end
//! no request cut before its grace period is over and no row lost.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pingora::apps::HttpServerApp;
use pingora::proxy::{HttpProxy, http_proxy};
use pingora::server::configuration::ServerConf;
use pingora::tls::{RootCertStore, load_platform_certs_incl_env_into_store};
use storage::{Actor, Store, Writer, WriterConfig};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinHandle;
use vault::Vault;
use zeroize::Zeroizing;

use crate::caller::listen::{Acceptor, ListenError, Listener};
use crate::config::{Config, ConfigError, Limits};
use crate::metrics;
use crate::process::bound::Bound;
use crate::process::control::{Command, Reply};
use crate::process::daemon::{Daemon, DaemonError, Place, load_snapshot};
use crate::process::home::{Home, HomeError, make_private_dir};
use crate::process::open_files;
use crate::process::runs;
use crate::request::proxy::Gateway;
use crate::rules_watch::RulesWatch;
use crate::state::Shared;

/// How often changes by other processes are looked for.
const WATCH_INTERVAL: Duration = Duration::from_millis(100);
/// Connections kept open to providers, for each worker thread.
const POOL_SIZE: usize = 128;
/// A command on the control socket; a passphrase is the longest thing in one.
const COMMAND_BYTES_MAX: u64 = 64 * 1024;

/// How long the end waits for what the owner is still being told.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Longer than any look at the lock of the home.
const LOOK: Duration = Duration::from_millis(100);
/// Who connects to the control socket has something to say.
const COMMAND_PATIENCE: Duration = Duration::from_secs(10);

/// What to serve.
#[derive(Debug)]
pub struct ServeOptions {
    /// Where everything is kept.
    pub home: Home,
    /// The configuration file.
    pub config_path: PathBuf,
    /// The vault, if it could be opened already; otherwise the daemon starts locked.
    pub vault: Option<Vault>,
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
            Self::Io { .. } => None,
        }
    }
}

/// Serves until the process is told to stop, by a signal or over the control socket. `on_serving` is called
/// once, when requests are answered.
///
/// # Errors
/// [`ServeError`] when it cannot start; nothing is left behind then.
pub fn serve(options: ServeOptions, on_serving: impl FnOnce(&Serving)) -> Result<(), ServeError> {
    // Everything this process makes is for its user alone.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    options.home.prepare()?;
    make_private_dir(&options.home.control_dir())?;
    let _instance = claim_home(&options.home)?;
    let config = Config::load(&options.config_path, options.home.dir())?;
    let store = Store::open(&config.logging.db_path)?.acting_as(Actor::new("daemon"));
    let retention = config.logging.retention_days.map(|days| Duration::from_secs(u64::from(days) * 86_400));
    let writer_config = WriterConfig { retention, ..WriterConfig::default() };
    let (ledger, writer) = Writer::start(&config.logging.db_path, writer_config)?;

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config.daemon.threads)
        .thread_name("gateway")
        .enable_all()
        .build()
        .map_err(|source| ServeError::Io { doing: "start the worker threads", source })?;
    let served = runtime.block_on(run(options, config, store, ledger, on_serving));
    // What is still running is dropped here and settles itself; after that the writer has every row.
    runtime.shutdown_timeout(Duration::from_secs(2));
    let written = writer.shutdown();
    served?;
    Ok(written?)
}

async fn run(
    options: ServeOptions,
    config: Config,
    store: Store,
    ledger: storage::Ledger,
    on_serving: impl FnOnce(&Serving),
) -> Result<(), ServeError> {
    check_certificates()?;
    let mut signals = Signals::listen()?;
    let bound = Bound::new(&config, &options.home)?;
    let (daemon_config, limits) = (config.daemon.clone(), config.limits.clone());
    let too_few_files = open_files::allow(limits.connections);
    let notes = [config.notes.clone(), bound.notes, Vec::from_iter(too_few_files)].concat();
    let (rules_watch, rules) = RulesWatch::start(store)?;
    let snapshot = load_snapshot(config, &options.home, rules)?;
    let shared = Arc::new(Shared::new(snapshot, rules_watch, ledger, bound.address.port()));
    let address = reachable(bound.address).to_string();
    let place = Place {
        home: options.home,
        config_path: options.config_path,
        address: address.clone(),
        socket: daemon_config.socket_path.clone(),
        metrics: bound.metrics.as_ref().map(|(_, address)| *address),
    };
    let daemon = Arc::new(Daemon::new(shared.clone(), place, options.vault));

    let stop = Arc::new(Notify::new());
    let control = tokio::spawn(serve_control(bound.control, daemon.clone(), stop.clone()));
    let watcher = tokio::spawn(watch_for_changes(daemon.clone()));
    // Before anything is served: what died while no daemon ran has no capability any more.
    runs::look(&daemon, false).await;
    let runs = tokio::spawn(runs::watch(daemon.clone()));
    let notifier = tokio::spawn(tell_warnings(daemon.clone()));
    let metrics = bound
        .metrics
        .map(|(listener, address)| tokio::spawn(metrics::serve(listener, address.port(), shared.clone())));
    let service = Service::start(shared.clone(), bound.data, daemon_config.threads, &limits);
    let socket = daemon_config.socket_path;
    let (state, is_locked) = (shared.health(), shared.is_locked());
    on_serving(&Serving { address, socket, state, is_locked, notes });
    signals.wait_for_stop(&daemon, &stop).await;

    tracing::info!("stopping");
    tokio::select! {
        () = service.stop(daemon_config.shutdown_grace) => {}
        // Who asks twice does not want to wait.
        () = signals.wait_for_stop(&daemon, &stop) => {}
    }
    watcher.abort();
    notifier.abort();
    metrics.inspect(|metrics| metrics.abort());
    runs.abort();
    control.abort();
    daemon.tell_warnings();
    shared.notifier.finish(LAST_WORDS);
    drop(bound.names);
    Ok(())
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

/// The data listeners at work.
struct Service {
    shared: Arc<Shared>,
    proxy: Arc<HttpProxy<Gateway>>,
    stop_accepting: watch::Sender<bool>,
    accepting: [JoinHandle<()>; 2],
}

impl Service {
    fn start(shared: Arc<Shared>, listeners: [Listener; 2], threads: usize, limits: &Limits) -> Self {
        let conf = Arc::new(ServerConf {
            threads,
            upstream_keepalive_pool_size: POOL_SIZE,
            // One more attempt where it is safe: after a connection that was never made, or for a method that
            // is idempotent. The engine does not send a POST again, and nothing here makes it.
            max_retries: 2,
            ..ServerConf::default()
        });
        let proxy = Arc::new(http_proxy(&conf, Gateway { shared: shared.clone() }));
        let (stop_accepting, shutdown) = watch::channel(false);
        let acceptor = Arc::new(Acceptor {
            proxy: proxy.clone(),
            shared: shared.clone(),
            shutdown,
            connections: Arc::new(Semaphore::new(limits.connections)),
            header_bytes_max: limits.header_bytes,
        });
        let accepting = listeners.map(|listener| tokio::spawn(acceptor.clone().run(listener)));
        Self { shared, proxy, stop_accepting, accepting }
    }

    /// Accepts nothing more, lets running requests end, and returns when they have or `grace` is over.
    async fn stop(self, grace: Duration) {
        self.shared.is_draining.store(true, Ordering::Relaxed);
        // The receivers live as long as the accept loops, so there is somebody to hear it.
        let _ = self.stop_accepting.send(true);
        for accepting in self.accepting {
            // An accept loop that panicked accepts no more, which is what is wanted here.
            let _ = accepting.await;
        }
        self.proxy.http_cleanup().await;
        let deadline = Instant::now() + grace;
        while self.shared.in_flight.load(Ordering::Relaxed) > 0 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Reads the machine's certificates the way the engine will, which panics where this returns an error.
fn check_certificates() -> Result<(), ServeError> {
    let mut store = RootCertStore::empty();
    let read = load_platform_certs_incl_env_into_store(&mut store);
    read.map_err(|error| ServeError::Certificates { reason: error.to_string() })
}

/// The signals that the daemon obeys from when this is made; without it they would end the process at once.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn listen() -> Result<Self, ServeError> {
        let on = |kind| signal(kind).map_err(|source| ServeError::Io { doing: "listen for signals", source });
        Ok(Self {
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
            hang_up: on(SignalKind::hangup())?,
        })
    }

    /// SIGTERM, SIGINT or a command ends the daemon; SIGHUP makes it read everything again.
    async fn wait_for_stop(&mut self, daemon: &Arc<Daemon>, stop: &Notify) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                () = stop.notified() => return,
                _ = self.hang_up.recv() => {}
            }
            let daemon = daemon.clone();
            match tokio::task::spawn_blocking(move || daemon.reload()).await {
                Ok(Ok(notes)) => notes.iter().for_each(|note| tracing::warn!("{note}")),
                Ok(Err(error)) => tracing::error!(%error, "what cannot be read stays as it was"),
                Err(_) => {}
            }
        }
    }
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

async fn serve_control(listener: UnixListener, daemon: Arc<Daemon>, stop: Arc<Notify>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(answer_control(stream, daemon.clone(), stop.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "a control connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn answer_control(mut stream: UnixStream, daemon: Arc<Daemon>, stop: Arc<Notify>) {
    let own_uid = rustix::process::geteuid().as_raw();
    if !stream.peer_cred().is_ok_and(|peer| peer.uid() == own_uid) {
        return;
    }
    let mut line = Zeroizing::new(String::new());
    let (reader, mut writer) = stream.split();
    let mut reader = BufReader::new(reader.take(COMMAND_BYTES_MAX));
    let read = tokio::time::timeout(COMMAND_PATIENCE, reader.read_line(&mut line)).await;
    if !matches!(read, Ok(Ok(count)) if count > 0) {
        return;
    }
    let command = serde_json::from_str::<Command>(&line);
    let is_stop = matches!(command, Ok(Command::Stop));
    let reply = match command {
        Ok(command) => tokio::task::spawn_blocking(move || execute(&daemon, command)).await,
        Err(_) => Ok(Reply::Failed {
            code: "not_understood".to_owned(),
            message: "the command is not understood; it may be of another version".to_owned(),
            hint: Some("tokfence restart".to_owned()),
        }),
    };
    if let Ok(Ok(mut text)) = reply.map(|reply| serde_json::to_vec(&reply)) {
        text.push(b'\n');
        // A caller that is gone does not need its answer.
        let _ = writer.write_all(&text).await;
    }
    if is_stop {
        stop.notify_one();
    }
}

fn execute(daemon: &Daemon, command: Command) -> Reply {
    let done = |result: Result<Vec<String>, DaemonError>| match result {
        Ok(notes) => Reply::Done { notes },
        Err(error) => error.into(),
    };
    match command {
        Command::Status => Reply::Status(Box::new(daemon.status())),
        Command::Reload => done(daemon.reload()),
        Command::Flush => done(daemon.flush().map(|()| Vec::new())),
        Command::Lock { lets_finish } => {
            daemon.lock(lets_finish);
            done(Ok(Vec::new()))
        }
        Command::Unlock { with } => done(daemon.unlock(with).map(|()| Vec::new())),
        Command::Rates => Reply::Rates(daemon.rates()),
        Command::Kill { reason } => done(daemon.kill(&reason).map(|()| Vec::new())),
        // What ends the daemon is done when the answer has been written.
        Command::Stop => done(Ok(Vec::new())),
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
    let failed = |source| ServeError::Io { doing: "open the lock file", source };
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(home.lock())
        .map_err(failed)?;
    if !locks(&file) {
        let mut pid = String::new();
        // What is in there only makes the message better.
        let _ = file.read_to_string(&mut pid);
        return Err(ServeError::AlreadyRunning { home: home.dir().to_owned(), pid: pid.trim().to_owned() });
    }
    file.set_len(0).and_then(|()| file.rewind()).map_err(failed)?;
    writeln!(file, "{}", std::process::id()).map_err(failed)?;
    Ok(file)
}
