//! `pricing import`: a newer price list takes the place of the one in the program, whole or not at all.

use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use gateway::Home;
use gateway::config::{Prices, PricesError, embedded_prices};
use policy::PriceTable;
use serde_json::{Value, json};
use storage::AuditAction;

use crate::app::App;
use crate::commands::provider::replace;
use crate::failure::{Exit, Failure};

#[derive(Debug, Args)]
pub(crate) struct Import {
    /// A list as `conf/prices/update` makes it
    #[arg(required_unless_present = "undo", conflicts_with = "undo")]
    file: Option<PathBuf>,
    /// Put back what was there before the last import
    #[arg(long)]
    undo: bool,
}

impl Import {
    pub(super) fn run(self, app: &App) -> Result<(), Failure> {
        app.home.prepare()?;
        // With a slip in these the daemon would go on with the old list.
        Prices::read_own(&app.home).map_err(unchanged)?;
        let before = Prices::load(&app.home).ok();
        app.output.during("reading prices", || match &self.file {
            Some(file) => import(&app.home, file),
            None => undo(&app.home),
        })?;
        let (after, was) = (Prices::load(&app.home), before.as_ref().map(|before| describe(&before.table)));
        let is = after.as_ref().ok().map(|after| describe(&after.table));
        let action = if self.undo { AuditAction::PricingUndo } else { AuditAction::PricingImport };
        app.record(action, "prices", json!({ "before": was, "after": is }));
        app.tell_daemon()?;
        let after = after?;
        let document = json!({
            "status": if self.undo { "undone" } else { "imported" },
            "is": describe(&after.table),
            "was": was,
            "undo": (!self.undo).then_some("tokfence pricing import --undo"),
        });
        app.output.done(&document, || {
            let table = &after.table;
            format!("prices are of {}: {} ({} models)", table.date, table.version, table.iter().count())
        });
        if !self.undo {
            app.output.note("to undo: tokfence pricing import --undo");
        }
        Ok(())
    }
}

fn describe(table: &PriceTable) -> Value {
    json!({
        "source": table.source,
        "version": table.version,
        "date": table.date,
        "models": table.iter().count(),
    })
}

/// Checks a list and puts it in place. Nothing is changed before all of it is known to be valid.
fn import(home: &Home, file: &Path) -> Result<(), Failure> {
    let (table, text) = Prices::read_list(file).map_err(unchanged)?;
    let embedded = &embedded_prices().date;
    if table.date < *embedded {
        let message = format!("the list is of {}, and the one in this program of {embedded}", table.date);
        let failure = Failure::new(Exit::Failed, "older_prices", message);
        return Err(failure.with_hint("prices of your own go into prices.toml, in the home"));
    }
    if table.iter().next().is_none() {
        return Err(Failure::new(Exit::Failed, "invalid_prices", "there is no price in the list"));
    }
    let failed = |error: io::Error| Failure::failed("import prices", &error);
    keep(home).map_err(failed)?;
    replace(&home.prices(), home.dir(), &text).map_err(failed)
}

fn unchanged(error: PricesError) -> Failure {
    let failure = Failure::from(error);
    Failure { message: format!("nothing was changed, because {}", failure.message), ..failure }
}

/// Keeps the list that is there for an undo.
fn keep(home: &Home) -> io::Result<()> {
    match std::fs::read_to_string(home.prices()) {
        Ok(text) => replace(&home.prices_before(), home.dir(), &text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => remove(&home.prices_before()),
        Err(error) => Err(error),
    }
}

fn undo(home: &Home) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::failed("undo the import", &error);
    match std::fs::rename(home.prices_before(), home.prices()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        renamed => return renamed.map_err(failed),
    }
    if !home.prices().exists() {
        return Err(Failure::new(Exit::NotFound, "no_such_import", "no price list was imported"));
    }
    remove(&home.prices()).map_err(failed)
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
