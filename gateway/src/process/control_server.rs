//! The daemon's end of the control socket.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroizing;

use crate::dashboard::Dashboard;
use crate::process::control::{Command, LINE_BYTES_MAX, Reply};
use crate::process::daemon::{Daemon, DaemonError};

/// Who connects to the control socket has something to say.
const COMMAND_PATIENCE: Duration = Duration::from_secs(10);

/// After a connection that could not be accepted.
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// The connection, and the most files that a command has open at once, with some to spare.
const SPARE_MAX: usize = 8;

/// Where commands go that end the daemon.
pub(super) type Asked = mpsc::Sender<End>;

/// How the daemon is asked to end.
#[derive(Debug)]
pub(super) enum End {
    /// After running requests have had their grace period.
    Stop,
    /// By a successor, which is this program; whoever asked is told what came of it.
    Upgrade(PathBuf, oneshot::Sender<Reply>),
}

/// Answers commands until the task is dropped.
pub(super) async fn serve(listener: UnixListener, daemon: Arc<Daemon>, asked: Asked) {
    let mut spare = Spare::default();
    loop {
        spare.fill();
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(answer(stream, daemon.clone(), asked.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "a control connection could not be accepted");
                spare.release();
                // Not beside others: what was kept is for one command at a time. Nobody may be there any more.
                match tokio::time::timeout(RETRY_AFTER, listener.accept()).await {
                    Ok(Ok((stream, _))) => answer(stream, daemon.clone(), asked.clone()).await,
                    Ok(Err(_)) => tokio::time::sleep(RETRY_AFTER).await,
                    Err(_) => {}
                }
            }
        }
    }
}

/// Descriptors that are kept for a command, its connection and the files that it reads: the owner is answered when callers
/// have all the others.
#[derive(Default)]
struct Spare(Vec<File>);

impl Spare {
    fn fill(&mut self) {
        while self.0.len() < SPARE_MAX {
            let Ok(file) = File::open("/dev/null") else { return };
            self.0.push(file);
        }
    }

    fn release(&mut self) {
        self.0.clear();
    }
}

async fn answer(mut stream: UnixStream, daemon: Arc<Daemon>, asked: Asked) {
    let own_uid = rustix::process::geteuid().as_raw();
    if !stream.peer_cred().is_ok_and(|peer| peer.uid() == own_uid) {
        return;
    }
    let mut line = Zeroizing::new(String::new());
    let (reader, mut writer) = stream.split();
    let mut reader = BufReader::new(reader.take(LINE_BYTES_MAX));
    let read = tokio::time::timeout(COMMAND_PATIENCE, reader.read_line(&mut line)).await;
    if !matches!(read, Ok(Ok(count)) if count > 0) {
        return;
    }
    let command = serde_json::from_str::<Command>(&line);
    let is_stop = matches!(command, Ok(Command::Stop));
    let reply = match command {
        Ok(Command::Upgrade { program }) => Some(upgrade(program, &asked).await),
        Ok(command) => tokio::task::spawn_blocking(move || execute(&daemon, command)).await.ok(),
        Err(_) => Some(Reply::not_understood()),
    };
    if let Some(Ok(mut text)) = reply.map(|reply| serde_json::to_vec(&reply)) {
        text.push(b'\n');
        // A caller that is gone does not need its answer.
        let _ = writer.write_all(&text).await;
    }
    if is_stop {
        // Who is not heard any more is not needed: the daemon is about to end.
        let _ = asked.send(End::Stop).await;
    }
}

async fn upgrade(program: PathBuf, asked: &Asked) -> Reply {
    let (told, answer) = oneshot::channel();
    let ends = Reply::Failed {
        code: "upgrade_failed".to_owned(),
        message: "the daemon is about to end".to_owned(),
        hint: Some("tokfence start -d".to_owned()),
    };
    match asked.send(End::Upgrade(program, told)).await {
        Ok(()) => answer.await.unwrap_or(ends),
        Err(_) => ends,
    }
}

/// Does what is asked of a daemon that goes on.
pub(super) fn execute(daemon: &Daemon, command: Command) -> Reply {
    let done = |result: Result<Vec<String>, DaemonError>| match result {
        Ok(notes) => Reply::Done { notes },
        Err(error) => error.into(),
    };
    match command {
        Command::Status => Reply::Status(Box::new(daemon.status())),
        Command::Reload => done(daemon.reload()),
        Command::Flush => done(daemon.flush().map(|()| Vec::new())),
        Command::Lock { lets_finish } => {
            daemon.lock(lets_finish);
            done(Ok(Vec::new()))
        }
        Command::Unlock { with } => done(daemon.unlock(with).map(|()| Vec::new())),
        Command::Rates => Reply::Rates(daemon.rates()),
        Command::Overview => Reply::Overview(Box::new(daemon.overview())),
        Command::DashboardLink => Dashboard::link(daemon),
        Command::DashboardLogOut => Reply::LoggedOut(daemon.dashboard.log_out()),
        Command::Running => Reply::Running(daemon.in_flight()),
        Command::Kill { reason } => done(daemon.kill(&reason).map(|()| Vec::new())),
        // What ends the daemon is done by whoever took the command.
        Command::Stop | Command::Upgrade { .. } => done(Ok(Vec::new())),
    }
}
