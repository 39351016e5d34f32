//! What keeps other processes of the same user, and files that a crash leaves, away from what is in memory.
//!
//! None of this stops malware that runs as the user and is patient: see SECURITY.md. It takes the cheap ways.

use rustix::process::{Resource, Rlimit, setrlimit};

use crate::failure::Failure;

/// For every command, since many of them see a passphrase or a key: no core dump is written of this process, no other
/// process of the user reads its memory or its environment, and none attaches to it. A program that this one starts
/// is not concerned.
pub(crate) fn memory() {
    // A kernel that does not know it offers no other way either, and a command is not refused for that.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
}

/// For the daemon, beyond [`memory`]: what it starts, such as the owner's command for notices, leaves no core dump
/// either and gains no rights that the daemon does not have. Called while there is one thread, as the kernel keeps the
/// latter for each.
pub(crate) fn daemon() -> Result<(), Failure> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none).map_err(|error| Failure::failed("turn core dumps off", &error))?;
    #[cfg(target_os = "linux")]
    rustix::thread::set_no_new_privs(true).map_err(|error| Failure::failed("give up new rights", &error))?;
    Ok(())
}
