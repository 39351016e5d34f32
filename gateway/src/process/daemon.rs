//! What a running daemon can be told: read everything again, lock, unlock, flush, say how it is.
//!
//! Cold. A change is prepared whole and then put in place in one step, or the old state stays and the caller
//! is told why.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use policy::{CanaryKind, Map, ProviderId, Revocation, Risk, Rules, Subject, TimestampUs};
use vault::{Entry, EntryKind, RecoveryCode, Secret, Unlock, Vault};
use zeroize::Zeroizing;

use crate::config::{Config, ConfigError, Prices, PricesError, Watch};
use crate::dashboard::Dashboard;
use crate::fence::Watched;
use crate::overview::{self, InFlight, LogView, Overview};
use crate::process::control::{Command, DaemonStatus, RateStatus, Reply, Revoked, RiskStatus, UnlockWith};
use crate::process::handover::Predecessor;
use crate::process::home::Home;
use crate::process::notify::Notice;
use crate::process::runs::{self, DEAD_RUN};
use crate::provider::credentials::{KeyRing, vault_locked};
use crate::provider::upstream::{Upstream, UpstreamError};
use crate::state::{Shared, Snapshot, now_us};

/// How long a flush may take before it is called failed.
const FLUSH_PATIENCE: Duration = Duration::from_secs(10);

/// Why the daemon's state cannot be made or changed.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The prices.
    #[error(transparent)]
    Prices(#[from] PricesError),
    /// The database.
    #[error(transparent)]
    Storage(#[from] storage::Error),
    /// The vault.
    #[error(transparent)]
    Vault(#[from] vault::Error),
    /// The settings of a provider.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
}

impl DaemonError {
    /// A stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Config(error) => error.code(),
            Self::Prices(error) => error.code(),
            Self::Storage(error) => error.code(),
            Self::Vault(error) => error.code(),
            Self::Upstream(_) => "invalid_config",
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Prices(_) => Some("tokfence pricing status".to_owned()),
            Self::Config(_) | Self::Upstream(_) => Some("tokfence config check".to_owned()),
            Self::Storage(error) => error.hint(),
            Self::Vault(error) => error.hint(),
        }
    }
}

/// The parts of a running daemon that its control socket acts on.
pub(crate) struct Daemon {
    shared: Arc<Shared>,
    place: Place,
    started_at: TimestampUs,
    log_view: LogView,
    /// The owner's page.
    pub(crate) dashboard: Dashboard,
    reloading: Mutex<()>,
    vault: Mutex<Option<Vault>>,
    /// Whom it took over from, for as long as that one answers what it had accepted.
    predecessor: Mutex<Option<Predecessor>>,
    /// Whether another process has taken this one's place.
    is_succeeded: AtomicBool,
}

/// Where a daemon has its files and serves.
pub(crate) struct Place {
    pub(crate) home: Home,
    pub(crate) config_path: PathBuf,
    pub(crate) address: String,
    pub(crate) socket: PathBuf,
    pub(crate) metrics: Option<SocketAddr>,
}

/// Builds a snapshot of a configuration, the prices of the home, and the rules in the database.
pub(crate) fn load_snapshot(config: Config, home: &Home, rules: Rules) -> Result<Snapshot, DaemonError> {
    let upstreams = make_upstreams(&config, &Map::default())?;
    Ok(Snapshot {
        config: Arc::new(config),
        rules: Arc::new(rules),
        upstreams: Arc::new(upstreams),
        prices: Prices::load(home)?.table,
    })
}

type Upstreams = Map<ProviderId, Arc<Upstream>>;

/// The upstreams of a configuration. One whose provider did not change is kept, with the addresses it knows.
fn make_upstreams(config: &Config, old: &Upstreams) -> Result<Upstreams, UpstreamError> {
    let mut upstreams = Map::default();
    for provider in config.providers.values() {
        let kept = old.get(&provider.id).filter(|upstream| upstream.provider == *provider);
        let upstream = match kept {
            Some(kept) => kept.clone(),
            None => Arc::new(Upstream::new(provider.clone())?),
        };
        upstreams.insert(provider.id.clone(), upstream);
    }
    Ok(upstreams)
}

impl Daemon {
    pub(crate) fn new(shared: Arc<Shared>, place: Place, vault: Option<Vault>) -> Self {
        let daemon = Self {
            log_view: LogView::new(shared.database()),
            dashboard: Dashboard::default(),
            shared,
            place,
            started_at: now_us(),
            reloading: Mutex::new(()),
            vault: Mutex::new(vault),
            predecessor: Mutex::new(None),
            is_succeeded: AtomicBool::new(false),
        };
        daemon.publish_keys(&lock(&daemon.vault));
        daemon
    }

    /// What its requests share.
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Where figures and the owner's page are, if anywhere.
    pub(crate) fn metrics_address(&self) -> Option<SocketAddr> {
        self.place.metrics
    }

    /// Reads configuration, policy and vault again. From when this returns, requests see the new state. A part
    /// that cannot be read stays as it was and is reported; it does not hold up the others, so a slip in the
    /// configuration never delays a revocation.
    pub(crate) fn reload(&self) -> Result<Vec<String>, DaemonError> {
        // One at a time: what was read first must not be put in place last.
        let _turn = lock(&self.reloading);
        let rules = self.shared.reload_rules();
        let config = self.reload_config();
        let prices = self.reload_prices();
        let keys = self.reload_keys();
        self.pass_on(&Command::Reload);
        rules?;
        keys?;
        prices?;
        config
    }

    /// Remembers whom this process took over from.
    pub(super) fn follow(&self, predecessor: Predecessor) {
        *lock(&self.predecessor) = Some(predecessor);
    }

    /// Lets the process before this one do the same, if it still runs. Answers what it said.
    pub(super) fn pass_on(&self, command: &Command) -> Option<(u32, Reply)> {
        let mut predecessor = lock(&self.predecessor);
        let before = predecessor.as_mut()?;
        let passed = before.pass_on(command).map(|reply| (before.pid, reply)).ok();
        if passed.is_none() {
            *predecessor = None;
        }
        passed
    }

    /// What the configuration says about looking at accounts, unless another process has taken this one's place.
    pub(super) fn account_settings(&self) -> Option<Watch> {
        let is_last = !self.is_succeeded.load(Ordering::Relaxed);
        is_last.then(|| self.shared.snapshot.load().config.watch.clone())
    }

    /// From here on the daemon is another process, and this one only ends what it began.
    pub(super) fn give_way(&self) {
        self.is_succeeded.store(true, Ordering::Relaxed);
    }

    /// Whether the keys are not there.
    pub(super) fn is_locked(&self) -> bool {
        self.shared.is_locked()
    }

    /// The key of the vault, unless it is locked, for a process that acts in this one's place.
    pub(super) fn data_key(&self) -> Option<Secret<[u8; 32]>> {
        lock(&self.vault).as_ref().map(Vault::data_key)
    }

    fn reload_prices(&self) -> Result<(), DaemonError> {
        let prices = Prices::load(&self.place.home)?.table;
        self.shared.change_snapshot(|old| Snapshot { prices, ..old });
        Ok(())
    }

    fn reload_config(&self) -> Result<Vec<String>, DaemonError> {
        let config = Config::load(&self.place.config_path, self.place.home.dir())?;
        let old = self.shared.snapshot.load_full();
        let upstreams = Arc::new(make_upstreams(&config, &old.upstreams)?);
        let mut notes = config.notes.clone();
        notes.extend(config.needs_restart(&old.config));
        self.shared.change_snapshot(|old| Snapshot { config: Arc::new(config), upstreams, ..old });
        Ok(notes)
    }

    /// Tells of budgets of which much is spent, and of what was seen that is grave.
    pub(crate) fn tell_warnings(&self) {
        let (warnings, risks) = (self.shared.ledger.take_warnings(), self.shared.risk.take_notices());
        let mut notices: Vec<Notice> = warnings.iter().map(Notice::budget).collect();
        for (warning, notice) in warnings.iter().zip(&notices) {
            tracing::warn!(budget = warning.budget, percent = warning.percent, "{}", notice.message());
        }
        // The log has those already.
        notices.extend(risks.iter().map(Notice::risk));
        if !notices.is_empty() {
            self.shared.notifier.tell(&notices, &self.shared.snapshot.load().config.notifications);
        }
    }

    fn reload_keys(&self) -> Result<(), DaemonError> {
        let mut vault = lock(&self.vault);
        if let Some(open) = vault.as_mut() {
            open.refresh()?;
        }
        self.publish_keys(&vault);
        Ok(())
    }

    /// Notices what changes without being told: capabilities that end, and what other processes did to policy rows
    /// and the vault.
    pub(crate) fn look_for_changes(&self) -> Result<(), DaemonError> {
        self.shared.live.recheck_ended(&self.shared.snapshot.load().rules, self.shared.ledger.now());
        self.shared.look_at_rules()?;
        self.shared.write_repeats(false)?;
        let mut vault = lock(&self.vault);
        if let Some(open) = vault.as_mut()
            && open.refresh()?
        {
            self.publish_keys(&vault);
        }
        Ok(())
    }

    /// Forgets the keys. Requests that are already with a provider are cut, unless they may finish.
    pub(crate) fn lock(&self, lets_finish: bool) {
        let mut vault = lock(&self.vault);
        *vault = None;
        self.publish_keys(&vault);
        if !lets_finish {
            self.shared.live.cut_all(&vault_locked());
        }
        self.pass_on(&Command::Lock { lets_finish });
    }

    /// Opens the vault.
    pub(crate) fn unlock(&self, with: UnlockWith) -> Result<(), DaemonError> {
        let path = self.place.home.vault();
        // Held from the start: one guess at a time.
        let mut vault = lock(&self.vault);
        let opened = match with {
            UnlockWith::Passphrase(text) => Vault::open(&path, &Unlock::Passphrase(&Secret::new(text)))?,
            UnlockWith::Recovery(text) => {
                Vault::open(&path, &Unlock::Recovery(&RecoveryCode::parse(&Secret::new(text))?))?
            }
            UnlockWith::Keyring => Vault::open(&path, &Unlock::Keyring)?,
        };
        *vault = Some(opened);
        self.publish_keys(&vault);
        Ok(())
    }

    fn publish_keys(&self, vault: &Option<Vault>) {
        let snapshot = self.shared.snapshot.load();
        let keys =
            vault.as_ref().map_or(KeyRing::Locked, |vault| KeyRing::from_vault(vault, &snapshot.config));
        self.shared.keys.store(Arc::new(keys));
        let secret = |entry: &Entry| {
            let name = entry.provider().to_owned();
            let watched = match entry.kind() {
                EntryKind::Inference | EntryKind::Admin => Watched::Key { provider: name },
                EntryKind::Canary => Watched::Canary { kind: CanaryKind::Vault, name },
            };
            (watched, Zeroizing::new(entry.secret().expose().as_bytes().to_vec()))
        };
        self.shared.watch_for(vault.iter().flat_map(Vault::entries).map(secret).collect());
    }

    /// Who is restricted at present, most first.
    fn risks(&self) -> Vec<RiskStatus> {
        let (rules, now) = (self.shared.snapshot.load().rules.clone(), self.shared.ledger.now());
        let status = |(subject, risk): (&Subject, &Risk)| RiskStatus {
            subject: subject.to_string(),
            state: risk.state.to_string(),
            since_us: risk.since,
            signal: risk.signal.to_string(),
            event: risk.event,
        };
        rules.restricted(now).into_iter().map(status).collect()
    }

    /// How much of each limit on rates is used.
    pub(crate) fn rates(&self) -> Vec<RateStatus> {
        let rules = self.shared.snapshot.load().rules.clone();
        let status = |subject: &Subject| {
            let used = self.shared.rates.used(subject);
            RateStatus {
                subject: subject.to_string(),
                requests_used: used.requests,
                tokens_used: used.tokens,
                in_flight: used.in_flight,
            }
        };
        rules.rate_limits.keys().map(status).collect()
    }

    /// Ends runs that died: their capabilities, and the canaries that only they could see.
    pub(crate) fn end_dead_runs(&self) -> Result<(), DaemonError> {
        runs::end_dead_runs(&self.place.home, |id| {
            let ended = self.shared.change_rules(|store| store.end_run(id, DEAD_RUN, now_us()));
            match ended {
                // It died before it had a capability.
                Ok(_) | Err(storage::Error::NoSuchCapability { .. }) => Ok(()),
                Err(error) => Err(error),
            }
        })?;
        Ok(())
    }

    /// Turns the kill switch on. In force when this returns.
    pub(crate) fn kill(&self, reason: &str) -> Result<(), DaemonError> {
        self.shared.change_rules(|store| store.kill(reason, now_us()))?;
        Ok(())
    }

    /// Waits until every row so far is in the database.
    pub(crate) fn flush(&self) -> Result<(), DaemonError> {
        self.shared.write_repeats(true)?;
        self.pass_on(&Command::Flush);
        Ok(self.shared.ledger.flush(FLUSH_PATIENCE)?)
    }

    /// How everything stands, for whoever looks on.
    pub(crate) fn overview(&self) -> Overview {
        Overview {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            address: self.place.address.clone(),
            started_at: self.started_at,
            ..overview::collect(&self.shared, &self.log_view, self.in_flight())
        }
    }

    /// The requests in flight, here and in the processes before.
    pub(crate) fn in_flight(&self) -> InFlight {
        let mut in_flight = InFlight::of(&self.shared);
        if let Some((_, Reply::Running(before))) = self.pass_on(&Command::Running) {
            // Those of the process before are the older ones.
            in_flight.requests.splice(0..0, before.requests);
            in_flight.count += before.count;
        }
        in_flight
    }

    pub(crate) fn status(&self) -> DaemonStatus {
        let keys = self.shared.keys.load();
        let mut providers: Vec<String> = match &**keys {
            KeyRing::Locked => Vec::new(),
            KeyRing::Unlocked(keys) => keys.keys().map(ToString::to_string).collect(),
        };
        providers.sort();
        let health = self.shared.ledger.health();
        let rules = self.shared.snapshot.load().rules.clone();
        let mut revoked_providers: Vec<Revoked> =
            rules.revoked_providers.iter().map(|(id, revocation)| revoked(id.as_str(), revocation)).collect();
        revoked_providers.sort_by(|a, b| a.name.cmp(&b.name));
        let before = match self.pass_on(&Command::Status) {
            Some((pid, Reply::Status(status))) => Some((pid, status.in_flight)),
            Some(_) | None => None,
        };
        DaemonStatus {
            predecessor: before.map(|(pid, _)| pid),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            address: self.place.address.clone(),
            socket: self.place.socket.display().to_string(),
            metrics: self.place.metrics.map(|address| format!("http://{address}/metrics")),
            state: self.shared.health().to_owned(),
            is_locked: self.shared.is_locked(),
            killed: rules.killed.as_ref().map(|revocation| revoked("", revocation)),
            revoked_providers,
            budget_warnings: health.budget_warnings,
            risks: self.risks(),
            risk_signals: self
                .shared
                .risk
                .counts()
                .map(|(signal, count)| (signal.to_string(), count))
                .collect(),
            started_at_us: self.started_at,
            in_flight: self.shared.in_flight.load(Ordering::Relaxed)
                + before.map_or(0, |(_, in_flight)| in_flight),
            providers,
            passthrough: self.shared.snapshot.load().config.passthrough_providers(),
            log: health.in_words(),
        }
    }
}

fn revoked(name: &str, revocation: &Revocation) -> Revoked {
    Revoked { name: name.to_owned(), at_us: revocation.at, reason: revocation.reason.clone() }
}

impl From<DaemonError> for Reply {
    fn from(error: DaemonError) -> Self {
        let (code, hint) = (error.code().to_owned(), error.hint());
        let mut message = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            message.push_str(&format!(": {error}"));
            cause = error.source();
        }
        Self::Failed { code, message, hint }
    }
}

/// Nothing under these locks is left half-changed by a panic, so a poisoned one is as good as before.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
