//! Whether a budget holds when calls come at once: each trial lets 64 callers begin a stream while the budget of their
//! agent pays for one.

use anyhow::{Result, ensure};

use super::rounds::arguments;
use super::{CompareArgs, progress};
use crate::measure::run_load;
use crate::report::{Metric, Samples, Section};
use crate::subject::{Name, Subject};
use crate::tokfence::Tokfence;

/// Dollars. A stream of 512 tokens of `gpt-4o-mini` costs $0.000325 with its prompt and may cost $0.0004 at worst, so
/// one fits and what it leaves does not pay for another.
const BUDGET: &str = "0.0005";
const LOAD: &str = "--workload paced --connections 64 --requests 64 --events 512 --gap-ms 1";

/// Must come after the log was compared with the answers: refused calls have rows too.
pub(super) async fn measure_overrun(
    args: &CompareArgs,
    gateway: &Tokfence,
    subject: &Subject,
    samples: &mut Samples,
) -> Result<()> {
    progress("overrun");
    for trial in 0..args.rounds() {
        let credential = gateway.mint_with_budget(&format!("overrun-{trial}"), BUDGET).await?;
        let caller = Subject { name: Name::Everything, credential, answered: 0, ..*subject };
        let load = run_load(&caller, &arguments(LOAD)).await?;
        let reason = load.first_error.as_deref().unwrap_or_default();
        ensure!(load.requests > 0, "a budget for one call admitted none: {reason}");
        ensure!(load.errors == 0 || reason.contains("budget"), "refused for another reason: {reason}");
        let mut push = |metric, value: u64| {
            samples.push(Section::Overrun, Name::Everything, metric, Some(value as f64));
        };
        push(Metric::Admitted, load.requests);
        push(Metric::AdmittedOver, load.requests - 1);
    }
    Ok(())
}
