//! `start` and `unlock`: a daemon in the foreground or detached, with its keys or without.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use clap::Args;
use gateway::control::{self, UnlockWith};
use gateway::home::make_private_dir;
use gateway::{ServeOptions, Serving, serve};
use serde_json::{Value, json};
use vault::Vault;

use crate::app::App;
use crate::failure::{Exit, Failure};
use crate::prompt;
use crate::unlock::{self, PASSPHRASE_VARIABLE, Source};

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
const LOG_BYTES_MAX: u64 = 10 * 1024 * 1024;

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
            return start_detached(app, self.passphrase_fd);
        }
        leave_ignored_variables()?;
        app.home.prepare()?;
        if self.background {
            // A session of its own: the terminal it was started from can go.
            let _ = rustix::process::setsid();
            log_to_file(&app.home.log_file())?;
        } else {
            log_to_stderr();
        }
        let vault = self.open_vault(app)?;
        let options = ServeOptions { home: app.home.clone(), config_path: app.config_path.clone(), vault };
        let is_background = self.background;
        Ok(serve(options, |serving| announce(app, serving, is_background))?)
    }

    /// The vault, if its secret is at hand. In the background nobody is asked: what `-d` knew came with the
    /// descriptor.
    fn open_vault(&self, app: &App) -> Result<Option<Vault>, Failure> {
        if !app.home.vault().exists() {
            return Ok(None);
        }
        match unlock::find_source(app, self.passphrase_fd)? {
            Some(source) => unlock::open_with(app, &source).map(Some),
            None => Ok(None),
        }
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
        app.ask(&control::Command::Unlock { with })?;
        app.output.done(&json!({ "state": "ok" }), || "unlocked".to_owned());
        Ok(())
    }
}

/// Starts a daemon in the background and returns when it serves, or with the reason why it does not.
pub(crate) fn start_detached(app: &App, passphrase_fd: Option<u32>) -> Result<(), Failure> {
    app.home.prepare()?;
    let source = if app.home.vault().exists() { unlock::find_source(app, passphrase_fd)? } else { None };
    let mut child = spawn(app, source.as_ref())?;
    if let (Some(mut pipe), Some(Source::Passphrase(passphrase))) = (child.stdin.take(), &source) {
        // A child that has ended already says why on its standard error, which is read below.
        let _ = pipe.write_all(passphrase.expose().as_bytes());
    }
    let mut ready = String::new();
    if let Some(pipe) = child.stdout.take() {
        // Without a line the child has ended, and its standard error says why.
        let _ = BufReader::new(pipe).read_line(&mut ready);
    }
    let Ok(document) = serde_json::from_str::<Value>(&ready) else { return Err(why_it_ended(child)) };
    let text = |key: &str| document[key].as_str().unwrap_or_default().to_owned();
    app.output.done(&document, || {
        let keys = if text("state") == "locked" { "; locked until `tokfence unlock`" } else { "" };
        format!("serving http://{} (process {}){keys}", text("address"), document["pid"])
    });
    for note in document["notes"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        app.output.note(note);
    }
    Ok(())
}

fn spawn(app: &App, source: Option<&Source>) -> Result<Child, Failure> {
    let program = std::env::current_exe().map_err(|error| Failure::failed("find this program", &error))?;
    let mut command = Command::new(program);
    command.arg("--home").arg(app.home.dir()).arg("--config").arg(&app.config_path).args([
        "--json",
        "start",
        "--background",
    ]);
    if let Some(Source::Passphrase(_)) = source {
        command.args(["--passphrase-fd", "0"]);
    }
    for variable in IGNORED_VARIABLES.iter().chain([&PASSPHRASE_VARIABLE]) {
        command.env_remove(variable);
    }
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .current_dir("/")
        .process_group(0);
    command.spawn().map_err(|error| Failure::failed("start the daemon", &error))
}

/// The failure that a child wrote to its standard error before it ended.
fn why_it_ended(mut child: Child) -> Failure {
    let mut text = String::new();
    if let Some(mut pipe) = child.stderr.take() {
        let _ = pipe.read_to_string(&mut text);
    }
    let code = child.wait().ok().and_then(|status| status.code());
    let document: Value = serde_json::from_str(text.trim()).unwrap_or_default();
    let field = |key: &str| document["error"][key].as_str().map(str::to_owned);
    let exit = match code {
        Some(4) => Exit::Locked,
        Some(7) => Exit::Unsafe,
        _ => Exit::Failed,
    };
    Failure {
        exit,
        code: field("code").unwrap_or_else(|| "start_failed".to_owned()),
        message: field("message").unwrap_or_else(|| format!("the daemon ended at once: {}", text.trim())),
        hint: field("hint"),
    }
}

fn announce(app: &App, serving: &Serving, is_background: bool) {
    let document = json!({
        "address": serving.address,
        "socket": serving.socket.display().to_string(),
        "pid": std::process::id(),
        "state": if serving.is_locked { "locked" } else { "ok" },
        "notes": serving.notes,
    });
    if is_background {
        app.output.line(&document, String::new);
        return;
    }
    app.output.line(&document, || format!("serving http://{}", serving.address));
    if serving.is_locked && !app.output.is_json {
        app.output.note("the keys are locked; run `tokfence unlock`");
    }
    if !app.output.is_json {
        serving.notes.iter().for_each(|note| app.output.note(note));
    }
}

/// Begins anew without the variables that would change whom the gateway trusts: they cannot be taken out of a
/// process that runs, only left out of one that starts.
fn leave_ignored_variables() -> Result<(), Failure> {
    if !IGNORED_VARIABLES.iter().any(|variable| std::env::var_os(variable).is_some()) {
        return Ok(());
    }
    let program = std::env::current_exe().map_err(|error| Failure::failed("find this program", &error))?;
    let mut command = Command::new(program);
    command.args(std::env::args_os().skip(1));
    for variable in IGNORED_VARIABLES {
        command.env_remove(variable);
    }
    Err(Failure::failed("start anew with a clean environment", &command.exec()))
}

fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::new("info,pingora_proxy=warn,pingora_core=warn");
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A logger that is set already is the one a test wants.
    let _ = subscriber.try_init();
}

fn log_to_file(path: &Path) -> Result<(), Failure> {
    let failed = |error| Failure::failed(&format!("open {}", path.display()), &error);
    if let Some(folder) = path.parent() {
        make_private_dir(folder)?;
    }
    if std::fs::metadata(path).is_ok_and(|file| file.len() > LOG_BYTES_MAX) {
        std::fs::rename(path, path.with_extension("log.1")).map_err(failed)?;
    }
    let file: File = OpenOptions::new().create(true).append(true).mode(0o600).open(path).map_err(failed)?;
    let filter = tracing_subscriber::EnvFilter::new("info,pingora_proxy=warn,pingora_core=warn");
    let subscriber =
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(Mutex::new(file));
    let _ = subscriber.try_init();
    std::panic::set_hook(Box::new(|panic| {
        // The place of a panic is ours; its message may hold what a caller sent.
        let place = panic.location().map_or_else(String::new, ToString::to_string);
        tracing::error!(place, "a request ended in a panic");
    }));
    Ok(())
}
