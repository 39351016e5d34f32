//! A command that runs on somebody's behalf, from its start to its end: signals are passed on, its exit code too.

use std::io::{self, IsTerminal};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitCode, ExitStatus};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::failure::Failure;

/// The signals that are passed on. From when this is made, none of them ends this process.
pub(crate) fn signals() -> Result<Signals, Failure> {
    Signals::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM])
        .map_err(|error| Failure::failed("watch for signals", &error))
}

/// The exit code of a command for which a signal came before it was started.
pub(crate) fn ended_before(signals: &mut Signals) -> Option<ExitCode> {
    signals.pending().next().map(exit_code_of_signal)
}

/// Waits for the child and passes on the signals that would have ended us, with `pass`.
pub(crate) fn wait(
    mut child: Child,
    signals: Signals,
    pass: impl Fn(Pid, Signal) + Send + 'static,
) -> Result<ExitCode, Failure> {
    let handle = signals.handle();
    let pid = Pid::from_child(&child);
    let forwarding = std::thread::spawn(move || forward(signals, |signal| pass(pid, signal)));
    let status = end_of(&mut child).map_err(|error| Failure::failed("wait for the command", &error));
    handle.close();
    // The thread only forwards signals; there is nothing it could report.
    let _ = forwarding.join();
    status.map(exit_code)
}

/// Passes a signal on to the child itself.
pub(crate) fn to_child(child: Pid, signal: Signal) {
    // A child that is gone needs no signal.
    let _ = kill_process(child, signal);
}

fn end_of(child: &mut Child) -> io::Result<ExitStatus> {
    if std::process::id() != 1 {
        return child.wait();
    }
    // The first process of a container is the parent of all who lost their own, and waits for them as well.
    let pid = Pid::from_child(child);
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((ended, status))) if ended == pid => return Ok(ExitStatus::from_raw(status.as_raw())),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Passes signals on. What is typed at a terminal (`^C`, `^\`) its driver sends to everybody in the foreground, the child
/// included, who must not get it twice; without a terminal only we get it.
fn forward(mut signals: Signals, pass: impl Fn(Signal)) {
    let has_terminal = io::stdin().is_terminal();
    for signal in signals.forever() {
        pass(match signal {
            SIGTERM => Signal::TERM,
            SIGHUP => Signal::HUP,
            SIGINT if !has_terminal => Signal::INT,
            SIGQUIT if !has_terminal => Signal::QUIT,
            _ => continue,
        });
    }
}

/// The child's exit code; a signal is told the way shells do.
fn exit_code(status: ExitStatus) -> ExitCode {
    match (status.code(), status.signal()) {
        (None, Some(signal)) => exit_code_of_signal(signal),
        (code, _) => ExitCode::from(u8::try_from(code.unwrap_or(1)).unwrap_or(1)),
    }
}

fn exit_code_of_signal(signal: i32) -> ExitCode {
    ExitCode::from(u8::try_from(128 + signal).unwrap_or(1))
}
