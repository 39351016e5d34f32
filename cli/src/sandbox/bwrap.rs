//! A plan as arguments for Bubblewrap, and Bubblewrap run.

use std::ffi::OsString;
use std::io::{self, PipeReader, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::io::{FdFlags, fcntl_setfd};

use super::plan::{Access, Plan};
use super::{OURS, seccomp};
use crate::app::App;
use crate::commands::inside;
use crate::failure::{Exit, Failure};
use crate::relay::Way;

const PROGRAM: &str = "bwrap";
/// Begins another program with these signals ignored, as it then goes on to do; whoever wants them asks for them.
/// What a terminal sends to everybody in the foreground would otherwise end the sandbox around its command.
const DEAF: &str = r#"trap "" HUP INT QUIT TERM; exec "$@""#;

/// The socket that leads to the gateway, in the sandbox.
pub(super) fn door() -> PathBuf {
    Path::new(OURS).join("gateway.sock")
}

fn our_program() -> PathBuf {
    Path::new(OURS).join("tokfence")
}

/// Everything but what differs from run to run.
pub(super) fn arguments(plan: &Plan, program: &Path) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = [
        // A user, processes, names, a network and shared memory of its own; the rights of nobody.
        "--unshare-all",
        "--cap-drop",
        "ALL",
        "--die-with-parent",
        "--ro-bind",
        "/",
        "/",
        "--dev",
        "/dev",
        "--proc",
        "/proc",
    ]
    .map(OsString::from)
    .to_vec();
    if !seccomp::IS_KNOWN {
        arguments.push("--new-session".into());
    }
    let mut add = |words: &[&str], paths: &[&Path]| {
        arguments.extend(words.iter().map(OsString::from));
        arguments.extend(paths.iter().map(|path| path.as_os_str().to_owned()));
    };
    for (path, access) in &plan.rules {
        match access {
            Access::Hidden if path.is_dir() => add(&["--perms", "0500", "--tmpfs"], &[path]),
            Access::Hidden => add(&["--ro-bind", "/dev/null"], &[path]),
            Access::Fresh => add(&["--perms", "1777", "--tmpfs"], &[path]),
            Access::Read => add(&["--ro-bind"], &[path, path]),
            Access::Write => add(&["--bind"], &[path, path]),
        }
    }
    add(&["--ro-bind"], &[program, &our_program()]);
    add(&["--chdir"], &[&plan.working_dir]);
    arguments
}

/// The way out for one run.
pub(super) fn bind_door(outside: &Path) -> [OsString; 3] {
    ["--ro-bind".into(), outside.as_os_str().to_owned(), door().into()]
}

/// What is run in the sandbox before the command, which follows.
pub(super) fn inside(app: &App, way: &Way) -> Vec<OsString> {
    let mut words: Vec<OsString> = vec!["--".into(), our_program().into()];
    words.extend(app.output.is_json.then(|| "--json".into()));
    words.extend(["inside", "--way", &way.to_string(), "--"].map(OsString::from));
    words
}

/// Makes the sandbox once, for nothing: what a machine does not allow is told before anything begins.
pub(super) fn check(arguments: &[OsString]) -> Result<(), Failure> {
    let mut arguments = arguments.to_vec();
    arguments.extend(["--".into(), our_program().into(), "--version".into()]);
    let mut command = command(arguments)?;
    command.command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let output = command.spawn()?.wait_with_output();
    let output = output.map_err(|error| Failure::failed("try the sandbox", &error))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let reason = said.lines().last().unwrap_or("it said nothing").trim_start_matches("bwrap: ");
    Err(unavailable(format!("no sandbox can be made: {reason}")).with_hint(hint(reason)))
}

/// What to do about a machine that makes no sandbox.
fn hint(reason: &str) -> &'static str {
    let is_namespace = ["namespace", "uid map", "Operation not permitted", "RTM_NEWADDR"];
    if is_namespace.iter().any(|part| reason.contains(part)) {
        "users must be allowed to make namespaces: see docs/sandbox.md, \"When it cannot be made\""
    } else {
        "docs/sandbox.md, \"When it cannot be made\""
    }
}

fn unavailable(message: String) -> Failure {
    Failure::new(Exit::Failed, "sandbox_unavailable", message)
}

/// Bubblewrap with a filter for system calls that it reads from a pipe.
pub(super) struct Bubblewrap {
    pub(super) command: Command,
    /// Inherited; it must be open until Bubblewrap has been started.
    _filter: Option<PipeReader>,
}

/// Bubblewrap with these arguments.
pub(super) fn command(arguments: Vec<OsString>) -> Result<Bubblewrap, Failure> {
    if cfg!(not(target_os = "linux")) {
        return Err(unavailable("a sandbox needs Linux".to_owned()).with_hint("tokfence launch"));
    }
    let program = in_path(PROGRAM).ok_or_else(|| {
        let failure = unavailable("a sandbox needs Bubblewrap, and there is no `bwrap`".to_owned());
        failure.with_hint("install the package `bubblewrap`")
    })?;
    let mut command = Command::new("sh");
    command.args(["-c", DEAF, "tokfence"]).arg(program);
    let filter = seccomp::IS_KNOWN.then(inherited_filter).transpose();
    let filter = filter.map_err(|error| Failure::failed("hand the filter on", &error))?;
    if let Some(filter) = &filter {
        command.args(["--seccomp", &filter.as_raw_fd().to_string()]);
    }
    command.args(arguments);
    Ok(Bubblewrap { command, _filter: filter })
}

fn inherited_filter() -> io::Result<PipeReader> {
    let (reader, mut writer) = io::pipe()?;
    // It fits into a pipe whole.
    writer.write_all(&seccomp::filter())?;
    fcntl_setfd(&reader, FdFlags::empty())?;
    Ok(reader)
}

/// A program of this name, as a shell would find it.
fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}

impl Bubblewrap {
    pub(super) fn spawn(mut self) -> Result<Child, Failure> {
        inside::spawn(&mut self.command)
    }
}
