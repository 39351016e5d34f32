//! What a look found, as people and programs read it.

use gateway::overview::form::timestamp;
use policy::reconcile::{Amounts, Log, Series, SeriesKind, Span};
use policy::{NanoUsd, ProviderId, TimestampUs};
use serde_json::{Value, json};
use storage::RaisedFinding;

use super::Settings;
use super::pages::Fault;
use super::source::Told;
use crate::format::{local_time, plain, usd};

/// One look at every provider.
#[derive(Debug)]
pub(super) struct Report {
    checked_at: TimestampUs,
    thresholds: Value,
    pub(super) providers: Vec<ProviderReport>,
}

/// One look at one provider.
#[derive(Debug)]
pub(super) struct ProviderReport {
    pub(super) provider: ProviderId,
    /// Whose use is compared.
    pub(super) scope: &'static str,
    pub(super) compared: Vec<Compared>,
    /// Whether anything was compared, be it that nothing was used.
    pub(super) is_compared: bool,
    pub(super) faults: Vec<Fault>,
    pub(super) notes: Vec<String>,
    pub(super) findings: Vec<RaisedFinding>,
    /// Whether this look revoked it.
    pub(super) is_revoked: bool,
    /// How many parts of the account were looked at.
    parts: usize,
}

/// The sums of a series and of the log beside it.
#[derive(Debug)]
pub(super) struct Compared {
    kind: SeriesKind,
    span: Span,
    reported: Amounts,
    logged: Amounts,
}

impl Report {
    pub(super) fn new(checked_at: TimestampUs, settings: &Settings, providers: Vec<ProviderReport>) -> Self {
        let limits = &settings.limits;
        let thresholds = json!({
            "usd": limits.cost.to_string(),
            "tokens": limits.tokens,
            "requests": limits.requests,
            "idle_window_s": limits.idle_us / 1_000_000,
            "period_s": settings.period.as_secs(),
        });
        Self { checked_at, thresholds, providers }
    }

    /// How many findings there are, new ones and those that are still seen.
    pub(super) fn findings(&self) -> usize {
        self.providers.iter().map(|provider| provider.findings.len()).sum()
    }

    /// Whether anything could be looked at.
    pub(super) fn is_checked(&self) -> bool {
        self.providers.iter().any(|provider| provider.status() != "error" || provider.parts > 0)
    }

    pub(super) fn document(&self) -> Value {
        json!({
            "checked_at": timestamp(self.checked_at),
            "thresholds": self.thresholds,
            "findings": self.findings(),
            "providers": self.providers.iter().map(ProviderReport::document).collect::<Vec<_>>(),
        })
    }

    pub(super) fn text(&self) -> String {
        let lines = self.providers.iter().flat_map(|provider| provider.lines(self.checked_at));
        lines.collect::<Vec<_>>().join("\n")
    }
}

impl ProviderReport {
    pub(super) fn new(provider: ProviderId) -> Self {
        Self {
            provider,
            scope: "none",
            compared: Vec::new(),
            is_compared: false,
            faults: Vec::new(),
            notes: Vec::new(),
            findings: Vec::new(),
            is_revoked: false,
            parts: 0,
        }
    }

    /// It could not be looked at.
    pub(super) fn failed(mut self, fault: Fault) -> Self {
        self.faults.push(fault);
        self
    }

    /// What went wrong, and what is not compared.
    pub(super) fn take(&mut self, told: &Told) {
        self.faults.clone_from(&told.faults);
        self.notes.clone_from(&told.notes);
        self.parts = told.parts;
        if self.scope == "organisation" {
            self.notes.push(format!(
                "the whole account is compared, so what others use in it is found as well; see [watch.{}] in docs/watch.md",
                self.provider
            ));
        }
    }

    fn status(&self) -> &'static str {
        match (self.findings.is_empty(), self.faults.is_empty(), self.is_compared) {
            (false, ..) => "findings",
            (true, false, _) => "error",
            // Nothing is old enough yet, or a counter was looked at for the first time.
            (true, true, false) => "baseline",
            (true, true, true) => "ok",
        }
    }

    fn document(&self) -> Value {
        let fault = |fault: &Fault| json!({ "code": fault.code, "message": fault.message });
        json!({
            "provider": self.provider.as_str(),
            "status": self.status(),
            "scope": self.scope,
            "compared": self.compared.iter().map(Compared::document).collect::<Vec<_>>(),
            "findings": self.findings.iter().map(finding_document).collect::<Vec<_>>(),
            "revoked": self.is_revoked,
            "errors": self.faults.iter().map(fault).collect::<Vec<_>>(),
            "notes": self.notes,
        })
    }

    fn lines(&self, at: TimestampUs) -> Vec<String> {
        let compared: Vec<String> = self.compared.iter().map(Compared::text).collect();
        let mut lines = vec![format!(
            "{}  {}  {}  {}",
            local_time(at),
            self.provider,
            self.status(),
            compared.join("; ")
        )];
        lines.extend(self.findings.iter().map(finding_text));
        if self.is_revoked {
            lines.push(format!("  revoked; tokfence restore {}", self.provider));
        }
        lines.extend(self.faults.iter().map(|fault| format!("  {}", fault.message)));
        lines.extend(self.notes.iter().map(|note| format!("  {note}")));
        lines.iter().map(|line| line.trim_end().to_owned()).collect()
    }
}

impl Compared {
    /// The sums; nothing where the series is empty.
    pub(super) fn of(series: &Series, log: &Log) -> Option<Self> {
        let (first, last) = (series.buckets.first()?, series.buckets.last()?);
        let span = Span { begin: first.span.begin, end: last.span.end };
        let mut reported = Amounts::default();
        series.buckets.iter().for_each(|bucket| reported.add(&bucket.used));
        let logged = log.within(span);
        let cost = NanoUsd::from_nanos(i64::try_from(logged.cost_nanos).unwrap_or(i64::MAX));
        let logged =
            Amounts { requests: Some(logged.requests), tokens: Some(logged.tokens), cost: Some(cost) };
        Some(Self { kind: series.kind, span, reported, logged })
    }

    fn document(&self) -> Value {
        json!({
            "what": self.what(),
            "begin": timestamp(self.span.begin),
            "end": timestamp(self.span.end),
            "reported": amounts(&self.reported),
            "logged": amounts(&self.logged),
        })
    }

    fn what(&self) -> &'static str {
        match self.kind {
            SeriesKind::Usage => "usage",
            SeriesKind::Billed => "bill",
            SeriesKind::Counter => "counter",
        }
    }

    fn text(&self) -> String {
        let logged = match self.kind {
            SeriesKind::Usage => Amounts {
                requests: self.logged.requests.filter(|_| self.reported.requests.is_some()),
                cost: None,
                ..self.logged
            },
            SeriesKind::Billed | SeriesKind::Counter => {
                Amounts { cost: self.logged.cost, ..Amounts::default() }
            }
        };
        let reported = match self.kind {
            SeriesKind::Usage => Amounts { cost: None, ..self.reported },
            SeriesKind::Billed | SeriesKind::Counter => self.reported,
        };
        format!("{}: {} reported, {} in the log", self.what(), words(&reported), words(&logged))
    }
}

fn amounts(amounts: &Amounts) -> Value {
    json!({
        "requests": amounts.requests,
        "tokens": amounts.tokens,
        "cost_usd": amounts.cost.map(|cost| cost.to_string()),
    })
}

fn words(amounts: &Amounts) -> String {
    let requests = amounts.requests.map(|count| format!("{count} requests"));
    let tokens = amounts.tokens.map(|count| format!("{count} tokens"));
    let parts: Vec<String> = [requests, tokens, amounts.cost.map(usd)].into_iter().flatten().collect();
    if parts.is_empty() { "nothing".to_owned() } else { parts.join(", ") }
}

fn finding_document(found: &RaisedFinding) -> Value {
    let finding = &found.finding;
    json!({
        "finding": found.seq,
        "kind": finding.kind.as_str(),
        "is_new": !found.is_told,
        "first_seen_at": timestamp(found.first_seen_at),
        "begin": timestamp(finding.span.begin),
        "end": timestamp(finding.span.end),
        "model": finding.model,
        "reported": amounts(&finding.reported),
        "logged": amounts(&finding.logged),
    })
}

fn finding_text(found: &RaisedFinding) -> String {
    let finding = &found.finding;
    let news = if found.is_told { "known" } else { "NEW" };
    let model = finding.model.as_deref().map(|model| format!(" {}", plain(model)));
    format!(
        "  {news}  finding {}, {}{}: {} (from {} to {}: {} reported, {} in the log)",
        found.seq,
        finding.kind,
        model.unwrap_or_default(),
        finding.kind.reason(),
        local_time(finding.span.begin),
        local_time(finding.span.end),
        words(&finding.reported),
        words(&finding.logged),
    )
}
