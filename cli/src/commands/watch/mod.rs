//! `watch`: holds what a provider reports of its account against the log, and so finds a key that others use.
//!
//! `account` says which providers can be asked and how; `source` has one module for each kind of account; `check` does
//! one provider at a time; what is a finding is decided in `policy::reconcile`; `report` prints.

mod account;
mod check;
mod pages;
mod report;
mod source;
mod windows;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use gateway::config::{OutboundUrl, parse_duration};
use policy::reconcile::Limits;
use policy::{NanoUsd, ProviderId};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::app::App;
use crate::commands::start::leave_ignored_variables;
use crate::failure::{Exit, Failure};
use crate::unlock;
use check::Checker;
use report::Report;

/// How often a sleeping loop looks whether it is to end.
const POLL: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
pub(crate) struct Watch {
    /// Look once and end; exits 6 when something was found
    #[arg(long)]
    once: bool,
    /// Only this provider; again for further ones
    #[arg(long, value_name = "P", value_delimiter = ',')]
    provider: Vec<String>,
    /// How far back is compared, at least an hour
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = period)]
    period: Duration,
    /// How long to wait between two looks, at least ten seconds
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = interval)]
    interval: Duration,
    /// Use is found that has nothing in the log for so long before and after it, at least a minute
    #[arg(long, value_name = "TIME", default_value = "30m", value_parser = idle_window)]
    idle_window: Duration,
    /// So much more money than in the log is no finding
    #[arg(long, value_name = "N", default_value = "1.00")]
    threshold_usd: NanoUsd,
    /// So many more tokens
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    threshold_tokens: u64,
    /// So many more requests
    #[arg(long, value_name = "N", default_value_t = 1)]
    threshold_requests: u64,
    /// Where a provider's use is told, in the form of docs/watch.md: https, or http on this machine
    #[arg(long, value_name = "P=URL")]
    usage_endpoint: Vec<String>,
    /// Revoke a provider when something new is found
    #[arg(long)]
    auto_revoke: bool,
}

/// Everything that was typed, as what it means.
#[derive(Debug)]
struct Settings {
    providers: Vec<ProviderId>,
    endpoints: Vec<(ProviderId, OutboundUrl)>,
    period: Duration,
    limits: Limits,
    auto_revoke: bool,
}

fn period(text: &str) -> Result<Duration, String> {
    span(text, Duration::from_secs(60 * 60), Duration::from_secs(31 * 24 * 60 * 60))
}

fn interval(text: &str) -> Result<Duration, String> {
    span(text, Duration::from_secs(10), Duration::from_secs(7 * 24 * 60 * 60))
}

fn idle_window(text: &str) -> Result<Duration, String> {
    span(text, Duration::from_secs(60), Duration::from_secs(7 * 24 * 60 * 60))
}

fn span(text: &str, min: Duration, max: Duration) -> Result<Duration, String> {
    let span = parse_duration(text).ok_or_else(|| "a time such as 30m or 24h is meant".to_owned())?;
    if span < min || span > max {
        return Err(format!("must be from {}s to {}s", min.as_secs(), max.as_secs()));
    }
    Ok(span)
}

impl Watch {
    pub(crate) fn run(self, app: &App) -> Result<ExitCode, Failure> {
        leave_ignored_variables()?;
        let settings = self.settings(app)?;
        let is_over = Arc::new(AtomicBool::new(false));
        if !self.once {
            listen(&is_over)?;
        }
        let mut checker = Checker::new(app, &settings, unlock::open(app)?, is_over.clone())?;
        let mut report = checker.check()?;
        if self.once {
            app.output.data(&report.document(), || report.text());
            return Ok(report.exit_code());
        }
        app.output.line(&report.document(), || report.text());
        while wait(self.interval, &is_over) {
            match checker.check() {
                // One that was interrupted has not looked at everything.
                Ok(_) if is_over.load(Ordering::Relaxed) => break,
                Ok(next) => report = next,
                // What fails now may work the next time; a watch that ended would find nothing any more.
                Err(failure) => {
                    app.output.failure(&failure);
                    continue;
                }
            }
            app.output.line(&report.document(), || report.text());
        }
        Ok(if report.findings() > 0 { report.exit_code() } else { ExitCode::SUCCESS })
    }

    fn settings(&self, app: &App) -> Result<Settings, Failure> {
        let config = app.config()?;
        let endpoints = self.usage_endpoint.iter().map(|text| {
            let (name, url) = text.split_once('=').ok_or_else(|| {
                Failure::usage(format!("`{}` is not P=URL", text.escape_debug()))
                    .with_hint("--usage-endpoint groq=https://usage.example.com/groq")
            })?;
            let provider = app.provider(&config, name)?;
            let url = OutboundUrl::parse(url);
            let url =
                url.map_err(|error| Failure::usage(format!("the endpoint of `{provider}`: {error}")))?;
            Ok((provider, url))
        });
        let providers = self.provider.iter().map(|name| app.provider(&config, name));
        Ok(Settings {
            endpoints: endpoints.collect::<Result<_, Failure>>()?,
            providers: providers.collect::<Result<_, _>>()?,
            period: self.period,
            limits: Limits {
                requests: self.threshold_requests,
                tokens: self.threshold_tokens,
                cost: self.threshold_usd,
                idle_us: i64::try_from(self.idle_window.as_micros()).unwrap_or(i64::MAX),
            },
            auto_revoke: self.auto_revoke,
        })
    }
}

/// The first signal ends the watch when the present look is over, the second at once.
fn listen(is_over: &Arc<AtomicBool>) -> Result<(), Failure> {
    for signal in [SIGINT, SIGTERM] {
        let at_once = signal_hook::flag::register_conditional_shutdown(signal, 1, is_over.clone());
        let registered = at_once.and_then(|_| signal_hook::flag::register(signal, is_over.clone()));
        registered.map_err(|error| Failure::failed("watch for signals", &error))?;
    }
    Ok(())
}

/// Waits for the next look; answers whether there is to be one.
fn wait(interval: Duration, is_over: &AtomicBool) -> bool {
    let since = Instant::now();
    while since.elapsed() < interval {
        if is_over.load(Ordering::Relaxed) {
            return false;
        }
        std::thread::sleep(POLL.min(interval));
    }
    !is_over.load(Ordering::Relaxed)
}

impl Report {
    /// 6 when something was found, 1 when nothing could be looked at, 0 otherwise: an error is no leak.
    fn exit_code(&self) -> ExitCode {
        let exit = match (self.findings() > 0, self.is_checked()) {
            (true, _) => Exit::Found as u8,
            (false, true) => 0,
            (false, false) => Exit::Failed as u8,
        };
        ExitCode::from(exit)
    }
}
