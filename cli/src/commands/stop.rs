//! `stop`, `restart`, `upgrade`, `status`, `lock`.

use std::fs::File;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use gateway::control::{Command, DaemonStatus, Reply, RiskStatus};
use gateway::overview::form::timestamp;
use serde_json::{Value, json};
use storage::AuditAction;

use crate::app::App;
use crate::commands::kill::TakenBack;
use crate::commands::start::{start_detached, this_program};
use crate::failure::{Exit, Failure, from_reply};
use crate::format::local_time;
use crate::unlock;

/// Beyond the grace period of running requests.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// A successor that does not serve by then was ended by the daemon that started it.
const UPGRADE_PATIENCE: Duration = Duration::from_secs(60);

/// Stops the daemon and returns when it is gone.
pub(crate) fn stop(app: &App) -> Result<(), Failure> {
    stop_quietly(app)?;
    app.output.done(&json!({ "running": false }), || "stopped".to_owned());
    Ok(())
}

fn stop_quietly(app: &App) -> Result<(), Failure> {
    let status = app.daemon_status()?;
    app.ask(&Command::Stop)?;
    let grace = app.config().map_or(Duration::from_secs(10), |config| config.daemon.shutdown_grace);
    let deadline = Instant::now() + grace + STOP_PATIENCE;
    if !app.output.during("waiting for the gateway's end", || is_free_by(app, deadline)) {
        let message = format!("the daemon (process {}) does not end", status.pid);
        let failure = Failure::new(Exit::Failed, "stop_timeout", message);
        return Err(failure.with_hint(format!("kill {}", status.pid)));
    }
    app.record(AuditAction::Stop, "gateway", json!({ "before": status.state, "after": "stopped" }));
    Ok(())
}

/// Whether no daemon holds the home by then.
fn is_free_by(app: &App, deadline: Instant) -> bool {
    while is_held(app) {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}

/// Whether a daemon holds the home's lock, which it does from its start to its very end. A look is shared, so that
/// two of them do not take each other for a daemon.
fn is_held(app: &App) -> bool {
    File::open(app.home.lock()).is_ok_and(|file| file.try_lock_shared().is_err())
}

/// Stops the daemon if there is one, and starts another in the background. What the new one needs is looked at
/// first: it is no use to stop a daemon that serves for one that cannot.
pub(crate) fn restart(app: &App) -> Result<(), Failure> {
    app.store()?;
    let source = app.home.vault().exists().then(|| unlock::require_source(app)).transpose()?;
    if let Some(source) = &source {
        unlock::open_with(app, source)?;
    }
    match stop_quietly(app) {
        Err(failure) if failure.exit != Exit::NotRunning => return Err(failure),
        Ok(()) | Err(_) => {}
    }
    start_detached(app, source.as_ref())
}

/// Puts a daemon of this program in the place of the running one, without an interruption.
pub(crate) fn upgrade(app: &App) -> Result<(), Failure> {
    let before = app.daemon_status()?;
    let command = Command::Upgrade { program: this_program()? };
    match app.ask_within(UPGRADE_PATIENCE, &command)? {
        Reply::Done { .. } => {}
        other => return Err(from_reply(other)),
    }
    let after = app.daemon_status()?;
    app.record(
        AuditAction::Upgrade,
        "gateway",
        json!({ "before": before.version, "after": after.version, "pid": after.pid }),
    );
    let document = json!({
        "pid": after.pid,
        "version": after.version,
        "address": after.address,
        "state": after.state,
        "predecessor": { "pid": before.pid, "version": before.version },
    });
    app.output.done(&document, || {
        let (old, new) = (before.pid, after.pid);
        format!(
            "version {} serves (process {new}); process {old} answers what it had accepted",
            after.version
        )
    });
    Ok(())
}

#[derive(Debug, Args)]
pub(crate) struct Lock {
    /// Let requests that run end by themselves
    #[arg(long)]
    let_finish: bool,
}

impl Lock {
    /// Makes the daemon forget the keys.
    pub(crate) fn run(self, app: &App) -> Result<(), Failure> {
        app.ask(&Command::Lock { lets_finish: self.let_finish })?;
        app.record(AuditAction::Lock, "gateway", json!({ "after": "locked", "let_finish": self.let_finish }));
        app.output.done(&json!({ "state": "locked" }), || "locked".to_owned());
        Ok(())
    }
}

/// Tells how the daemon is. That it is down is an answer, with an exit code of its own.
pub(crate) fn status(app: &App) -> Result<ExitCode, Failure> {
    match app.daemon_status() {
        Ok(status) => {
            app.output.data(&document(&status), || describe(&status, unlock::way_to_keys(app)));
            Ok(ExitCode::SUCCESS)
        }
        Err(failure) if failure.exit == Exit::NotRunning => {
            let taken_back = TakenBack::on_disk(app);
            let document = json!({
                "running": false,
                "killed": taken_back.killed_document(),
                "revoked_providers": taken_back.providers_document(),
            });
            app.output
                .data(&document, || [vec!["not running".to_owned()], taken_back.lines()].concat().join("\n"));
            app.output.note("start it with `tokfence start -d`");
            Ok(ExitCode::from(Exit::NotRunning as u8))
        }
        Err(failure) => Err(failure),
    }
}

fn document(status: &DaemonStatus) -> Value {
    let taken_back = TakenBack::of_daemon(status);
    json!({
        "running": true,
        "pid": status.pid,
        "version": status.version,
        "predecessor": status.predecessor,
        "address": status.address,
        "socket": status.socket,
        "metrics": status.metrics,
        "state": status.state,
        "started_at": timestamp(status.started_at_us),
        "in_flight": status.in_flight,
        "killed": taken_back.killed_document(),
        "revoked_providers": taken_back.providers_document(),
        "budget_warnings": status.budget_warnings,
        "risks": status.risks.iter().map(risk_document).collect::<Vec<_>>(),
        "risk_signals": status.risk_signals,
        "providers": status.providers,
        "passthrough": status.passthrough,
        "log": status.log,
    })
}

fn describe(status: &DaemonStatus, way_to_keys: &str) -> String {
    let keys = match status.providers.as_slice() {
        _ if status.is_locked => way_to_keys.to_owned(),
        [] => "none (tokfence vault add PROVIDER)".to_owned(),
        providers => providers.join(", "),
    };
    let mut lines = vec![
        format!("running    process {}, version {}", status.pid, status.version),
        format!("address    http://{}", status.address),
        format!("socket     {}", status.socket),
        format!("keys       {keys}"),
    ];
    if let Some(pid) = status.predecessor {
        lines.push(format!("before     process {pid} answers what it had accepted before the upgrade"));
    }
    if !status.passthrough.is_empty() {
        lines.push(format!("logins     {} (the caller's own)", status.passthrough.join(", ")));
    }
    lines.extend(status.metrics.iter().map(|url| format!("figures    {url}")));
    lines.extend([
        format!("in flight  {}", status.in_flight),
        format!("log        {}", status.log),
        format!("since      {}", local_time(status.started_at_us)),
    ]);
    lines.extend(TakenBack::of_daemon(status).lines());
    lines.extend(status.risks.iter().map(|risk| {
        let RiskStatus { subject, state, signal, event, .. } = risk;
        format!("risk       {subject} is {state} ({signal}); tokfence risk explain {event}")
    }));
    lines.join("\n")
}

fn risk_document(risk: &RiskStatus) -> Value {
    json!({
        "subject": risk.subject,
        "state": risk.state,
        "since": timestamp(risk.since_us),
        "signal": risk.signal,
        "event": risk.event,
    })
}
