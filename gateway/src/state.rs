//! What the gateway knows while it serves: one immutable snapshot of configuration and policy, one ring of
//! keys, both replaced whole. A request loads the snapshot once and uses it to its end.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use policy::{Map, PriceTable, ProviderId, RequestId, Rules, TimestampUs};
use storage::Ledger;
use zeroize::Zeroizing;

use crate::caller::live::Live;
use crate::config::Config;
use crate::fence::{Watch, Watched};
use crate::metrics::Metrics;
use crate::process::notify::Notifier;
use crate::provider::credentials::KeyRing;
use crate::provider::upstream::Upstream;
use crate::request::quote::AnswerLengths;
use crate::request::rates::Rates;
use crate::risk::RiskDesk;
use crate::rules_watch::RulesWatch;

/// Configuration and policy at one moment. The parts are shared between snapshots, so that one of them can be
/// replaced without copying the others.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) config: Arc<Config>,
    pub(crate) rules: Arc<Rules>,
    pub(crate) upstreams: Arc<Map<ProviderId, Arc<Upstream>>>,
    pub(crate) prices: Arc<PriceTable>,
}

impl Snapshot {
    /// The rules as the configuration completes them: everybody begins in the state that it says.
    fn with_floor(mut self) -> Self {
        let floor = self.config.risk.initial_state;
        if self.rules.risk_floor != floor {
            self.rules = Arc::new(Rules { risk_floor: floor, ..Rules::clone(&self.rules) });
        }
        self
    }
}

/// What all requests share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) snapshot: ArcSwap<Snapshot>,
    /// Held while a snapshot is replaced; requests only load it and never wait.
    snapshot_change: Mutex<()>,
    pub(crate) keys: ArcSwap<KeyRing>,
    /// What is looked for in traffic.
    pub(crate) watch: ArcSwap<Watch>,
    /// What of it the vault holds; the rest is in the rules.
    vault_secrets: Mutex<Vec<(Watched, Zeroizing<Vec<u8>>)>>,
    pub(crate) ledger: Ledger,
    /// Where the snapshot's rules come from.
    pub(crate) rules: RulesWatch,
    /// The connections that are open.
    pub(crate) live: Live,
    pub(crate) rates: Rates,
    /// How often capabilities were made from others.
    pub(crate) attenuations: Rates,
    /// The port that callers name in `Host`.
    pub(crate) port: u16,
    /// What was seen and is evidence against somebody.
    pub(crate) risk: RiskDesk,
    /// Where the owner is told of things.
    pub(crate) notifier: Notifier,
    /// What is counted of requests, for whoever looks.
    pub(crate) metrics: Metrics,
    /// How long answers were; what the next may need.
    pub(crate) lengths: AnswerLengths,
    /// Requests between their first phase and their settlement.
    pub(crate) in_flight: AtomicUsize,
    /// Bytes of request bodies held in memory.
    pub(crate) buffered_bytes: AtomicU64,
    /// Whether new requests are turned away because the daemon is about to end.
    pub(crate) is_draining: AtomicBool,
    ids: IdSource,
}

impl Shared {
    pub(crate) fn new(snapshot: Snapshot, rules: RulesWatch, ledger: Ledger, port: u16) -> Self {
        let shared = Self {
            snapshot: ArcSwap::from_pointee(snapshot.with_floor()),
            snapshot_change: Mutex::new(()),
            keys: ArcSwap::from_pointee(KeyRing::Locked),
            watch: ArcSwap::from_pointee(Watch::nothing()),
            vault_secrets: Mutex::default(),
            ledger,
            rules,
            live: Live::default(),
            rates: Rates::default(),
            attenuations: Rates::default(),
            port,
            risk: RiskDesk::default(),
            notifier: Notifier::default(),
            metrics: Metrics::default(),
            lengths: AnswerLengths::default(),
            in_flight: AtomicUsize::new(0),
            buffered_bytes: AtomicU64::new(0),
            is_draining: AtomicBool::new(false),
            ids: IdSource::default(),
        };
        shared.tell_ledger(&shared.snapshot.load());
        shared.renew_watch();
        shared
    }

    /// Looks for these secrets of the vault from now on.
    pub(crate) fn watch_for(&self, secrets: Vec<(Watched, Zeroizing<Vec<u8>>)>) {
        *self.vault_secrets() = secrets;
        self.renew_watch();
    }

    /// Looks for the canaries of the present rules, and for what the vault holds.
    fn renew_watch(&self) {
        // Held to the end, so that what was read first is not put in place last.
        let secrets = self.vault_secrets();
        let rules = self.snapshot.load().rules.clone();
        let of_vault = secrets.iter().map(|(watched, secret)| (watched.clone(), secret.as_slice()));
        let planted = rules.canaries.iter().flat_map(|canary| {
            let watched = Watched::Canary { kind: canary.kind, name: canary.name.to_string() };
            canary.marks().map(move |mark| (watched.clone(), mark.as_bytes()))
        });
        self.watch.store(Arc::new(Watch::new(of_vault.chain(planted))));
    }

    fn vault_secrets(&self) -> MutexGuard<'_, Vec<(Watched, Zeroizing<Vec<u8>>)>> {
        self.vault_secrets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a new snapshot in the place of the present one. Two changes at once both take effect.
    pub(crate) fn change_snapshot(&self, change: impl FnOnce(Snapshot) -> Snapshot) {
        let _guard = self.snapshot_change.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.snapshot.load_full();
        let new = change(Snapshot::clone(&old)).with_floor();
        // Before any request is decided by rules that name them, and in the order in which rules replace each other.
        if !(Arc::ptr_eq(&old.rules, &new.rules) && Arc::ptr_eq(&old.config, &new.config)) {
            self.tell_ledger(&new);
        }
        let has_other_canaries = old.rules.canaries != new.rules.canaries;
        self.snapshot.store(Arc::new(new));
        if has_other_canaries {
            self.renew_watch();
        }
    }

    /// Makes the ledger know the budgets of a snapshot.
    fn tell_ledger(&self, snapshot: &Snapshot) {
        let config = &snapshot.config;
        let percent = config.notifications.budget_warning_percent;
        self.ledger.set_budgets(&snapshot.rules, &config.budget.timezone, percent);
    }

    pub(crate) fn new_request_id(&self, now: TimestampUs) -> RequestId {
        self.ids.next(now)
    }

    pub(crate) fn is_locked(&self) -> bool {
        matches!(**self.keys.load(), KeyRing::Locked)
    }

    /// Whether requests are served: `ok`, `locked` without the keys, or `killed` by the owner.
    pub(crate) fn health(&self) -> &'static str {
        match (&self.snapshot.load().rules.killed, self.is_locked()) {
            (Some(_), _) => "killed",
            (None, true) => "locked",
            (None, false) => "ok",
        }
    }
}

/// Request ids that rise within the process even when the clock does not.
#[derive(Debug)]
struct IdSource {
    last_ms: AtomicI64,
    seed: [u8; 8],
    count: AtomicU64,
}

impl Default for IdSource {
    fn default() -> Self {
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).expect("without randomness of the system nothing here is safe");
        Self { last_ms: AtomicI64::new(0), seed, count: AtomicU64::new(0) }
    }
}

impl IdSource {
    /// 48 bits of time, then a count, then bits that differ between processes. An id names a request and
    /// guards nothing, so it need not be unpredictable.
    fn next(&self, now: TimestampUs) -> RequestId {
        let ms = now / 1000;
        let last = self.last_ms.fetch_max(ms, Ordering::Relaxed).max(ms);
        let count = u128::from(self.count.fetch_add(1, Ordering::Relaxed)) & 0xffff_ffff;
        let random = (count << 48) | (u128::from(u64::from_be_bytes(self.seed)) >> 16);
        RequestId::from_parts(u64::try_from(last).unwrap_or(0), random)
    }
}

/// The wall clock, in microseconds since the epoch.
pub(crate) fn now_us() -> TimestampUs {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_rise_even_when_the_clock_goes_back() {
        let ids = IdSource::default();
        let texts: Vec<String> =
            [5_000_000, 4_000_000, 6_000_000].map(|now| ids.next(now).to_string()).to_vec();
        assert!(texts.is_sorted(), "{texts:?}");
    }
}
