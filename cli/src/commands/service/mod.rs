//! `service`: the gateway as a service that starts by itself: of one user, or of the machine under a user of its own.

mod launchd;
mod systemd;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::{Args, Subcommand};
use serde_json::json;
use storage::AuditAction;

use crate::app::App;
use crate::failure::{Exit, Failure};

#[derive(Debug, Subcommand)]
pub(crate) enum Service {
    /// Write the service and start it; says what to do next
    Install(Install),
    /// Stop the service and remove what `install` wrote; keys, log and configuration stay
    Uninstall(Which),
    /// Tell whether the service is installed and runs; exits 3 when it does not
    Status(Which),
}

#[derive(Debug, Args)]
pub(crate) struct Install {
    #[command(flatten)]
    which: Which,
    /// Print what would be written, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Write it, and leave starting it to you
    #[arg(long)]
    no_start: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Which {
    /// A service of the machine under a user of its own, from which even programs of your user get no key
    #[arg(long)]
    system: bool,
    /// The folder that stands for `/`, to prepare an image
    #[arg(long, value_name = "DIR", default_value = "/", requires = "system")]
    root: PathBuf,
}

/// A file that belongs to a service.
struct ServiceFile {
    path: PathBuf,
    text: String,
    /// Whether it is its owner's from then on: it is neither replaced nor removed.
    is_settings: bool,
}

/// What a service consists of, and how its supervisor is told.
struct Plan {
    files: Vec<ServiceFile>,
    /// After the files are written.
    register: Vec<Vec<String>>,
    start: Vec<Vec<String>>,
    /// Before the files are removed.
    stop: Vec<Vec<String>>,
    /// After they are removed.
    forget: Vec<Vec<String>>,
    is_active: Vec<String>,
    /// What is left to do.
    next: Vec<String>,
}

impl Service {
    pub(crate) fn run(self, app: &App) -> Result<std::process::ExitCode, Failure> {
        match self {
            Self::Install(install) => install.run(app).map(|()| std::process::ExitCode::SUCCESS),
            Self::Uninstall(which) => which.uninstall(app).map(|()| std::process::ExitCode::SUCCESS),
            Self::Status(which) => which.status(app),
        }
    }
}

impl Install {
    fn run(self, app: &App) -> Result<(), Failure> {
        let plan = self.which.plan(app)?;
        let paths: Vec<String> = plan.files.iter().map(|file| file.path.display().to_string()).collect();
        if self.dry_run {
            let text = || {
                plan.files.iter().map(|file| format!("# {}\n{}\n", file.path.display(), file.text)).collect()
            };
            let texts: Vec<_> =
                plan.files.iter().map(|file| json!({ "path": file.path, "text": file.text })).collect();
            app.output.data(&json!({ "files": texts }), text);
            return Ok(());
        }
        for file in &plan.files {
            file.write()?;
        }
        let start = if self.no_start { &[][..] } else { &plan.start };
        app.output.during("waiting for the service manager", || {
            plan.register.iter().chain(start).try_for_each(|command| tell(command))
        })?;
        let detail = json!({ "files": paths, "started": !self.no_start });
        app.record(AuditAction::ServiceInstall, self.which.name(), detail);
        let document =
            json!({ "installed": true, "started": !self.no_start, "files": paths, "next": plan.next });
        app.output.done(&document, || {
            let done = if self.no_start { "installed" } else { "installed and started" };
            format!("{done}: {}", paths.join(", "))
        });
        plan.next.iter().for_each(|step| app.output.note(step));
        Ok(())
    }
}

impl Which {
    /// Whose service it is, as the audit log tells it.
    fn name(&self) -> &'static str {
        if self.system { "system" } else { "user" }
    }

    fn plan(&self, app: &App) -> Result<Plan, Failure> {
        match (self.system, cfg!(target_os = "macos")) {
            (true, false) => systemd::system(app, &self.root),
            (false, false) => systemd::user(app),
            (false, true) => launchd::user(app),
            (true, true) => Err(Failure::usage("`--system` is for Linux with systemd")),
        }
    }

    fn uninstall(&self, app: &App) -> Result<(), Failure> {
        let plan = self.plan(app)?;
        let written: Vec<&ServiceFile> =
            plan.files.iter().filter(|file| !file.is_settings && file.path.exists()).collect();
        if written.is_empty() {
            let failure = Failure::new(Exit::NotFound, "no_service", "there is no service to remove");
            return Err(failure.with_hint("tokfence service install"));
        }
        // One that does not run cannot be stopped, and is removed all the same.
        let faults: Vec<Failure> = plan.stop.iter().filter_map(|command| tell(command).err()).collect();
        for file in &written {
            fs::remove_file(&file.path).map_err(|error| failed("remove", &file.path, &error))?;
        }
        plan.forget.iter().try_for_each(|command| tell(command))?;
        faults.iter().for_each(|fault| app.output.warn(&fault.message));
        app.record(AuditAction::ServiceUninstall, self.name(), json!({}));
        app.output
            .done(&json!({ "installed": false }), || "removed; keys, log and configuration stay".to_owned());
        Ok(())
    }

    fn status(&self, app: &App) -> Result<std::process::ExitCode, Failure> {
        let plan = self.plan(app)?;
        let is_installed = plan.files.iter().filter(|file| !file.is_settings).all(|file| file.path.exists());
        let is_active = is_installed && tell(&plan.is_active).is_ok();
        app.output.data(&json!({ "installed": is_installed, "active": is_active }), || {
            match (is_installed, is_active) {
                (true, true) => "installed, and runs",
                (true, false) => "installed, and does not run",
                (false, _) => "not installed",
            }
            .to_owned()
        });
        let exit = if is_active { 0 } else { Exit::NotRunning as u8 };
        Ok(std::process::ExitCode::from(exit))
    }
}

impl ServiceFile {
    /// Writes the file whole or not at all. What is settings and there already is left alone.
    fn write(&self) -> Result<(), Failure> {
        if self.is_settings && self.path.exists() {
            return Ok(());
        }
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        let write = || {
            fs::create_dir_all(folder)?;
            let mut draft = tempfile::NamedTempFile::new_in(folder)?;
            std::io::Write::write_all(&mut draft, self.text.as_bytes())?;
            let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
            fs::set_permissions(draft.path(), readable)?;
            draft.persist(&self.path).map(drop).map_err(|error| error.error)
        };
        write().map_err(|error| failed("write", &self.path, &error))
    }
}

fn failed(doing: &str, path: &Path, error: &std::io::Error) -> Failure {
    let failure = Failure::failed(&format!("{doing} {}", path.display()), error);
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => {
            failure.with_hint("a service of the machine is installed by root")
        }
        _ => failure,
    }
}

/// Tells a supervisor something, and passes on what it says when it cannot.
fn tell(command: &[String]) -> Result<(), Failure> {
    let [program, args @ ..] = command else { return Ok(()) };
    let line = command.join(" ");
    let output = Command::new(program)
        .args(args)
        .output()
        .map_err(|error| Failure::failed(&format!("run `{line}`"), &error))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Failure::new(Exit::Failed, "service_failed", format!("`{line}` failed: {said}")))
}

/// Words of a command line, as they are told to a supervisor.
fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// The program that a service starts. One that others can replace, or that a cleanup removes, is none.
pub(super) fn installed_program() -> Result<PathBuf, Failure> {
    let program = super::start::this_program()?;
    // Cargo marks the folder that it builds in.
    let is_build = program.ancestors().skip(1).take(3).any(|folder| folder.join("CACHEDIR.TAG").exists());
    if is_build && !cfg!(debug_assertions) {
        let message = format!("{} is a build, which the next one replaces", program.display());
        let failure = Failure::new(Exit::Unsafe, "unsafe_program", message);
        return Err(failure.with_hint("cargo install --path cli, and run that"));
    }
    Ok(program)
}

/// The folder of this user.
pub(super) fn home_folder() -> Result<PathBuf, Failure> {
    let home = std::env::var_os("HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    home.ok_or_else(|| Failure::usage("HOME is not set"))
}
