//! `doctor`: checks the installation and says how to mend what is wrong. Nothing is mended silently, and nothing
//! is unlocked.

mod files;
mod machine;

use std::process::ExitCode;

use clap::Args;
use gateway::config::Config;
use gateway::control::DaemonStatus;
use policy::TimestampUs;
use serde_json::{Value, json};
use storage::Store;

use crate::app::{App, now_us};
use crate::failure::{Exit, Failure};

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Connect to each provider that has a key as well; nothing is sent
    #[arg(long)]
    online: bool,
    /// Take the clock for right although it was once ahead; budgets and lifetimes go by it again
    #[arg(long)]
    accept_clock: bool,
}

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Check {
    name: &'static str,
    verdict: Verdict,
    message: String,
    hint: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Ok,
    /// It works, but not as well or as safely as it could.
    Warn,
    /// It does not work.
    Fail,
}

/// What the checks share. What could not be found out is as by default, and has a failed check of its own.
struct Findings {
    config: Config,
    daemon: Result<DaemonStatus, Failure>,
}

impl Doctor {
    pub(crate) fn run(self, app: &App) -> Result<ExitCode, Failure> {
        if self.accept_clock {
            machine::accept_clock(app)?;
        }
        let checks = app.output.during("looking at everything", || examine(app, self.online));
        let found = checks.iter().filter(|check| check.verdict != Verdict::Ok).count();
        let documents: Vec<Value> = checks.iter().map(Check::document).collect();
        app.output.data(&json!({ "checks": documents, "found": found }), || {
            let lines = checks.iter().map(Check::describe);
            let verdict = if found == 0 { "all is well".to_owned() } else { format!("found: {found}") };
            lines.chain([String::new(), verdict]).collect::<Vec<_>>().join("\n")
        });
        Ok(if found == 0 { ExitCode::SUCCESS } else { ExitCode::from(Exit::Found as u8) })
    }
}

fn examine(app: &App, online: bool) -> Vec<Check> {
    let config = app.config();
    let mut checks = vec![files::home(app), files::config(app, config.as_ref())];
    let as_by_default = || Config::parse("", app.home.dir()).expect("a configuration may be empty");
    let findings =
        Findings { config: config.unwrap_or_else(|_| as_by_default()), daemon: app.daemon_status() };
    checks.push(files::vault(app));
    checks.push(machine::keyring(app));
    checks.push(files::database(&findings));
    checks.push(machine::daemon(&findings));
    checks.push(machine::port(&findings));
    checks.extend(files::sockets(app, &findings));
    checks.push(files::others(app));
    checks.push(machine::clock(&gateway::embedded_prices().date, now_us(), latest_seen(&findings)));
    checks.push(machine::environment(&findings, std::env::vars_os()));
    checks.push(machine::keys(&findings));
    checks.push(machine::certificates(&machine::CERTIFICATES));
    if online {
        checks.extend(machine::online(&findings));
    }
    checks
}

/// The latest instant that the database has seen, if there is one.
fn latest_seen(findings: &Findings) -> Option<TimestampUs> {
    Store::open_existing(&findings.config.logging.db_path).and_then(|store| store.effective_now(0)).ok()
}

impl Check {
    fn new(name: &'static str, verdict: Verdict, message: impl Into<String>) -> Self {
        Self { name, verdict, message: message.into(), hint: None }
    }

    fn ok(name: &'static str, message: impl Into<String>) -> Self {
        Self::new(name, Verdict::Ok, message)
    }

    fn warn(name: &'static str, message: impl Into<String>) -> Self {
        Self::new(name, Verdict::Warn, message)
    }

    fn fail(name: &'static str, message: impl Into<String>) -> Self {
        Self::new(name, Verdict::Fail, message)
    }

    /// An error of ours, with its hint.
    fn failure(name: &'static str, failure: Failure) -> Self {
        Self { hint: failure.hint, ..Self::fail(name, failure.message) }
    }

    fn with_hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    fn document(&self) -> Value {
        json!({
            "name": self.name, "status": self.verdict.as_str(), "message": self.message, "hint": self.hint,
        })
    }

    fn describe(&self) -> String {
        let indent = " ".repeat(20);
        let message = self.message.replace('\n', &format!("\n{indent}"));
        let hint = self.hint.as_ref().map(|hint| format!("\n{indent}hint: {hint}")).unwrap_or_default();
        format!("{:<4}  {:<12}  {message}{hint}", self.verdict.as_str(), self.name)
    }
}

impl Verdict {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::{Color, Output};
    use gateway::Home;

    /// A home in a temporary folder, with nothing in it.
    pub(super) struct Place {
        pub(super) app: App,
        /// Removed when it is dropped.
        _folder: tempfile::TempDir,
    }

    impl Place {
        pub(super) fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let home = Home::new(folder.path().join("home"));
            home.prepare().unwrap();
            let output = Output { is_json: false, is_quiet: true, color: Color::Never };
            let command = "doctor".to_owned();
            Self { app: App { config_path: home.config(), home, output, command }, _folder: folder }
        }

        /// With a configuration that leaves the usual port alone.
        pub(super) fn findings(&self) -> Findings {
            let config = Config::parse("[daemon]\nport = 0\n", self.app.home.dir()).unwrap();
            Findings { config, daemon: self.app.daemon_status() }
        }
    }

    #[test]
    fn each_thing_is_checked_once() {
        let place = Place::new();
        let checks = examine(&place.app, false);
        let names: Vec<_> = checks.iter().map(|check| check.name).collect();
        let expected = "home config vault keyring database daemon port sockets files clock environment keys certificates";
        assert_eq!(names, expected.split_whitespace().collect::<Vec<_>>());
    }

    #[test]
    fn whatever_is_wrong_has_a_hint() {
        let place = Place::new();
        std::fs::write(place.app.home.config(), "prot = 1\n").unwrap();
        for check in examine(&place.app, true) {
            assert!(check.verdict == Verdict::Ok || check.hint.is_some(), "{check:?}");
        }
    }

    #[test]
    fn a_check_is_a_line_and_its_hint_another() {
        let check = Check::warn("daemon", "not running").with_hint("tokfence start -d");
        let expected = "warn  daemon        not running\n                    hint: tokfence start -d";
        assert_eq!(check.describe(), expected);
        let document = json!({
            "name": "daemon", "status": "warn", "message": "not running", "hint": "tokfence start -d",
        });
        assert_eq!(check.document(), document);
    }
}
