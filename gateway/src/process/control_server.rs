//! The daemon's end of the control socket.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroizing;

use crate::process::control::{Command, LINE_BYTES_MAX, Reply};
use crate::process::daemon::{Daemon, DaemonError};

/// Who connects to the control socket has something to say.
const COMMAND_PATIENCE: Duration = Duration::from_secs(10);

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
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(answer(stream, daemon.clone(), asked.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "a control connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
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
        Err(_) => Some(Reply::Failed {
            code: "not_understood".to_owned(),
            message: "the command is not understood; it may be of another version".to_owned(),
            hint: Some("tokfence restart".to_owned()),
        }),
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
        Command::Kill { reason } => done(daemon.kill(&reason).map(|()| Vec::new())),
        // What ends the daemon is done by whoever took the command.
        Command::Stop | Command::Upgrade { .. } => done(Ok(Vec::new())),
    }
}
