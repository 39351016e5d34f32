//! A daemon that serves: what it waits for, how a successor takes its place, and how it ends.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, mpsc};

use crate::process::bound::{Bound, SocketNames};
use crate::process::control::{self, Reply};
use crate::process::control_server::{End, execute};
use crate::process::daemon::Daemon;
use crate::process::handover::{Offer, Successor};
use crate::process::server::{ServeError, lock_failed};
use crate::process::service::Service;

/// How often is looked whether the process before this one still runs.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long the end waits for commands that are being answered.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// A daemon at work.
pub(super) struct Running {
    pub(super) daemon: Arc<Daemon>,
    pub(super) service: Service,
    pub(super) signals: Signals,
    pub(super) ends: mpsc::Receiver<End>,
}

/// What only one daemon of a home has, and hands over.
pub(super) struct Ours<'a> {
    pub(super) lock: &'a File,
    pub(super) bound: Bound,
    /// With which arguments a successor is started.
    pub(super) args: Vec<OsString>,
    /// Whether nobody reads what a successor writes.
    pub(super) is_detached: bool,
}

impl Running {
    /// Serves until it is told to stop, or until a successor serves and what was accepted before is answered, for which
    /// there is `grace`. From then on nobody listens; what is answered must be kept until the very end.
    pub(super) async fn until_end(
        &mut self,
        mut ours: Ours<'_>,
        grace: Duration,
    ) -> Result<SocketNames, ServeError> {
        while let End::Upgrade(program, told) = self.next_end().await {
            let started = self.start_successor(&program, &mut ours).await?;
            let (reply, successor) = match started {
                Ok(successor) => (Reply::Done { notes: Vec::new() }, Some(successor)),
                Err(reply) => (reply, None),
            };
            // Who asked and left finds out with `status`.
            let _ = told.send(reply);
            if let Some(successor) = successor {
                let names = ours.bound.close();
                self.outlive(successor, grace).await;
                return Ok(names);
            }
        }
        self.service.stop_accepting().await;
        Ok(ours.bound.close())
    }

    async fn next_end(&mut self) -> End {
        self.signals.wait_for_end(&self.daemon, &mut self.ends).await
    }

    /// Starts a successor and returns when it serves; without one everything is as it was, and the answer tells why.
    async fn start_successor(
        &mut self,
        program: &Path,
        ours: &mut Ours<'_>,
    ) -> Result<Result<Successor, Reply>, ServeError> {
        let offer = Offer {
            lock: ours.lock.as_fd(),
            listeners: ours.bound.descriptors(),
            data_key: self.daemon.data_key(),
        };
        let mut successor = match Successor::start(ours.command(program), &offer) {
            Ok(successor) => successor,
            Err(error) => return Ok(Err(error.into())),
        };
        self.service.stop_accepting().await;
        match successor.go() {
            Ok(pid) => {
                tracing::info!(pid, "a successor serves; what was accepted before is answered here");
                ours.bound.give_away();
                Ok(Ok(successor))
            }
            Err(error) => {
                drop(successor);
                write_pid(ours.lock)?;
                self.service.accept(&ours.bound)?;
                Ok(Err(error.into()))
            }
        }
    }

    /// Answers what was accepted before, and does what the successor passes on.
    async fn outlive(&mut self, successor: Successor, grace: Duration) {
        self.daemon.give_way();
        let stop = obey(successor, self.daemon.clone());
        let (service, daemon) = (&self.service, &self.daemon);
        tokio::select! {
            () = drain(service, daemon, grace) => {}
            () = stop.notified() => {}
            _ = self.signals.wait_for_end(daemon, &mut self.ends) => {}
        }
    }

    /// Lets running requests end within `grace`.
    pub(super) async fn stop(&mut self, grace: Duration) {
        self.daemon.pass_on(&control::Command::Stop);
        tokio::select! {
            () = self.service.stop(grace) => {}
            // Who asks twice does not want to wait.
            _ = self.signals.wait_for_end(&self.daemon, &mut self.ends) => {}
        }
    }

    /// Waits until each command that was taken is answered: it holds a sender.
    pub(super) async fn finish_answers(self) {
        let Self { service, mut ends, .. } = self;
        drop(service);
        let answered = async { while ends.recv().await.is_some() {} };
        let _ = tokio::time::timeout(LAST_ANSWERS, answered).await;
    }
}

impl Ours<'_> {
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.args(&self.args);
        if self.is_detached {
            command.stdout(Stdio::null()).stderr(Stdio::null());
        }
        command
    }
}

/// Does what a successor passes on, for as long as both run. The answer tells when this process is to end.
fn obey(mut successor: Successor, daemon: Arc<Daemon>) -> Arc<Notify> {
    let stop = Arc::new(Notify::new());
    let stopping = stop.clone();
    // A thread of its own, which ends with the process: mostly it waits.
    std::thread::spawn(move || {
        while let Some(command) = successor.next_command() {
            let is_stop = matches!(command, Some(control::Command::Stop));
            successor
                .answer(&command.map_or_else(Reply::not_understood, |command| execute(&daemon, command)));
            if is_stop {
                stopping.notify_one();
            }
        }
    });
    stop
}

/// Answers what was accepted, and waits for the process before this one, which hears commands through it.
async fn drain(service: &Service, daemon: &Daemon, grace: Duration) {
    let drained = async {
        service.drain().await;
        while daemon.pass_on(&control::Command::Status).is_some() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    // What lasts longer is cut like at a stop.
    let _ = tokio::time::timeout(grace, drained).await;
}

/// Tells in the lock file who holds it.
pub(super) fn write_pid(mut lock: &File) -> Result<(), ServeError> {
    let write = lock.set_len(0).and_then(|()| lock.rewind());
    write.and_then(|()| writeln!(lock, "{}", std::process::id())).map_err(lock_failed)
}

/// The signals that the daemon obeys from when this is made; without it they would end the process at once.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    pub(super) fn listen() -> Result<Self, ServeError> {
        let on = |kind| signal(kind).map_err(|source| ServeError::Io { doing: "listen for signals", source });
        Ok(Self {
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
            hang_up: on(SignalKind::hangup())?,
        })
    }

    /// SIGTERM, SIGINT or a command ends the daemon; SIGHUP makes it read everything again.
    async fn wait_for_end(&mut self, daemon: &Arc<Daemon>, ends: &mut mpsc::Receiver<End>) -> End {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return End::Stop,
                _ = self.interrupt.recv() => return End::Stop,
                Some(end) = ends.recv() => return end,
                _ = self.hang_up.recv() => {}
            }
            let daemon = daemon.clone();
            match tokio::task::spawn_blocking(move || daemon.reload()).await {
                Ok(Ok(notes)) => notes.iter().for_each(|note| tracing::warn!("{note}")),
                Ok(Err(error)) => tracing::error!(%error, "what cannot be read stays as it was"),
                Err(_) => {}
            }
        }
    }
}
