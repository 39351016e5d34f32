//! `audit verify` and `audit accept`: whether the chain is whole, and what to do about one that was restored.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};
use storage::{AuditFault, AuditHead, AuditReport, Store};

use crate::app::{App, now_us};
use crate::failure::{Exit, Failure};

const REASON_CHARS_MAX: usize = 1_000;
/// What is said while the chain is followed.
const VERIFYING: &str = "checking the audit log";

#[derive(Debug, Args)]
pub(super) struct Verify {
    /// A head that an earlier check told, and that must still be in the log
    #[arg(long, value_name = "ROW:HASH")]
    head: Option<AuditHead>,
}

#[derive(Debug, Args)]
pub(super) struct Accept {
    /// Why, for whoever looks at it later
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

impl Verify {
    pub(super) fn run(&self, app: &App) -> Result<ExitCode, Failure> {
        let store = Store::open_existing(&app.config()?.logging.db_path)?;
        let report = app.output.during(VERIFYING, || store.verify_audit(self.head))?;
        app.output.data(&document(&report), || text(&report));
        if report.unanchored > 0 {
            let count = report.unanchored;
            app.output.note(&format!(
                "the last {count} of them came after the head that is kept beside the database, as after a crash"
            ));
        }
        let is_whole = report.faults.is_empty();
        Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::from(Exit::Found as u8) })
    }
}

impl Accept {
    pub(super) fn run(&self, app: &App) -> Result<(), Failure> {
        let reason = self.reason.trim();
        if reason.is_empty() || reason.chars().count() > REASON_CHARS_MAX {
            return Err(Failure::usage(format!("a reason has 1 to {REASON_CHARS_MAX} characters")));
        }
        let mut store = app.store()?;
        let former = store.accept_audit(reason, now_us())?;
        let report = app.output.during(VERIFYING, || store.verify_audit(None))?;
        let document = json!({ "former_head": former.to_string(), "head": report.head.to_string() });
        app.output.done(&document, || format!("accepted; the head is {}", report.head));
        if !report.faults.is_empty() {
            app.output.warn("what is wrong within the log stays so; tokfence audit verify");
        }
        Ok(())
    }
}

fn document(report: &AuditReport) -> Value {
    let fault = |fault: &AuditFault| json!({ "code": fault.code(), "row": fault.seq(), "message": fault.to_string() });
    json!({
        "status": if report.faults.is_empty() { "whole" } else { "broken" },
        "changes": report.rows,
        "head": report.head.to_string(),
        "unanchored": report.unanchored,
        "faults": report.faults.iter().map(fault).collect::<Vec<_>>(),
    })
}

fn text(report: &AuditReport) -> String {
    let state = if report.faults.is_empty() { "chain whole" } else { "chain broken" };
    let sum = format!("audit: {} changes, {state}, head {}", report.rows, report.head);
    let faults = report.faults.iter().map(|fault| format!("audit: {fault}"));
    faults.chain([sum]).collect::<Vec<_>>().join("\n")
}
