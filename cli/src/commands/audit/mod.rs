//! `audit`: what was changed, by whom, and whether the log of it is whole.

mod text;
mod verify;

use std::process::ExitCode;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use gateway::overview::form::timestamp;
use serde_json::{Value, json};
use storage::{Actor, AuditAction, AuditFilter, AuditHead, AuditRow, Store};

use crate::app::{App, now_us};
use crate::columns::{Column, Columns};
use crate::failure::Failure;
use crate::format::{local_time, parse_instant, plain};
use verify::{Accept, Verify};

const COLUMNS: [Column; 6] = [
    Column::Right("row"),
    Column::Left("time"),
    Column::SpareLeft("who"),
    Column::Left("action"),
    Column::Long("subject"),
    Column::Long("detail"),
];

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Audit {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    list: List,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check that no row was edited, removed or moved; exits 6 when one was
    Verify(Verify),
    /// Take the log as it is from now on, after the database was restored from a backup
    Accept(Accept),
}

#[derive(Debug, Args)]
struct List {
    /// Only changes since then: `30m`, `7d`, `2026-11-25T10:00:00Z`
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only changes of this kind
    #[arg(long, value_name = "ACTION", value_parser = actions())]
    action: Option<AuditAction>,
    /// The newest so many
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: u32,
}

fn actions() -> impl TypedValueParser<Value = AuditAction> {
    let names = AuditAction::ALL.iter().map(|action| action.as_str());
    PossibleValuesParser::new(names).try_map(|text| text.parse())
}

impl Audit {
    pub(crate) fn run(self, app: &App) -> Result<ExitCode, Failure> {
        match self.command {
            None => self.list.run(app).map(|()| ExitCode::SUCCESS),
            Some(Command::Verify(verify)) => verify.run(app),
            Some(Command::Accept(accept)) => accept.run(app).map(|()| ExitCode::SUCCESS),
        }
    }
}

impl List {
    fn run(self, app: &App) -> Result<(), Failure> {
        let store = Store::open_existing(&app.config()?.logging.db_path)?;
        let now = now_us();
        let since = self.since.as_deref().map(|text| parse_instant(text, now)).transpose()?;
        let mut rows = store.audit_rows(AuditFilter { action: self.action, since, limit: self.limit })?;
        rows.reverse();
        let document = json!({ "changes": rows.iter().map(document).collect::<Vec<_>>() });
        app.output.data(&document, || {
            let cells: Vec<Vec<String>> = rows.iter().map(cells).collect();
            Columns::table(&COLUMNS, &cells, "nothing was changed")
        });
        Ok(())
    }
}

/// A row as programs read it. One that was edited may hold what is no actor and no JSON.
fn document(row: &AuditRow) -> Value {
    let actor = Actor::parse(&row.actor);
    json!({
        "row": row.seq,
        "at": timestamp(row.at),
        "uid": actor.as_ref().map(|actor| actor.uid),
        "pid": actor.as_ref().map(|actor| actor.pid),
        "command": actor.as_ref().map(|actor| actor.command.as_str()),
        "action": row.action,
        "subject": row.subject,
        "detail": serde_json::from_str::<Value>(&row.detail).unwrap_or_default(),
        "head": AuditHead { seq: row.seq, hash: row.hash }.to_string(),
    })
}

/// A row as a line, in the order of [`COLUMNS`].
fn cells(row: &AuditRow) -> Vec<String> {
    let detail = serde_json::from_str::<Value>(&row.detail).unwrap_or_default();
    vec![
        row.seq.to_string(),
        local_time(row.at),
        text::who(&row.actor),
        plain(&row.action),
        plain(&row.subject),
        text::detail(&detail),
    ]
}
