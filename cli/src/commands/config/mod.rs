//! `config`: what is configured, and whether it can be.

mod settings;

use std::process::ExitCode;

use clap::Subcommand;
use gateway::config::{Config as Meaning, ConfigError, Fault};
use serde_json::{Value, json};

use crate::app::App;
use crate::columns::{Column, Columns};
use crate::commands::provider::read_document;
use crate::failure::{Exit, Failure};
use settings::{Setting, settings};

const COLUMNS: [Column; 3] = [Column::Left("key"), Column::Left("value"), Column::SpareLeft("from")];

#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum Config {
    /// Every value that is in force, and where it is from
    Show,
    /// Check the file and tell everything that is wrong with it
    Check,
    /// Where the file is
    Path,
}

impl Config {
    pub(crate) fn run(self, app: &App) -> Result<ExitCode, Failure> {
        match self {
            Self::Show => show(app)?,
            Self::Check => return check(app),
            Self::Path => {
                let path = app.config_path.display().to_string();
                app.output
                    .data(&json!({ "path": path, "exists": app.config_path.exists() }), || path.clone());
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn show(app: &App) -> Result<(), Failure> {
    let config = app.config()?;
    let settings = settings(&config, &read_document(&app.config_path)?);
    let document = json!({
        "path": app.config_path.display().to_string(),
        "exists": app.config_path.exists(),
        "values": settings.iter().map(Setting::document).collect::<Vec<_>>(),
        "notes": config.notes,
    });
    app.output.data(&document, || {
        let rows = settings
            .iter()
            .map(|setting| vec![setting.key.clone(), setting.value.to_string(), setting.source().to_owned()]);
        Columns::table(&COLUMNS, &rows.collect::<Vec<_>>(), "")
    });
    config.notes.iter().for_each(|note| app.output.note(note));
    Ok(())
}

/// A file with faults is an answer as good as any, so it is data; the exit code tells scripts.
fn check(app: &App) -> Result<ExitCode, Failure> {
    let (notes, faults) = match Meaning::load(&app.config_path, app.home.dir()) {
        Ok(config) => (config.notes, Vec::new()),
        Err(ConfigError::Faults { faults, .. }) => (Vec::new(), faults),
        Err(error @ ConfigError::Io { .. }) => return Err(error.into()),
    };
    let (path, exists) = (app.config_path.display().to_string(), app.config_path.exists());
    let document = json!({
        "path": path,
        "exists": exists,
        "valid": faults.is_empty(),
        "faults": faults.iter().map(fault_document).collect::<Vec<_>>(),
        "notes": notes,
    });
    app.output.data(&document, || match (faults.as_slice(), exists) {
        ([], true) => format!("{path} is valid"),
        ([], false) => format!("{path} does not exist; everything is as by default"),
        (faults, _) => faults.iter().map(|fault| format!("{path}: {fault}\n")).collect(),
    });
    notes.iter().for_each(|note| app.output.note(note));
    Ok(if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(Exit::Failed as u8) })
}

fn fault_document(fault: &Fault) -> Value {
    let line = (fault.line > 0).then_some(fault.line);
    json!({ "line": line, "key": fault.key, "message": fault.message })
}
