//! `scan`: keys of providers that lie around in plain text, and their way into the vault. A key is never shown.

mod find;
mod fix;
mod places;

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use gateway::config::Config;
use serde_json::{Value, json};
use storage::Store;
use vault::Vault;

use crate::app::App;
use crate::columns::{Column, Columns};
use crate::commands::agent::parse_ttl;
use crate::failure::{Exit, Failure};
use crate::unlock;
use find::Finder;
use places::Findings;

/// How long a capability serves in the place of a key, where nobody said.
const TTL: &str = "30d";
/// So many places are named where others have only a line.
const NAMED_MAX: usize = 3;
/// Of what was not looked at so much is told.
const PASSED_OVER_TOLD: usize = 10;

/// Of a scan that fixes; another has done nothing.
const COLUMNS: [Column; 5] = [
    Column::Left("provider"),
    Column::Left("key"),
    Column::Left("where"),
    Column::SpareLeft("as"),
    Column::Left("what was done"),
];

/// What is said while they are looked for.
pub(crate) const SEARCHING: &str = "looking for keys";

#[derive(Debug, Args)]
pub(crate) struct Scan {
    /// Files, and folders with all that is in them, beside the places where keys usually are
    paths: Vec<PathBuf>,
    /// Move the keys into the vault, and put a capability in their place
    #[arg(long)]
    fix: bool,
    /// When that capability ends: `90m`, `24h`, `30d`
    #[arg(long, default_value = TTL, value_name = "TIME", requires = "fix")]
    ttl: String,
    /// Put back what a fix took out, which is named by the file that it left
    #[arg(long, value_name = "FILE", conflicts_with_all = ["fix", "paths"])]
    undo: Option<PathBuf>,
}

impl Scan {
    pub(crate) fn run(self, app: &App) -> Result<ExitCode, Failure> {
        if let Some(file) = &self.undo {
            return fix::undo(app, file).map(|()| ExitCode::SUCCESS);
        }
        let config = app.config()?;
        let mut findings = app.output.during(SEARCHING, || Findings::all(&finder(&config), &self.paths))?;
        let fixed = match self.fix && !findings.keys.is_empty() {
            true => fix::fix(app, &config, &mut findings, parse_ttl(&self.ttl)?, || unlock::open(app))?,
            false => None,
        };
        app.output.data(&document(&findings, fixed.as_ref()), || text(&findings, self.fix));
        tell(app, &findings, fixed.as_ref(), self.fix);
        Ok(if findings.left() == 0 { ExitCode::SUCCESS } else { ExitCode::from(Exit::Found as u8) })
    }
}

fn document(findings: &Findings, fixed: Option<&fix::Fixed>) -> Value {
    let passed_over: Vec<Value> = findings
        .passed_over
        .iter()
        .map(|(path, reason)| json!({ "path": path.display().to_string(), "reason": reason }))
        .collect();
    json!({
        "keys": findings.keys.iter().map(places::Finding::document).collect::<Vec<_>>(),
        "found": findings.keys.len(), "left": findings.left(), "files": findings.files,
        "passed_over": passed_over,
        "undo": fixed.map(|fixed| fixed.undo.display().to_string()),
        "capability": fixed.map(|fixed| fixed.capability.as_str()),
        "set": fixed.map(|fixed| &fixed.set),
    })
}

/// Keys that lie in files where they usually are, for whoever does something else and comes upon them.
pub(crate) struct InFiles(Findings);

impl InFiles {
    pub(crate) fn find(config: &Config) -> Result<Self, Failure> {
        let mut findings = Findings::all(&finder(config), &[])?;
        findings.keys.retain(|key| key.place != places::Place::Environment);
        Ok(Self(findings))
    }

    pub(crate) fn count(&self) -> usize {
        self.0.keys.len()
    }

    /// Where they are, in few words.
    pub(crate) fn places(&self) -> String {
        let places: BTreeSet<String> = self.0.keys.iter().map(places::Finding::location).collect();
        let mut named: Vec<&str> = places.iter().take(NAMED_MAX).map(String::as_str).collect();
        let more = format!("{} more", places.len().saturating_sub(NAMED_MAX));
        if places.len() > NAMED_MAX {
            named.push(&more);
        }
        named.join(", ")
    }

    /// Does with them what `scan --fix` does, and tells of it; answers the document of that.
    pub(crate) fn fix(
        mut self,
        app: &App,
        config: &Config,
        open: impl FnOnce() -> Result<Vault, Failure>,
    ) -> Result<Value, Failure> {
        let fixed = fix::fix(app, config, &mut self.0, parse_ttl(TTL)?, open)?;
        if !app.output.is_json {
            app.output.text(&text(&self.0, true));
        }
        tell(app, &self.0, fixed.as_ref(), true);
        Ok(document(&self.0, fixed.as_ref()))
    }
}

/// Whether a text holds a key of a provider.
pub(crate) fn holds_key(config: &Config, text: &[u8]) -> bool {
    !finder(config).find(text).is_empty()
}

/// What to look for: not for canaries, which are meant to be found by others.
fn finder(config: &Config) -> Finder {
    // Without a database there are none.
    let canaries =
        Store::open_existing(&config.logging.db_path).and_then(|store| store.canaries()).unwrap_or_default();
    let marks = canaries.iter().flat_map(|known| known.canary.marks().map(str::to_owned));
    Finder::new(config, marks.collect::<HashSet<_>>())
}

fn text(findings: &Findings, is_fixed: bool) -> String {
    let row = |key: &places::Finding| {
        let mut row = vec![
            key.provider.to_string(),
            key.masked(),
            key.location(),
            key.name.clone().unwrap_or_else(|| "-".to_owned()),
        ];
        if is_fixed {
            let reason = key.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
            row.push(format!("{}{reason}", key.status));
        }
        row
    };
    let columns = if is_fixed { &COLUMNS[..] } else { &COLUMNS[..4] };
    let when_empty = format!("no key lies around in {} files and the environment", findings.files);
    Columns::table(columns, &findings.keys.iter().map(row).collect::<Vec<_>>(), &when_empty)
}

fn tell(app: &App, findings: &Findings, fixed: Option<&fix::Fixed>, wants_fix: bool) {
    for (path, reason) in findings.passed_over.iter().take(PASSED_OVER_TOLD) {
        app.output.note(&format!("{} was not looked at: it {reason}", path.display()));
    }
    if let Some(more) = findings.passed_over.len().checked_sub(PASSED_OVER_TOLD).filter(|more| *more > 0) {
        app.output.note(&format!("{more} more were not looked at; --json names them"));
    }
    if let Some(fixed) = fixed {
        for (name, value) in &fixed.set {
            app.output
                .note(&format!("what reads its capability there needs the address too: {name}={value}"));
        }
        app.output.note("an agent's own file gets it by: tokfence setup AGENT");
        app.output.note(&format!("take it back with: tokfence scan --undo {}", fixed.undo.display()));
    } else if !findings.keys.is_empty() && !wants_fix {
        app.output
            .note("tokfence scan --fix moves keys from files into the vault; rotate one that others saw");
    }
}
