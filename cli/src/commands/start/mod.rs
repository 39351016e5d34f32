//! `start` and `unlock`: a daemon in the foreground or detached, with its keys or without.

mod detached;

use std::convert::Infallible;
use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use clap::Args;
use gateway::control::{self, UnlockWith};
use gateway::{ServeOptions, Serving, serve};
use sd_notify::NotifyState;
use serde_json::json;
use storage::{AuditAction, AuditNote};
use vault::{Secret, Vault};

use crate::app::App;
use crate::daemon_log;
use crate::failure::Failure;
use crate::prompt;
use crate::shield;
use crate::unlock::{self, PASSPHRASE_VARIABLE, Source};
pub(crate) use detached::{start_detached, wait_until_it_serves};

/// Variables that would change whom the gateway trusts or where it connects. Nobody set them for it.
const IGNORED_VARIABLES: [&str; 9] = [
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "SSLKEYLOGFILE",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
];
/// What is wrong with a vault that is no vault any more. The daemon serves without its keys then: it can be killed, and
/// the providers that need no key are served.
const DAMAGES: [&str; 6] = [
    "vault_truncated",
    "not_a_vault",
    "vault_malformed",
    "unsupported_version",
    "cost_out_of_bounds",
    "vault_damaged",
];
/// No passphrase is longer.
const PIPED_BYTES_MAX: usize = 32 * 1024;

#[derive(Debug, Args)]
pub(crate) struct Start {
    /// Run in the background; returns once requests are served
    #[arg(short = 'd', long)]
    pub(crate) detach: bool,
    /// Read the vault's passphrase from this file descriptor
    #[arg(long, value_name = "N")]
    pub(crate) passphrase_fd: Option<u32>,
    /// The process that `-d` starts
    #[arg(long, hide = true, conflicts_with = "detach")]
    background: bool,
    /// The process that a running daemon starts to take its place; at its standard input is what is handed over
    #[arg(long, hide = true, conflicts_with_all = ["detach", "passphrase_fd"])]
    take_over: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Unlock {
    /// Read the passphrase from this file descriptor
    #[arg(long, value_name = "N")]
    passphrase_fd: Option<u32>,
    /// Use the recovery code, which is asked for
    #[arg(long)]
    recovery: bool,
}

impl Start {
    pub(crate) fn run(&self, app: &App) -> Result<(), Failure> {
        if self.detach {
            app.home.prepare()?;
            // One that is damaged is told of by the child.
            let source = self.find_source(app).or_else(|failure| unless_damaged(failure).map(|_| None));
            return start_detached(app, source?.as_ref());
        }
        self.leave_variables()?;
        shield::daemon()?;
        app.home.prepare()?;
        if self.background {
            // A session of its own: the terminal it was started from can go.
            rustix::process::setsid().map_err(|error| Failure::failed("leave the terminal", &error))?;
            daemon_log::to_file(&app.home.log_file())?;
        } else {
            daemon_log::to_stderr();
        }
        let (vault, fault) = match self.open_vault(app) {
            Ok(vault) => (vault, None),
            Err(failure) => (None, Some(unless_damaged(failure)?)),
        };
        let options = ServeOptions {
            home: app.home.clone(),
            config_path: app.config_path.clone(),
            vault,
            predecessor: if self.take_over { Some(link_to_predecessor()?) } else { None },
            successor_args: self.successor_args(app),
            watch_args: watch_args(app),
            is_detached: self.background,
        };
        Ok(serve(options, |serving| {
            let notes = [Vec::from_iter(fault), serving.notes.clone()].concat();
            self.announce(app, &Serving { notes, ..serving.clone() });
        })?)
    }

    /// With what a daemon like this one is started in its place.
    fn successor_args(&self, app: &App) -> Vec<OsString> {
        let background = if self.background { &["--json", "start", "--background"][..] } else { &["start"] };
        let mut args = daemon_args(app);
        args.extend(background.iter().chain(&["--take-over"]).map(OsString::from));
        args
    }

    /// Tells that requests are served. Who is put into another's place is told of by whoever asked for it.
    fn announce(&self, app: &App, serving: &Serving) {
        let document = json!({
            "address": serving.address,
            "socket": serving.socket.display().to_string(),
            "pid": std::process::id(),
            "state": serving.state,
            "notes": serving.notes,
        });
        if !self.take_over {
            record_start(app, serving);
        }
        if self.background {
            app.output.line(&document, String::new);
            return;
        }
        app.output.line(&document, || format!("serving http://{}", serving.address));
        tell_supervisor();
        if serving.is_locked {
            app.output.note(unlock::way_to_keys(app));
        }
        if serving.state == "killed" {
            app.output.warn(KILLED);
        }
        serving.notes.iter().for_each(|note| app.output.note(note));
    }

    /// The vault, if its secret is at hand.
    fn open_vault(&self, app: &App) -> Result<Option<Vault>, Failure> {
        if self.take_over {
            // Its predecessor hands the vault over.
            return Ok(None);
        }
        match self.find_source(app)? {
            // Without a descriptor it came from the environment, or from a person.
            Some(Source::Passphrase(passphrase)) if std::env::var_os(PASSPHRASE_VARIABLE).is_some() => {
                Err(leave_passphrase(&passphrase))
            }
            source => source.map(|source| unlock::open_with(app, &source)).transpose(),
        }
    }

    /// Leaves what must not be in the environment of a daemon. A passphrase that came another way is not needed there.
    fn leave_variables(&self) -> Result<(), Failure> {
        leave_ignored_variables()?;
        if self.passphrase_fd.is_some() { leave_variables(&[PASSPHRASE_VARIABLE]) } else { Ok(()) }
    }

    /// What opens the vault, if there is one. In the background nobody is asked: what `-d` knew came with the
    /// descriptor.
    fn find_source(&self, app: &App) -> Result<Option<Source>, Failure> {
        if app.home.vault().exists() { unlock::find_source(app, self.passphrase_fd) } else { Ok(None) }
    }
}

impl Unlock {
    pub(crate) fn run(&self, app: &App) -> Result<(), Failure> {
        app.daemon_status()?;
        let with = if self.recovery {
            UnlockWith::Recovery(prompt::secret("Recovery code")?.expose().clone())
        } else {
            match unlock::find_source(app, self.passphrase_fd)? {
                Some(Source::Passphrase(passphrase)) => UnlockWith::Passphrase(passphrase.expose().clone()),
                Some(Source::Keyring) => UnlockWith::Keyring,
                None => UnlockWith::Passphrase(prompt::secret("Passphrase of the vault")?.expose().clone()),
            }
        };
        let by = match with {
            UnlockWith::Recovery(_) => "recovery code",
            UnlockWith::Passphrase(_) => "passphrase",
            UnlockWith::Keyring => "keyring",
        };
        app.output.during(unlock::OPENING, || app.ask(&control::Command::Unlock { with }))?;
        app.record(AuditAction::Unlock, "gateway", json!({ "after": "unlocked", "with": by }));
        app.output.done(&json!({ "state": "ok" }), || "unlocked".to_owned());
        Ok(())
    }
}

/// What is said where a gateway starts that was killed before.
const KILLED: &str = "the kill switch is on; nothing is served until `tokfence unkill`";

/// The home and the configuration, as every process of this daemon is told them.
pub(crate) fn daemon_args(app: &App) -> Vec<OsString> {
    let (home, config) = (app.home.dir().as_os_str(), app.config_path.as_os_str());
    vec!["--home".into(), home.to_owned(), "--config".into(), config.to_owned()]
}

/// With what the daemon has accounts looked at.
fn watch_args(app: &App) -> Vec<OsString> {
    let mut args = daemon_args(app);
    args.extend(["--json", "watch", "--once", "--for-daemon"].map(OsString::from));
    args
}

/// The socket at whose other end the running daemon is.
fn link_to_predecessor() -> Result<UnixStream, Failure> {
    let link = std::io::stdin().as_fd().try_clone_to_owned();
    link.map(UnixStream::from).map_err(|error| Failure::failed("take over from a daemon", &error))
}

/// The file of the program that runs.
pub(crate) fn this_program() -> Result<PathBuf, Failure> {
    std::env::current_exe().map_err(|error| Failure::failed("find this program", &error))
}

/// Tells a service manager that waits for it that requests are served, and by whom: after an upgrade it is another process.
fn tell_supervisor() {
    let serving = [NotifyState::Ready, NotifyState::MainPid(std::process::id())];
    // Without one there is nobody to tell. The variable stays for a successor.
    if let Err(error) = sd_notify::notify(false, &serving) {
        tracing::warn!(%error, "the service manager was not told that requests are served");
    }
}

/// What the owner is told where the daemon starts without its keys because the vault is damaged.
///
/// # Errors
/// Every other failure.
fn unless_damaged(failure: Failure) -> Result<String, Failure> {
    if !DAMAGES.contains(&failure.code.as_str()) {
        return Err(failure);
    }
    let hint = failure.hint.map(|hint| format!("; {hint}")).unwrap_or_default();
    Ok(format!("the keys are not loaded: {}{hint}", failure.message))
}

fn record_start(app: &App, serving: &Serving) {
    let detail = json!({ "after": serving.state, "address": serving.address });
    let started = AuditNote::new(AuditAction::Start, "gateway", detail);
    if let Err(failure) = app.try_record(&started) {
        tracing::warn!(error = failure.message, "the audit log does not tell of this start");
    }
}

/// Begins anew without the variables that would change whom the gateway trusts: they cannot be taken out of a
/// process that runs, only left out of one that starts.
pub(crate) fn leave_ignored_variables() -> Result<(), Failure> {
    leave_variables(&IGNORED_VARIABLES)
}

fn leave_variables(names: &[&str]) -> Result<(), Failure> {
    if !names.iter().any(|name| std::env::var_os(name).is_some()) {
        return Ok(());
    }
    let mut command = this_command()?;
    for name in names {
        command.env_remove(name);
    }
    Err(Failure::failed("start anew with a clean environment", &command.exec()))
}

/// Begins anew without the passphrase in the environment, where it would stay readable as long as the daemon runs and
/// be handed on to what it starts. The new beginning reads it from a pipe in the place of standard input. Returns only
/// if that fails.
fn leave_passphrase(passphrase: &Secret<String>) -> Failure {
    let begin = || -> Result<Infallible, Failure> {
        let failed = |error: io::Error| Failure::failed("hand the passphrase on", &error);
        let (reader, writer) = io::pipe().map_err(failed)?;
        // A pipe holds 64 KiB without a reader.
        if passphrase.expose().len() > PIPED_BYTES_MAX {
            return Err(Failure::usage(format!("{PASSPHRASE_VARIABLE} is too long")));
        }
        prompt::write_secret(writer, passphrase).map_err(failed)?;
        let mut command = this_command()?;
        command.args(["--passphrase-fd", "0"]).stdin(reader).env_remove(PASSPHRASE_VARIABLE);
        Err(Failure::failed("start anew without the passphrase", &command.exec()))
    };
    match begin() {
        Ok(never) => match never {},
        Err(failure) => failure,
    }
}

/// This program with the arguments that it was given.
fn this_command() -> Result<Command, Failure> {
    let mut command = Command::new(this_program()?);
    command.args(std::env::args_os().skip(1));
    Ok(command)
}
