//! A sandbox for a command: no network but the gateway, no process of the machine, the working folder to write, and none
//! of the places where secrets are kept.
//!
//! ```text
//!  tokfence run ──── listens on control/run-ID.sock, carries to the gateway
//!    └ bwrap         namespaces and mounts; signals do not end it
//!        └ tokfence inside      listens on the gateway's address, in a network of its own, carries to that socket
//!            └ the command
//! ```
//!
//! What is where is decided in `plan`, what is hidden in `secrets`, and `bwrap` makes it so. Bubblewrap is what Flatpak
//! runs its applications in; the rules of the kernel that this stands on are not the place for code of one's own.

mod bwrap;
mod plan;
mod secrets;
mod seccomp;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command};

use clap::Args;
use policy::CapabilityId;
use rustix::process::{Pid, Signal};

use crate::app::App;
use crate::child;
use crate::commands::start::this_program;
use crate::failure::{Exit, Failure};
use crate::relay::{self, Endpoint, Way};
use plan::Plan;

/// Where the folder of our own things is in a sandbox.
const OURS: &str = "/run/tokfence";

/// Variables that lead out of the sandbox, to what is not there, or to who is outside. A proxy would be asked for the
/// gateway's own address.
const LEADS_OUT: &[&str] = &[
    "SSH_AUTH_SOCK",
    "SSH_AGENT_PID",
    "GPG_AGENT_INFO",
    "DBUS_SESSION_BUS_ADDRESS",
    "DBUS_SYSTEM_BUS_ADDRESS",
    "XDG_RUNTIME_DIR",
    "DISPLAY",
    "WAYLAND_DISPLAY",
    "XAUTHORITY",
    "DOCKER_HOST",
    "CONTAINER_HOST",
    "KUBECONFIG",
    "TMPDIR",
    "TOKFENCE_HOME",
    "TOKFENCE_CONFIG",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NOTIFY_SOCKET",
];

/// Whether a command runs in a sandbox, and what it may do there.
#[derive(Debug, Args)]
pub(crate) struct SandboxArgs {
    /// Run the command where nothing can be reached but the gateway, nothing but this folder can be written, and keys and
    /// logins in your home cannot be read (Linux, with bubblewrap)
    #[arg(long)]
    sandbox: bool,
    /// In the sandbox, let the command read this as well; may be repeated
    #[arg(long, value_name = "PATH", requires = "sandbox")]
    allow_read: Vec<PathBuf>,
    /// In the sandbox, let the command write this as well; may be repeated
    #[arg(long, value_name = "PATH", requires = "sandbox")]
    allow_write: Vec<PathBuf>,
}

/// A sandbox that can be made: it was tried.
#[derive(Debug)]
pub(crate) struct Sandbox {
    arguments: Vec<std::ffi::OsString>,
    /// The gateway, for who is outside.
    gateway: PathBuf,
    /// Where the command calls the gateway.
    address: SocketAddr,
}

/// The socket of one run. It goes with the run; should that be killed, the lock beside it tells that it may go.
#[derive(Debug)]
pub(crate) struct Door(PathBuf);

impl Drop for Door {
    fn drop(&mut self) {
        // Nobody can use one that stays: its listener has ended.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl SandboxArgs {
    /// The sandbox that was asked for, if one was.
    pub(crate) fn prepare(&self, app: &App, address: &str) -> Result<Option<Sandbox>, Failure> {
        if !self.sandbox {
            return Ok(None);
        }
        let program = this_program()?;
        let plan = Plan::new(app, &self.allow_read, &self.allow_write)?;
        let arguments = bwrap::arguments(&plan, &program);
        bwrap::check(&arguments)?;
        let gateway = PathBuf::from(app.daemon_status()?.socket);
        Ok(Some(Sandbox { arguments, gateway, address: inside_address(address)? }))
    }
}

impl Sandbox {
    /// Where the command finds the gateway.
    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// Starts the command, whose environment is that of `command`. The door must be kept until it has ended.
    pub(crate) fn spawn(
        &self,
        app: &App,
        run: CapabilityId,
        command: &Command,
    ) -> Result<(Child, Door), Failure> {
        let door = Door(app.home.control_dir().join(format!("run-{run}.sock")));
        let out = Way { listen: Endpoint::Unix(door.0.clone()), to: Endpoint::Unix(self.gateway.clone()) };
        relay::start(&[out]).map_err(|error| Failure::failed("open the way to the gateway", &error))?;
        let way = Way { listen: Endpoint::Tcp(self.address), to: Endpoint::Unix(bwrap::door()) };
        let mut arguments = self.arguments.clone();
        arguments.extend(bwrap::bind_door(&door.0));
        arguments.extend(bwrap::inside(app, &way));
        arguments.push(command.get_program().to_owned());
        arguments.extend(command.get_args().map(ToOwned::to_owned));
        let mut outer = bwrap::command(arguments)?;
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => outer.command.env(name, value),
                None => outer.command.env_remove(name),
            };
        }
        for name in LEADS_OUT {
            outer.command.env_remove(name);
        }
        Ok((outer.spawn()?, door))
    }
}

/// The address on which the gateway is called in a sandbox or a container: its own one, where only this machine knows it.
pub(crate) fn inside_address(address: &str) -> Result<SocketAddr, Failure> {
    let address: SocketAddr = address.parse().map_err(|_| {
        Failure::new(Exit::Failed, "control", format!("the gateway's address `{address}` is none"))
    })?;
    let is_here = address.ip().is_loopback();
    Ok(if is_here { address } else { (Ipv4Addr::LOCALHOST, address.port()).into() })
}

/// Passes a signal on to the process within the sandbox that passes it on to the command. What is between ignores it.
pub(crate) fn pass(outer: Pid, signal: Signal) {
    // bwrap, the first process of the sandbox, `tokfence inside`.
    match first_child(outer).and_then(first_child) {
        Some(inside) => child::to_child(inside, signal),
        // It has not begun, and nothing in it is to be ended well. All of it ends with the outermost.
        None => child::to_child(outer, Signal::KILL),
    }
}

/// The oldest child: later ones of the first process of a sandbox lost their own parents.
fn first_child(parent: Pid) -> Option<Pid> {
    let parent = parent.as_raw_nonzero();
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    Pid::from_raw(children.split_whitespace().next()?.parse().ok()?)
}
