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

use std::io::{self, Read};
use std::ops::RangeInclusive;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use gateway::config::{self, Config, OutboundUrl, parse_duration};
use policy::reconcile::Limits;
use policy::{NanoUsd, ProviderId};
use signal_hook::consts::{SIGINT, SIGTERM};
use vault::{Secret, Vault};
use zeroize::Zeroizing;

use crate::app::App;
use crate::commands::start::leave_ignored_variables;
use crate::failure::{Exit, Failure};
use crate::format::plain;
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
    /// How far back is compared, at least an hour [default: watch.period, 24h]
    #[arg(long, value_name = "TIME", value_parser = period)]
    period: Option<Duration>,
    /// How long to wait between two looks, at least ten seconds [default: watch.interval, 15m]
    #[arg(long, value_name = "TIME", value_parser = interval)]
    interval: Option<Duration>,
    /// Use is found that has nothing in the log for so long before and after it, at least a minute [default:
    /// watch.idle_window, 30m]
    #[arg(long, value_name = "TIME", value_parser = idle_window)]
    idle_window: Option<Duration>,
    /// So much more money than in the log is no finding [default: watch.threshold_usd, 1.00]
    #[arg(long, value_name = "N")]
    threshold_usd: Option<NanoUsd>,
    /// So many more tokens [default: watch.threshold_tokens, 1000]
    #[arg(long, value_name = "N")]
    threshold_tokens: Option<u64>,
    /// So many more requests [default: watch.threshold_requests, 1]
    #[arg(long, value_name = "N")]
    threshold_requests: Option<u64>,
    /// Where a provider's use is told, in the form of docs/watch.md: https, or http on this machine
    #[arg(long, value_name = "P=URL")]
    usage_endpoint: Vec<String>,
    /// Revoke a provider when something new is found
    #[arg(long)]
    auto_revoke: bool,
    /// Look for the daemon, which hands the vault's key over at standard input and closes it when the look must end
    #[arg(long, hide = true, requires = "once")]
    for_daemon: bool,
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
    span(text, &config::Watch::PERIODS)
}

fn interval(text: &str) -> Result<Duration, String> {
    span(text, &config::Watch::INTERVALS)
}

fn idle_window(text: &str) -> Result<Duration, String> {
    span(text, &config::Watch::IDLE_WINDOWS)
}

fn span(text: &str, spans: &RangeInclusive<Duration>) -> Result<Duration, String> {
    let span = parse_duration(text).ok_or_else(|| "a time such as 30m or 24h is meant".to_owned())?;
    if !spans.contains(&span) {
        return Err(format!("must be from {}s to {}s", spans.start().as_secs(), spans.end().as_secs()));
    }
    Ok(span)
}

impl Watch {
    pub(crate) fn run(self, app: &App) -> Result<ExitCode, Failure> {
        leave_ignored_variables()?;
        let config = app.config()?;
        let settings = self.settings(app, &config)?;
        let interval = self.interval.unwrap_or(config.watch.interval);
        let is_over = Arc::new(AtomicBool::new(false));
        if !self.once {
            listen(&is_over)?;
        }
        let vault = if self.for_daemon { vault_of_daemon(app)? } else { unlock::open(app)? };
        let mut checker = Checker::new(app, &settings, vault, is_over.clone())?;
        let mut check = || app.output.during("asking the accounts", || checker.check());
        let mut report = check()?;
        if self.once {
            app.output.data(&report.document(), || report.text());
            return Ok(report.exit_code());
        }
        app.output.line(&report.document(), || report.text());
        while wait(interval, &is_over) {
            match check() {
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

    /// What was typed, and for the rest what the configuration says.
    fn settings(&self, app: &App, config: &Config) -> Result<Settings, Failure> {
        let typed = self.usage_endpoint.iter().map(|text| {
            let (name, url) = text.split_once('=').ok_or_else(|| {
                Failure::usage(format!("`{}` is not P=URL", plain(text)))
                    .with_hint("--usage-endpoint groq=https://usage.example.com/groq")
            })?;
            let provider = app.provider(config, name)?;
            let url = OutboundUrl::parse(url);
            let url =
                url.map_err(|error| Failure::usage(format!("the endpoint of `{provider}`: {error}")))?;
            Ok((provider, url))
        });
        let watch = &config.watch;
        let configured = watch
            .scopes
            .iter()
            .filter_map(|(provider, scope)| Some(Ok((provider.clone(), scope.usage_endpoint.clone()?))));
        let providers = self.provider.iter().map(|name| app.provider(config, name));
        let idle_window = self.idle_window.unwrap_or(watch.idle_window);
        Ok(Settings {
            // The first of a provider counts.
            endpoints: typed.chain(configured).collect::<Result<_, Failure>>()?,
            providers: providers.collect::<Result<_, _>>()?,
            period: self.period.unwrap_or(watch.period),
            limits: Limits {
                requests: self.threshold_requests.unwrap_or(watch.threshold_requests),
                tokens: self.threshold_tokens.unwrap_or(watch.threshold_tokens),
                cost: self.threshold_usd.unwrap_or(watch.threshold_usd),
                idle_us: i64::try_from(idle_window.as_micros()).unwrap_or(i64::MAX),
            },
            auto_revoke: self.auto_revoke || watch.auto_revoke,
        })
    }
}

/// The vault, with the key that the daemon writes to standard input. When that ends, so does this process: the daemon
/// is gone, or has been locked.
fn vault_of_daemon(app: &App) -> Result<Vault, Failure> {
    let mut key = Zeroizing::new([0; 32]);
    let read = io::stdin().read_exact(&mut *key);
    read.map_err(|error| Failure::failed("read the key of the daemon", &error))?;
    std::thread::spawn(|| {
        // Nothing more comes; whatever ends the wait ends the right to go on.
        let _ = io::stdin().read(&mut [0]);
        std::process::exit(i32::from(Exit::Failed as u8));
    });
    Ok(Vault::open_with_data_key(&app.home.vault(), &Secret::new(*key))?)
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
