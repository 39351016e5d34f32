//! Looks at the accounts of the owner's providers, as often as `[watch]` says, by having `tokfence watch --once` do it.
//!
//! That is a process of its own: it is the look that an owner takes, with its report, its notifications and its row in
//! the audit log; what it reads from the network and how much memory that takes is none of the gateway's. It is given
//! the vault's key at its standard input, and ends when that is closed: when this process ends, or forgets its keys.

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use vault::Secret;
use zeroize::Zeroizing;

use crate::process::daemon::Daemon;

/// How often is looked whether it is time, and whether the keys are still there.
const TICK: Duration = Duration::from_millis(200);
/// A look that takes longer is ended. One page may take 15 seconds.
const PATIENCE: Duration = Duration::from_secs(10 * 60);

/// A look that is being taken.
struct Look {
    /// While it is open, the look goes on.
    permit: Option<ChildStdin>,
    child: Child,
}

/// Looks, for as long as the daemon serves. What goes wrong is logged, and tried again when it is time.
pub(super) async fn watch(daemon: Arc<Daemon>, arguments: Vec<OsString>) {
    let mut last: Option<Instant> = None;
    loop {
        tokio::time::sleep(TICK).await;
        let Some(settings) = daemon.account_settings().filter(|settings| settings.enabled) else {
            last = None;
            continue;
        };
        if arguments.is_empty() || last.is_some_and(|last| last.elapsed() < settings.interval) {
            continue;
        }
        let Some(key) = daemon.data_key() else { continue };
        last = Some(Instant::now());
        match Look::start(&arguments, &key) {
            Ok(look) => look.finish(&daemon).await,
            Err(error) => tracing::error!(%error, "accounts cannot be looked at"),
        }
    }
}

impl Look {
    fn start(arguments: &[OsString], key: &Secret<[u8; 32]>) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(arguments).current_dir("/");
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let mut permit = child.stdin.take();
        if let Some(pipe) = permit.as_mut() {
            // One that has ended already says why on its standard error.
            let _ = pipe.write_all(Zeroizing::new(*key.expose()).as_slice());
        }
        Ok(Self { permit, child })
    }

    /// Waits for its end, which comes early when the keys are gone.
    async fn finish(self, daemon: &Daemon) {
        let Self { mut permit, child } = self;
        let begun = Instant::now();
        let mut ended = tokio::task::spawn_blocking(move || child.wait_with_output());
        let output = loop {
            tokio::select! {
                output = &mut ended => break output,
                () = tokio::time::sleep(TICK) => {}
            }
            if daemon.is_locked() || begun.elapsed() > PATIENCE {
                permit = None;
            }
        };
        match (output, permit) {
            (Ok(Ok(output)), Some(_)) => tell(&output),
            (_, None) => tracing::warn!("a look at the accounts was ended before it was done"),
            (Ok(Err(error)), _) => tracing::error!(%error, "a look at the accounts cannot be waited for"),
            (Err(_), _) => {}
        }
    }
}

/// Logs what a look found, and what it could not look at. The owner has been told of leaks already.
fn tell(output: &Output) {
    let document = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap_or_default();
    let (report, failure) = (document(&output.stdout), document(&output.stderr));
    let texts = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    if report.is_null() {
        let (code, message) = (texts(&failure["error"]["code"]), texts(&failure["error"]["message"]));
        tracing::error!(code, "accounts were not looked at: {message}");
        return;
    }
    for provider in report["providers"].as_array().into_iter().flatten() {
        let name = texts(&provider["provider"]);
        for error in provider["errors"].as_array().into_iter().flatten() {
            let (code, message) = (texts(&error["code"]), texts(&error["message"]));
            tracing::warn!(provider = name, code, "an account cannot be looked at: {message}");
        }
        let findings = provider["findings"].as_array().into_iter().flatten();
        for finding in findings.filter(|finding| finding["is_new"] == true) {
            let (number, kind) = (&finding["finding"], texts(&finding["kind"]));
            tracing::warn!(provider = name, finding = %number, kind, "use that did not go through the gateway");
        }
    }
}
