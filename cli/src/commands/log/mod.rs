//! `log`: which requests there were.

mod row;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use policy::{ModelGlob, ProviderId, TimestampUs};
use serde_json::{Value, json};
use signal_hook::consts::{SIGINT, SIGTERM};
use storage::{LogFilter, LogOrder, LoggedRequest, Outcome, StatusFilter, Store};

use crate::app::{App, now_us};
use crate::columns::{Columns, terminal_width};
use crate::commands::agent::parse_agent;
use crate::failure::{Failure, chain};
use crate::format::parse_instant;
use crate::output::Output;
#[cfg(test)]
pub(super) use row::tests as rows_for_tests;
use row::{COLUMNS, cells, describe, document, id_chars};

/// How often a followed log is looked at.
const POLL: Duration = Duration::from_millis(200);
/// How many rows of a followed log are read at a time.
const BATCH: u32 = 1_000;

/// What is said while rows are read.
pub(crate) const READING: &str = "reading the log";

#[derive(Debug, Args)]
pub(crate) struct Log {
    /// Everything about the request whose id begins like this
    #[arg(conflicts_with_all = [
        "follow", "provider", "model", "agent", "status", "outcome", "since", "until", "limit",
    ])]
    id: Option<String>,
    /// Go on with each request as it ends
    #[arg(long, short)]
    follow: bool,
    /// Only requests to this provider
    #[arg(long)]
    provider: Option<String>,
    /// Only requests for models that match; `*` stands for anything
    #[arg(long, value_name = "GLOB")]
    model: Option<String>,
    /// Only requests of this agent
    #[arg(long)]
    agent: Option<String>,
    /// Only answers with this status, or of this class of them: `429`, `4xx`
    #[arg(long)]
    status: Option<String>,
    /// Only requests that ended so: completed, refused, upstream_error, client_gone, cut, unfinished
    #[arg(long)]
    outcome: Option<String>,
    /// Only requests begun since then: `30m`, `2d`, `2026-11-25T10:00:00Z`
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only requests begun before then
    #[arg(long, value_name = "TIME", conflicts_with = "follow")]
    until: Option<String>,
    /// The newest so many
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: u32,
}

impl Log {
    pub(crate) fn run(self, app: &App) -> Result<(), Failure> {
        app.flush_log();
        let store = Store::open_existing(&app.config()?.logging.db_path)?;
        if let Some(id) = &self.id {
            return show(app, &store, id);
        }
        let filter = self.filter(app, &store, now_us())?;
        if self.follow {
            return follow(app, &store, filter);
        }
        let mut requests = app.output.during(READING, || store.requests(&filter))?;
        requests.reverse();
        let documents: Vec<Value> = requests.iter().map(document).collect();
        app.output.data(&json!({ "requests": documents }), || {
            let chars = id_chars(&requests);
            let rows: Vec<_> = requests.iter().map(|request| cells(request, chars)).collect();
            Columns::table(&COLUMNS, &rows, "no requests")
        });
        Ok(())
    }

    fn filter(&self, app: &App, store: &Store, now: TimestampUs) -> Result<LogFilter, Failure> {
        let provider = self.provider.as_deref().map(|name| provider_in_log(app, store, name)).transpose()?;
        Ok(LogFilter {
            provider,
            model: parse_opt::<ModelGlob>(self.model.as_deref())?,
            agent: self.agent.as_deref().map(parse_agent).transpose()?,
            capability: None,
            status: parse_opt::<StatusFilter>(self.status.as_deref())?,
            outcome: parse_opt::<Outcome>(self.outcome.as_deref())?,
            since: self.since.as_deref().map(|text| parse_instant(text, now)).transpose()?,
            until: self.until.as_deref().map(|text| parse_instant(text, now)).transpose()?,
            order: LogOrder::NewestFirst,
            limit: self.limit,
        })
    }
}

/// A provider that is configured, or one that no longer is but is in the log.
pub(crate) fn provider_in_log(app: &App, store: &Store, name: &str) -> Result<ProviderId, Failure> {
    app.provider(&app.config()?, name).or_else(|failure| {
        let Ok(id) = name.parse::<ProviderId>() else { return Err(failure) };
        let is_logged = store.last_used_by_provider()?.contains_key(&id);
        if is_logged { Ok(id) } else { Err(failure) }
    })
}

fn parse_opt<T>(text: Option<&str>) -> Result<Option<T>, Failure>
where
    T: std::str::FromStr<Err: std::error::Error>,
{
    let parse =
        |text: &str| text.parse().map_err(|error| Failure::usage(format!("`{text}`: {}", chain(&error))));
    text.map(parse).transpose()
}

fn show(app: &App, store: &Store, prefix: &str) -> Result<(), Failure> {
    let request = app.output.during(READING, || store.request(prefix)).map_err(|error| match error {
        storage::Error::AmbiguousRequest { .. } => {
            Failure::from(error).with_hint("give more characters; `tokfence log --json` shows whole ids")
        }
        error => error.into(),
    })?;
    let document = document(&request);
    app.output.data(&json!({ "request": document }), || describe(&document));
    Ok(())
}

/// Shows the newest requests, then each one that is added, until it is interrupted.
fn follow(app: &App, store: &Store, filter: LogFilter) -> Result<(), Failure> {
    let is_over = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, is_over.clone())
            .map_err(|error| Failure::failed("watch for signals", &error))?;
    }
    let mut follower = Follower::new(store, filter)?;
    let mut printer = Printer { output: app.output, columns: Columns::new(&COLUMNS), has_header: false };
    printer.print(&follower.newest()?);
    while !is_over.load(Ordering::Relaxed) {
        printer.print(&follower.next_rows()?);
        std::thread::sleep(POLL);
    }
    Ok(())
}

/// A place in the log, from which reading goes on. It is a number of the log, not a time: rows become visible
/// in the order of their numbers, whereas a long request appears with the time at which it began.
struct Follower<'a> {
    store: &'a Store,
    filter: LogFilter,
    seq: i64,
    /// What the database's version was when everything up to it had been read.
    version: Option<i64>,
}

impl<'a> Follower<'a> {
    fn new(store: &'a Store, filter: LogFilter) -> Result<Self, Failure> {
        Ok(Self { store, filter, seq: store.latest_seq()?, version: None })
    }

    /// The rows before the place at which following begins, oldest first.
    fn newest(&self) -> Result<Vec<LoggedRequest>, Failure> {
        let mut rows = self.store.requests(&self.filter)?;
        rows.retain(|row| row.seq <= self.seq);
        rows.reverse();
        Ok(rows)
    }

    /// The rows that were added since the last call.
    fn next_rows(&mut self) -> Result<Vec<LoggedRequest>, Failure> {
        let version = self.store.data_version()?;
        if self.version == Some(version) {
            return Ok(Vec::new());
        }
        let mut all = Vec::new();
        loop {
            // Rows that do not pass the filter need not be visited again. Read first: what comes later is left
            // for the next round.
            let latest = self.store.latest_seq()?;
            let order = LogOrder::After(self.seq);
            let rows = self.store.requests(&LogFilter { order, limit: BATCH, ..self.filter.clone() })?;
            self.seq = rows.last().map_or(self.seq, |row| row.seq);
            let is_last = rows.len() < BATCH as usize;
            all.extend(rows);
            if is_last {
                self.seq = self.seq.max(latest);
                break;
            }
        }
        self.version = Some(version);
        Ok(all)
    }
}

struct Printer {
    output: Output,
    columns: Columns,
    has_header: bool,
}

impl Printer {
    fn print(&mut self, requests: &[LoggedRequest]) {
        let chars = id_chars(requests);
        let rows: Vec<_> = requests.iter().map(|request| cells(request, chars)).collect();
        self.columns.fit(&rows);
        self.columns.narrow(terminal_width());
        if !self.has_header && !rows.is_empty() && !self.output.is_json {
            self.output.line(&Value::Null, || self.columns.header());
            self.has_header = true;
        }
        for (request, row) in requests.iter().zip(&rows) {
            self.output.line(&document(request), || self.columns.line(row));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::log::row::tests::{id, log, row};

    fn texts(rows: &[LoggedRequest]) -> Vec<String> {
        rows.iter().map(|row| row.request.id.to_string()).collect()
    }

    fn ids(numbers: impl IntoIterator<Item = u64>) -> Vec<String> {
        numbers.into_iter().map(|number| id(number).to_string()).collect()
    }

    #[test]
    fn following_misses_nothing_and_repeats_nothing() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("tokfence.db");
        log(&path, (0..5).map(row));
        let store = Store::open(&path).unwrap();
        let filter = LogFilter { limit: 3, ..LogFilter::default() };
        let mut follower = Follower::new(&store, filter).unwrap();
        log(&path, (5..7).map(row));
        assert_eq!(texts(&follower.newest().unwrap()), ids([4])); // of the newest three, two are still to come
        assert_eq!(texts(&follower.next_rows().unwrap()), ids(5..7));
        assert!(follower.next_rows().unwrap().is_empty());
        let many = u64::from(BATCH) + 7;
        log(&path, (7..7 + many).map(row));
        assert_eq!(texts(&follower.next_rows().unwrap()), ids(7..7 + many));
        assert!(follower.next_rows().unwrap().is_empty());
    }

    #[test]
    fn following_with_a_filter_passes_over_the_others() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("tokfence.db");
        let store = Store::open(&path).unwrap();
        let filter = LogFilter { status: Some("4xx".parse().unwrap()), ..LogFilter::default() };
        let mut follower = Follower::new(&store, filter).unwrap();
        log(
            &path,
            (0..4).map(|number| storage::RequestRow {
                status: Some(if number == 1 { 404 } else { 200 }),
                ..row(number)
            }),
        );
        assert_eq!(texts(&follower.next_rows().unwrap()), ids([1]));
        assert_eq!(follower.seq, store.latest_seq().unwrap());
    }
}
