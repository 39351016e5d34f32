//! `ratelimit`: how many requests and tokens a minute, and how many requests at once.

use std::collections::HashMap;

use clap::{Args, Subcommand};
use gateway::control::{Command, RateStatus, Reply};
use policy::{RateLimit, Subject};
use serde_json::{Value, json};

use crate::app::{App, now_us};
use crate::columns::{Column, Columns};
use crate::failure::{Exit, Failure, from_reply};
use crate::format::plain;

const COLUMNS: [Column; 4] = [
    Column::Left("subject"),
    Column::Right("requests/min"),
    Column::Right("tokens/min"),
    Column::Right("at once"),
];

#[derive(Debug, Subcommand)]
pub(crate) enum Ratelimit {
    /// Limit a provider, an agent (agent:NAME), or everything (global); what is not named stays as it is
    Set(Set),
    /// Show the limits, and how much of each is used
    Status,
    /// Remove the limits of a provider, an agent, or everything
    Clear {
        /// `global`, a provider, or `agent:NAME`
        subject: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Set {
    /// `global`, a provider, or `agent:NAME`
    subject: String,
    /// Requests a minute; `-` is no limit
    #[arg(value_name = "RPM", allow_hyphen_values = true)]
    rpm: String,
    /// Tokens a minute, input and output together; `-` is no limit
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    tpm: Option<String>,
    /// Requests at once; `-` is no limit
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    concurrent: Option<String>,
}

impl Ratelimit {
    pub(crate) fn run(self, app: &App) -> Result<(), Failure> {
        match self {
            Self::Set(set) => set.run(app),
            Self::Status => status(app),
            Self::Clear { subject } => clear(app, &subject),
        }
    }
}

impl Set {
    fn run(self, app: &App) -> Result<(), Failure> {
        let requests = parse_count(&self.rpm, 1_000_000)?;
        let tokens = self.tpm.as_deref().map(|text| parse_count(text, 1_000_000_000_000)).transpose()?;
        let concurrent = self.concurrent.as_deref().map(|text| parse_count(text, 1_000_000)).transpose()?;
        let mut store = app.store()?;
        let subject = app.subject(&app.config()?, &self.subject)?;
        let small = |count: Option<u64>| count.and_then(|count| u32::try_from(count).ok());
        let (before, after) = store.change_rate_limit(&subject, now_us(), |limit| RateLimit {
            requests_per_minute: small(requests),
            tokens_per_minute: tokens.unwrap_or(limit.tokens_per_minute),
            concurrent: concurrent.map_or(limit.concurrent, small),
        })?;
        app.tell_daemon()?;
        report(app, &subject, before, after);
        Ok(())
    }
}

fn clear(app: &App, text: &str) -> Result<(), Failure> {
    let mut store = app.store()?;
    // What is limited may be gone from the configuration.
    let limited = store.rate_limits()?.into_iter().map(|(subject, _)| subject);
    let subject = match limited.into_iter().find(|subject| subject.to_string() == text) {
        Some(subject) => subject,
        None => app.subject(&app.config()?, text)?,
    };
    let (before, after) = store.change_rate_limit(&subject, now_us(), |_| RateLimit::default())?;
    app.tell_daemon()?;
    report(app, &subject, before, after);
    Ok(())
}

fn report(app: &App, subject: &Subject, before: RateLimit, after: RateLimit) {
    let status = match (before == after, after.is_open()) {
        (true, _) => "unchanged",
        (false, true) => "cleared",
        (false, false) => "set",
    };
    let document = json!({
        "subject": subject.to_string(), "status": status, "is": limit_document(&after), "was": limit_document(&before),
    });
    app.output.done(&document, || format!("`{subject}`: {}", describe(&after)));
}

/// A count as it is typed; `-` is none.
fn parse_count(text: &str, max: u64) -> Result<Option<u64>, Failure> {
    match text.parse::<u64>() {
        _ if text == "-" => Ok(None),
        Ok(0) => Err(Failure::usage("a limit of 0 would serve nothing")
            .with_hint("tokfence revoke PROVIDER, tokfence agent revoke NAME, or `-` for no limit")),
        Ok(count) if count <= max => Ok(Some(count)),
        Ok(_) | Err(_) => {
            let text = plain(text);
            Err(Failure::usage(format!("`{text}` is not a number from 1 to {max}, or `-` for no limit")))
        }
    }
}

pub(crate) fn limit_document(limit: &RateLimit) -> Value {
    json!({
        "requests_per_minute": limit.requests_per_minute,
        "tokens_per_minute": limit.tokens_per_minute,
        "concurrent": limit.concurrent,
    })
}

pub(crate) fn describe(limit: &RateLimit) -> String {
    let requests = limit.requests_per_minute.map(|count| format!("{count} requests a minute"));
    let tokens = limit.tokens_per_minute.map(|count| format!("{count} tokens a minute"));
    let concurrent = limit.concurrent.map(|count| format!("{count} at once"));
    let parts: Vec<String> = [requests, tokens, concurrent].into_iter().flatten().collect();
    if parts.is_empty() { "no limit".to_owned() } else { parts.join(", ") }
}

fn status(app: &App) -> Result<(), Failure> {
    let store = app.store()?;
    let rules = store.load_policy()?.rules;
    let mut limits = store.rate_limits()?;
    let now = now_us();
    limits.retain(|(subject, _)| rules.is_in_force(subject, now));
    let used = used(app)?;
    let rows: Vec<(String, RateLimit, Option<&RateStatus>)> = limits
        .iter()
        .map(|(subject, limit)| {
            let name = subject.to_string();
            let used = used.as_ref().and_then(|used| used.get(&name));
            (name, *limit, used)
        })
        .collect();
    let document = json!({
        "running": used.is_some(),
        "limits": rows.iter().map(|(name, limit, used)| row_document(name, limit, *used)).collect::<Vec<_>>(),
    });
    app.output.data(&document, || {
        let rows = rows.iter().map(|(name, limit, used)| {
            vec![
                name.clone(),
                of(used.map(|used| used.requests_used), limit.requests_per_minute.map(u64::from)),
                of(used.map(|used| used.tokens_used), limit.tokens_per_minute),
                of(used.map(|used| used.in_flight.into()), limit.concurrent.map(u64::from)),
            ]
        });
        let empty = "no limits; set one with `tokfence ratelimit set agent:NAME 60`";
        Columns::table(&COLUMNS, &rows.collect::<Vec<_>>(), empty)
    });
    Ok(())
}

/// What the running daemon counts; without one nothing is used.
fn used(app: &App) -> Result<Option<HashMap<String, RateStatus>>, Failure> {
    match app.ask(&Command::Rates) {
        Ok(Reply::Rates(rates)) => {
            Ok(Some(rates.into_iter().map(|rate| (rate.subject.clone(), rate)).collect()))
        }
        Ok(other) => Err(from_reply(other)),
        Err(failure) if failure.exit == Exit::NotRunning => Ok(None),
        Err(failure) => Err(failure),
    }
}

fn row_document(name: &str, limit: &RateLimit, used: Option<&RateStatus>) -> Value {
    json!({
        "subject": name,
        "requests_per_minute": limit.requests_per_minute,
        "tokens_per_minute": limit.tokens_per_minute,
        "concurrent": limit.concurrent,
        "requests_used": used.map(|used| used.requests_used),
        "tokens_used": used.map(|used| used.tokens_used),
        "in_flight": used.map(|used| used.in_flight),
    })
}

/// `3 of 60`, or the limit alone while nobody counts.
fn of(used: Option<u64>, limit: Option<u64>) -> String {
    match (used, limit) {
        (Some(used), Some(limit)) => format!("{used} of {limit}"),
        (None, Some(limit)) => limit.to_string(),
        (_, None) => "-".to_owned(),
    }
}
