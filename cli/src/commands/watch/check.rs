//! One look: each provider is asked, what it tells is held against the log, and what is new is acted upon.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use gateway::Leak;
use gateway::catalogue::Provider;
use gateway::config::{Config, Prices, WatchScope};
use policy::reconcile::{Amounts, Bucket, KnownModels, Log, Series, SeriesKind, Span, reconcile};
use policy::{PriceTable, ProviderId, TimestampUs};
use storage::{Asked, CounterSample, LogText, RaisedFinding, Store};
use vault::{EntryKind, Vault};

use super::Settings;
use super::account::{Account, Keys, watched};
use super::pages::Fault;
use super::report::{Compared, ProviderReport, Report};
use super::source::{Counter, Told, anthropic, custom, openai, openrouter, scope_name};
use super::windows::{MINUTE_US, Windows};
use crate::app::{App, now_us};
use crate::failure::{Exit, Failure};

/// How far beside two looks at a counter a request may have run that it counts.
const COUNTER_SLACK_US: i64 = 15 * MINUTE_US;
/// How long a notice may take to go out.
const NOTICE_PATIENCE: Duration = Duration::from_secs(25);

/// What is kept from one look to the next.
pub(super) struct Checker<'a> {
    app: &'a App,
    settings: &'a Settings,
    vault: Vault,
    store: Store,
    prices: Arc<PriceTable>,
    is_over: Arc<AtomicBool>,
    /// The models that were asked for, as far as the log has been read.
    asked: Asked,
}

impl<'a> Checker<'a> {
    pub(super) fn new(
        app: &'a App,
        settings: &'a Settings,
        vault: Vault,
        is_over: Arc<AtomicBool>,
    ) -> Result<Self, Failure> {
        let asked = nothing_asked();
        let (store, prices) = (app.store()?, Prices::load(&app.home)?.table);
        Ok(Self { app, settings, vault, store, prices, is_over, asked })
    }

    /// Looks at every provider once.
    pub(super) fn check(&mut self) -> Result<Report, Failure> {
        self.vault.refresh()?;
        if self.store.check_in_place().is_err() {
            // Another database has taken its place, with another log.
            (self.store, self.asked) = (self.app.store()?, nothing_asked());
        }
        let config = self.app.config()?;
        let watched = watched(self.settings, &config, &self.vault);
        if watched.is_empty() {
            let message = "there is no account to look at: the vault holds no admin key";
            return Err(Failure::new(Exit::NotFound, "no_such_entry", message)
                .with_hint("tokfence vault add openai --admin, or --usage-endpoint P=URL"));
        }
        let mut providers = Vec::new();
        for id in &watched {
            if let Some(provider) = config.provider(id.as_str()).cloned() {
                providers.push(self.check_provider(&config, &provider)?);
            }
        }
        let report = Report::new(now_us(), self.settings, providers);
        self.act(&config, report)
    }

    fn check_provider(&mut self, config: &Config, provider: &Provider) -> Result<ProviderReport, Failure> {
        let now = now_us();
        let id = &provider.id;
        let scope = config.watch.scopes.get(id).cloned().unwrap_or_default();
        let windows = Windows::at(now, self.settings.period, self.earliest(id, now)?);
        let mut report = ProviderReport::new(id.clone());
        let account = match Account::of(id, self.settings) {
            Ok(account) => account,
            Err(fault) => return Ok(report.failed(fault)),
        };
        report.scope = self.scope(&account, provider, &scope);
        let told = match self.ask(&account, provider, &scope, &windows) {
            Ok(told) => told,
            Err(fault) => return Ok(report.failed(fault)),
        };
        report.take(&told);
        let series = self.series(id, told, &windows)?;
        self.compare(config, report, &scope, &series, &windows)
    }

    /// From when on the log says what the key of the vault was used for.
    fn earliest(&mut self, id: &ProviderId, now: TimestampUs) -> Result<TimestampUs, Failure> {
        let log = self.store.start_watching(id, now)?;
        let key = self.vault.entry(id.as_str(), EntryKind::Inference);
        Ok(key.map_or(log, |key| log.max(key.created_at_us())))
    }

    fn scope(&self, account: &Account, provider: &Provider, scope: &WatchScope) -> &'static str {
        let has = |kind| self.vault.entry(provider.id.as_str(), kind).is_some();
        match account {
            Account::OpenAi | Account::Anthropic => scope_name(scope),
            Account::OpenRouter if has(EntryKind::Admin) => "organisation",
            Account::OpenRouter => "key",
            Account::Custom(_) => "endpoint",
        }
    }

    fn ask(
        &self,
        account: &Account,
        provider: &Provider,
        scope: &WatchScope,
        windows: &Windows,
    ) -> Result<Told, Fault> {
        let keys = Keys { provider, vault: &self.vault, is_over: &self.is_over };
        let prices = (&*self.prices, provider.prices.as_str());
        let base = provider.base_path.as_str();
        match account {
            Account::OpenAi => Ok(openai::ask(&keys.admin()?, base, scope, windows, prices)),
            Account::Anthropic => Ok(anthropic::ask(&keys.admin()?, base, scope, windows, prices)),
            Account::OpenRouter => {
                let keyed = |kind| {
                    let entry = keys.entry(kind)?;
                    Some(keys.client(entry).map(|client| (client, entry.rotated_at_us())))
                };
                let own = keyed(EntryKind::Inference).transpose()?;
                let management = keyed(EntryKind::Admin).transpose()?;
                if own.is_none() && management.is_none() {
                    return Err(Fault::new("no_key", "the vault holds no key of `openrouter`"));
                }
                Ok(openrouter::ask(own, management, base))
            }
            Account::Custom(url) => {
                let path = url.url().path_and_query().map_or("/", |path| path.as_str());
                Ok(custom::ask(&keys.endpoint(url)?, path, windows))
            }
        }
    }

    /// All that was told as series: a counter becomes one with its past.
    fn series(&mut self, id: &ProviderId, told: Told, windows: &Windows) -> Result<Vec<Series>, Failure> {
        let mut series = told.series;
        let now = now_us();
        for Counter { name, since, total } in told.counters {
            let sample = CounterSample { at: now, total };
            let from = windows.since.max(since);
            let samples = self.store.sample_counter(id, (name, since), sample, from)?;
            series.push(counter_series(&samples));
        }
        Ok(series)
    }

    fn compare(
        &mut self,
        config: &Config,
        mut report: ProviderReport,
        scope: &WatchScope,
        series: &[Series],
        windows: &Windows,
    ) -> Result<ProviderReport, Failure> {
        // After the provider was asked: whatever it told of is in the log by now.
        self.app.flush_log();
        let id = report.provider.clone();
        let beside = |series: &Series| series.slack_us.max(self.settings.limits.idle_us);
        let begins = series
            .iter()
            .filter_map(|series| Some(series.buckets.first()?.span.begin.saturating_sub(beside(series))));
        let begin = begins.chain([windows.begin()]).min().unwrap_or_default();
        let log = Log::new(self.store.logged_minutes(&id, begin, now_us().saturating_add(MINUTE_US))?);
        let known = self.known_models(config, &id, scope)?;
        let mut findings = Vec::new();
        for series in series {
            report.is_compared |= series.kind != SeriesKind::Counter || !series.buckets.is_empty();
            report.compared.extend(Compared::of(series, &log));
            findings.extend(reconcile(series, &log, &known, &self.settings.limits));
        }
        report.findings = self.store.raise_findings(&id, findings, now_us())?;
        Ok(report)
    }

    /// The models that were asked for, also under the names that the price list has for them.
    fn known_models(
        &mut self,
        config: &Config,
        id: &ProviderId,
        scope: &WatchScope,
    ) -> Result<KnownModels, Failure> {
        let further = self.store.models_asked(self.asked.seq)?;
        self.asked.seq = further.seq;
        self.asked.models.extend(further.models);
        self.asked.models.sort();
        self.asked.models.dedup();
        let prices = config.provider(id.as_str()).map_or(id.as_str(), |provider| provider.prices.as_str());
        let names = self.asked.models.iter().filter(|(of, _)| of == id).map(|(_, model)| model);
        let names = names.flat_map(|model: &LogText| {
            let listed = self.prices.resolve(prices, model.as_str()).map(|resolved| resolved.model);
            std::iter::once(model.as_str()).chain(listed)
        });
        Ok(KnownModels::new(names, scope.models.clone()))
    }

    /// Revokes, if that was asked for, and tells the owner, of what nobody was told before.
    fn act(&mut self, config: &Config, mut report: Report) -> Result<Report, Failure> {
        let mut leaks = Vec::new();
        for provider in &mut report.providers {
            let new: Vec<&RaisedFinding> = provider.findings.iter().filter(|found| !found.is_told).collect();
            if let Some(first) = new.first().filter(|_| self.settings.auto_revoke) {
                let reason = format!("watch: {} (finding {})", first.finding.kind.reason(), first.seq);
                self.store.revoke_provider(&provider.provider, &reason, now_us())?;
                provider.is_revoked = true;
            }
            leaks.extend(new.into_iter().map(|found| leak(&provider.provider, found, provider.is_revoked)));
        }
        if !leaks.is_empty() {
            gateway::tell_leaks(&leaks, &config.notifications, NOTICE_PATIENCE);
        }
        for leak in &leaks {
            self.store.mark_finding_told(leak.finding, now_us())?;
        }
        for provider in report.providers.iter_mut().filter(|provider| provider.is_revoked) {
            // It looks at the database by itself as well; what was found must be reported in any case.
            let told = self.app.tell_daemon();
            provider.faults.extend(told.err().map(|failure| Fault::new("daemon", failure.message)));
        }
        Ok(report)
    }
}

fn nothing_asked() -> Asked {
    Asked { seq: 0, models: Vec::new() }
}

fn leak(provider: &ProviderId, found: &RaisedFinding, is_revoked: bool) -> Leak {
    Leak {
        provider: provider.clone(),
        kind: found.finding.kind,
        finding: found.seq,
        model: found.finding.model.clone(),
        begin: found.finding.span.begin,
        end: found.finding.span.end,
        is_revoked,
    }
}

/// What a counter moved by between one look and the next. One that went down has begun anew, and says nothing there.
fn counter_series(samples: &[CounterSample]) -> Series {
    let buckets = samples.windows(2).filter_map(|pair| {
        let moved = pair[1].total.checked_sub(pair[0].total).ok()?;
        let span = Span { begin: pair[0].at, end: pair[1].at };
        let used = Amounts { cost: Some(moved), ..Amounts::default() };
        (moved.nanos() >= 0).then(|| Bucket { span, used, models: std::collections::BTreeMap::new() })
    });
    Series { kind: SeriesKind::Counter, slack_us: COUNTER_SLACK_US, buckets: buckets.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::NanoUsd;

    #[test]
    fn a_counter_that_goes_down_begins_anew() {
        let sample = |at, total| CounterSample { at, total: NanoUsd::from_nanos(total) };
        let series = counter_series(&[sample(0, 10), sample(5, 12), sample(9, 3), sample(12, 3)]);
        let moved: Vec<_> =
            series.buckets.iter().map(|bucket| (bucket.span.begin, bucket.used.cost)).collect();
        assert_eq!(moved, [(0, Some(NanoUsd::from_nanos(2))), (9, Some(NanoUsd::ZERO))]);
        assert!(counter_series(&[sample(0, 10)]).buckets.is_empty());
    }
}
