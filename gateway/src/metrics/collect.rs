//! Everything as it stands at one moment, in the form of the library's families.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use policy::{DenialCode, RiskState, Signal, Unit};
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use storage::{BudgetStatus, LogState, Outcome};

use super::buckets::{MICROSECONDS, SECONDS};
use super::names::{self, Operation};
use super::{Metrics, OfOperation};
use crate::state::Shared;

/// Nano-dollars of a dollar. Figures are approximate as all of Prometheus is; the database is exact.
const NANOS: f64 = 1e9;
const MICROS: f64 = 1e6;

/// Families, by their names.
#[derive(Default)]
struct Families(BTreeMap<&'static str, MetricFamily>);

/// All families, in the order of their names.
pub(super) fn collect(shared: &Shared) -> Vec<MetricFamily> {
    let mut families = Families::default();
    of_requests(&mut families, &shared.metrics);
    of_refusals(&mut families, &shared.metrics);
    of_process(&mut families, shared);
    of_writer(&mut families, shared);
    of_risk(&mut families, shared);
    // A database that cannot be read is told of by the writer's state.
    let zone = &shared.snapshot.load().config.budget.timezone;
    let budgets = shared.with_store(|store| store.budgets(shared.ledger.now(), zone));
    budgets.unwrap_or_default().iter().for_each(|status| of_budget(&mut families, status));
    families.0.into_values().collect()
}

fn of_requests(families: &mut Families, metrics: &Metrics) {
    let known = metrics.requests.read().unwrap_or_else(PoisonError::into_inner);
    for (provider, models) in known.iter() {
        for (model, of_model) in models {
            for operation in Operation::ALL {
                let counts = &of_model.0[operation.index()];
                of_operation(families, (provider.as_str(), model, operation), counts);
            }
        }
    }
    let connections = &metrics.connections;
    for (is_reused, count) in [("false", &connections.opened), ("true", &connections.reused)] {
        let name = "tokfence_upstream_requests_total";
        let help = "Requests sent to providers, by whether a connection was there";
        families.count(name, help, &[("reused", is_reused)], read(count));
    }
}

fn of_operation(
    families: &mut Families,
    (provider, model, operation): (&str, &str, Operation),
    of: &OfOperation,
) {
    for (outcome, count) in Outcome::ALL.iter().zip(&of.requests).filter(|(_, count)| read(count) > 0.0) {
        let labels = [("provider", provider), ("model", model), ("outcome", outcome.as_str())];
        families.count("tokfence_requests_total", "Requests that ended, by how", &labels, read(count));
    }
    let labels = [("provider", provider), ("model", model)];
    families.some(
        "tokfence_cost_usd_total",
        "Cost of requests whose price is known",
        &labels,
        read(&of.cost_nanos) / NANOS,
    );
    families.some(
        "tokfence_unpriced_requests_total",
        "Requests whose price is unknown",
        &labels,
        read(&of.unpriced),
    );
    let help = "Requests whose usage was estimated, because none was reported";
    families.some("tokfence_estimated_requests_total", help, &labels, read(&of.estimated));
    let count = of.duration.read().1;
    if operation == Operation::None || count == 0 {
        return;
    }
    let labels = [
        ("gen_ai_operation_name", operation.as_str()),
        ("gen_ai_provider_name", names::provider(provider)),
        ("gen_ai_request_model", model),
        ("gen_ai_token_modality", "unknown"),
    ];
    for (name, help, tokens) in [
        ("gen_ai_client_inference_usage_input_tokens_total", "Input tokens, cached ones included", &of.input),
        (
            "gen_ai_client_inference_usage_output_tokens_total",
            "Output tokens, reasoning included",
            &of.output,
        ),
        (
            "gen_ai_client_inference_usage_cache_read_input_tokens_total",
            "Input tokens read from a cache",
            &of.cache_read,
        ),
        (
            "gen_ai_client_inference_usage_cache_write_input_tokens_total",
            "Input tokens written to a cache",
            &of.cache_write,
        ),
        ("gen_ai_client_inference_usage_reasoning_output_tokens_total", "Reasoning tokens", &of.reasoning),
    ] {
        families.count(name, help, &labels, read(tokens));
    }
    let labels = &labels[..3];
    let help = "From a request's head to the end of its answer";
    families.times("gen_ai_client_operation_duration_seconds", help, labels, &SECONDS, of.duration.read());
    let help = "From a request's head to the first byte of its answer's body";
    let name = "gen_ai_client_operation_time_to_first_chunk_seconds";
    families.times(name, help, labels, &SECONDS, of.first_byte.read());
}

fn of_refusals(families: &mut Families, metrics: &Metrics) {
    for (code, count) in DenialCode::ALL.iter().zip(&metrics.refusals) {
        let help = "Requests that were refused, by code";
        families.some("tokfence_refusals_total", help, &[("code", code.as_str())], read(count));
    }
    let help = "What a request takes of our own until it can be sent, waiting for its body left out";
    families.times("tokfence_overhead_seconds", help, &[], &MICROSECONDS, metrics.overhead.read());
}

#[expect(clippy::cast_precision_loss, reason = "a figure is a float")]
fn of_process(families: &mut Families, shared: &Shared) {
    let in_flight = shared.in_flight.load(Ordering::Relaxed) as f64;
    families.gauge(
        "tokfence_requests_in_flight",
        "Requests between their head and their end",
        &[],
        in_flight,
    );
    let buffered = shared.buffered_bytes.load(Ordering::Relaxed) as f64;
    families.gauge("tokfence_buffered_bytes", "Bodies of requests in memory", &[], buffered);
    let version = env!("CARGO_PKG_VERSION");
    families.gauge("tokfence_build_info", "Always 1", &[("version", version)], 1.0);
    for state in ["ok", "locked", "killed"] {
        let is_it = f64::from(u8::from(shared.health() == state));
        families.gauge(
            "tokfence_state",
            "1 for the state that the gateway is in",
            &[("state", state)],
            is_it,
        );
    }
}

#[expect(clippy::cast_precision_loss, reason = "a figure is a float")]
fn of_writer(families: &mut Families, shared: &Shared) {
    let health = shared.ledger.health();
    let is_writing = f64::from(u8::from(health.state == LogState::Writing));
    families.gauge("tokfence_log_writing", "1 while rows reach the database", &[], is_writing);
    families.gauge("tokfence_log_queue_rows", "Rows that wait to be written", &[], health.queued as f64);
    families.gauge(
        "tokfence_log_slots_free",
        "Requests for whose row there is room",
        &[],
        health.slots_free as f64,
    );
    for (name, help, count) in [
        ("tokfence_log_rows_total", "Rows written", health.rows_written),
        ("tokfence_log_batches_total", "Transactions in which rows were written", health.batches),
        (
            "tokfence_log_refusals_dropped_total",
            "Refusals without a row, because they came too fast",
            health.refusals_dropped,
        ),
        (
            "tokfence_log_rows_rejected_total",
            "Rows that the schema refused: a fault of the program",
            health.rows_rejected,
        ),
        (
            "tokfence_reservations_leaked_total",
            "Reservations that nobody settled: a fault of the program",
            health.leaked,
        ),
        (
            "tokfence_budget_warnings_total",
            "Budgets of which much was found to be spent",
            health.budget_warnings,
        ),
    ] {
        families.count(name, help, &[], count as f64);
    }
}

#[expect(clippy::cast_precision_loss, reason = "a figure is a float")]
fn of_risk(families: &mut Families, shared: &Shared) {
    let (rules, now) = (shared.snapshot.load().rules.clone(), shared.ledger.now());
    for state in RiskState::ALL.into_iter().skip(1) {
        let count = rules.risks.values().filter(|risk| risk.state_at(now) == state).count();
        let help = "Agents and capabilities that are restricted because of what was seen";
        families.gauge("tokfence_risk_subjects", help, &[("state", state.as_str())], count as f64);
    }
    let seen: BTreeMap<Signal, u64> = shared.risk.counts().collect();
    for signal in Signal::ALL {
        let count = seen.get(&signal).copied().unwrap_or(0) as f64;
        families.count("tokfence_risk_signals_total", "Signals seen", &[("signal", signal.as_str())], count);
    }
}

#[expect(clippy::cast_precision_loss, reason = "a figure is a float")]
fn of_budget(families: &mut Families, status: &BudgetStatus) {
    let name = status.budget.name();
    let labels = [("budget", name.as_str())];
    let BudgetStatus { spent, reserved, .. } = status;
    let (limit, unit) = (status.budget.limit.number, status.budget.limit.unit);
    let (names, scale) = match unit {
        Unit::NanoUsd => {
            (["tokfence_budget_limit_usd", "tokfence_budget_used_usd", "tokfence_budget_reserved_usd"], NANOS)
        }
        Unit::Tokens => (
            [
                "tokfence_budget_limit_tokens",
                "tokfence_budget_used_tokens",
                "tokfence_budget_reserved_tokens",
            ],
            1.0,
        ),
    };
    let help =
        ["What a budget allows in its period", "What is spent of it", "What requests in flight hold of it"];
    for ((name, help), value) in names.into_iter().zip(help).zip([limit, *spent, *reserved]) {
        families.gauge(name, help, &labels, value as f64 / scale);
    }
}

impl Families {
    fn count(&mut self, name: &'static str, help: &str, labels: &[(&str, &str)], value: f64) {
        let mut counter = Counter::default();
        counter.set_value(value);
        let metric = self.metric(name, help, MetricType::COUNTER, labels);
        metric.set_counter(counter);
    }

    /// A count that is left out while there is nothing to count.
    fn some(&mut self, name: &'static str, help: &str, labels: &[(&str, &str)], value: f64) {
        if value > 0.0 {
            self.count(name, help, labels, value);
        }
    }

    fn gauge(&mut self, name: &'static str, help: &str, labels: &[(&str, &str)], value: f64) {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        self.metric(name, help, MetricType::GAUGE, labels).set_gauge(gauge);
    }

    /// Durations, told in seconds.
    #[expect(clippy::cast_precision_loss, reason = "a figure is a float")]
    fn times(
        &mut self,
        name: &'static str,
        help: &str,
        labels: &[(&str, &str)],
        bounds: &[u64],
        (up_to, count, sum): (Vec<u64>, u64, u64),
    ) {
        let bucket = |(bound, up_to): (&u64, u64)| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound as f64 / MICROS);
            bucket.set_cumulative_count(up_to);
            bucket
        };
        let mut histogram = Histogram::default();
        histogram.set_bucket(bounds.iter().zip(up_to).map(bucket).collect());
        histogram.set_sample_count(count);
        histogram.set_sample_sum(sum as f64 / MICROS);
        self.metric(name, help, MetricType::HISTOGRAM, labels).set_histogram(histogram);
    }

    fn metric(
        &mut self,
        name: &'static str,
        help: &str,
        kind: MetricType,
        labels: &[(&str, &str)],
    ) -> &mut Metric {
        let family = self.0.entry(name).or_insert_with(|| {
            let mut family = MetricFamily::default();
            family.set_name(name.to_owned());
            family.set_help(help.to_owned());
            family.set_field_type(kind);
            family
        });
        let label = |(name, value): &(&str, &str)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        };
        let mut metrics = family.take_metric();
        metrics.push(Metric::from_label(labels.iter().map(label).collect()));
        family.set_metric(metrics);
        family.mut_metric().last_mut().expect("one was pushed on the line above")
    }
}

#[expect(clippy::cast_precision_loss, reason = "a figure is a float")]
fn read(count: &AtomicU64) -> f64 {
    count.load(Ordering::Relaxed) as f64
}
