//! Figures of what the gateway does, for Prometheus. Requests count here when they are settled; everything else is asked
//! for when somebody looks (`collect`), and shown on a listener of its own (`serve`).
//!
//! Tokens and durations have the names of OpenTelemetry's conventions for generative AI
//! (<https://github.com/open-telemetry/semantic-conventions-genai>), where those have one; the rest begins with
//! `tokfence_`. No label holds what a caller can choose: models are told by name once a price or a provider knows them.

mod buckets;
mod collect;
mod names;
mod serve;
mod visitors;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use policy::{Basis, DenialCode, Map, NanoUsd, ProviderId};
use storage::{Outcome, RequestRow};

use buckets::{Buckets, MICROSECONDS, SECONDS};
use names::Operation;
pub(crate) use serve::serve;

/// Models of a provider that are told by name; more are one.
const MODELS_MAX: usize = 100;
/// The model of which nobody knows whether there is one.
const OTHER_MODEL: &str = "other";

/// What is counted while the daemon runs.
#[derive(Debug)]
pub(crate) struct Metrics {
    requests: RwLock<Map<ProviderId, Models>>,
    /// By the place of its code in [`DenialCode::ALL`].
    refusals: [AtomicU64; DenialCode::ALL.len()],
    overhead: Buckets<{ MICROSECONDS.len() }>,
    connections: Connections,
}

/// The models of a provider, by name.
type Models = HashMap<Box<str>, Arc<OfModel>>;

/// Connections to providers that requests went over.
#[derive(Debug, Default)]
struct Connections {
    opened: AtomicU64,
    reused: AtomicU64,
}

/// What is counted for a model, apart for each kind of operation.
#[derive(Debug, Default)]
struct OfModel([OfOperation; Operation::ALL.len()]);

#[derive(Debug, Default)]
struct OfOperation {
    /// By the place of the outcome in [`Outcome::ALL`].
    requests: [AtomicU64; Outcome::ALL.len()],
    input: AtomicU64,
    cache_read: AtomicU64,
    cache_write: AtomicU64,
    output: AtomicU64,
    reasoning: AtomicU64,
    cost_nanos: AtomicU64,
    unpriced: AtomicU64,
    estimated: AtomicU64,
    duration: Buckets<{ SECONDS.len() }>,
    first_byte: Buckets<{ SECONDS.len() }>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            requests: RwLock::default(),
            refusals: std::array::from_fn(|_| AtomicU64::new(0)),
            overhead: Buckets::default(),
            connections: Connections::default(),
        }
    }
}

impl Metrics {
    /// Hot: a request was settled.
    pub(crate) fn settled(&self, row: &RequestRow) {
        let Some(provider) = &row.provider else { return };
        let is_answered = row.outcome == Outcome::Completed && row.status.is_some_and(|status| status < 400);
        let is_priced = row.basis != Basis::None && row.cost.is_some();
        let model =
            row.model.as_ref().map(storage::LogText::as_str).filter(|_| row.outcome != Outcome::Refused);
        let of_model = self.of_model(provider, model.unwrap_or_default(), is_priced || is_answered);
        of_model.0[Operation::of(row).index()].add(row);
    }

    /// A request was refused.
    pub(crate) fn refused(&self, code: DenialCode) {
        add(&self.refusals[place(&DenialCode::ALL, &code)], 1);
    }

    /// A request took so long of our own, waiting for nobody, until it could be sent.
    pub(crate) fn prepared(&self, took_us: u64) {
        self.overhead.add(took_us);
    }

    /// A request goes over a connection to its provider.
    pub(crate) fn connected(&self, is_reused: bool) {
        add(if is_reused { &self.connections.reused } else { &self.connections.opened }, 1);
    }

    fn of_model(&self, provider: &ProviderId, model: &str, may_be_named: bool) -> Arc<OfModel> {
        let known = self.requests.read().unwrap_or_else(PoisonError::into_inner);
        let of_provider = known.get(provider);
        let find = |name: &str| of_provider.and_then(|models| models.get(name)).cloned();
        let has_room = of_provider.is_none_or(|models| models.len() < MODELS_MAX);
        let name = if model.is_empty() || may_be_named && has_room { model } else { OTHER_MODEL };
        if let Some(found) = find(model).or_else(|| find(name)) {
            return found;
        }
        drop(known);
        let mut known = self.requests.write().unwrap_or_else(PoisonError::into_inner);
        known.entry(provider.clone()).or_default().entry(name.into()).or_default().clone()
    }
}

impl OfOperation {
    fn add(&self, row: &RequestRow) {
        add(&self.requests[place(&Outcome::ALL, &row.outcome)], 1);
        if row.outcome == Outcome::Refused {
            return;
        }
        let usage = &row.usage;
        add(&self.input, usage.input_total());
        add(&self.cache_read, usage.cache_read);
        add(&self.cache_write, usage.cache_write());
        add(&self.output, usage.output);
        add(&self.reasoning, usage.reasoning);
        add(&self.cost_nanos, row.cost.map_or(0, |cost| cost.max(NanoUsd::ZERO).nanos().cast_unsigned()));
        add(&self.unpriced, row.cost.is_none().into());
        add(&self.estimated, (row.basis == Basis::Estimated).into());
        self.duration.add(row.latency_us);
        row.first_byte_us.into_iter().for_each(|took_us| self.first_byte.add(took_us));
    }
}

/// Counts wrap; who looks takes that for a restart.
fn add(count: &AtomicU64, number: u64) {
    count.fetch_add(number, Ordering::Relaxed);
}

fn place<T: PartialEq>(all: &[T], one: &T) -> usize {
    all.iter().position(|other| other == one).unwrap_or_default()
}
