//! Budgets: many of which few apply to a request, and many that all apply.

use anyhow::Result;

use super::cases::{Case, compare};
use super::plan::Plan;
use crate::compare::progress;
use crate::served::Served;
use crate::subject::Name;
use crate::table::Table;

/// More than a run spends.
const AMOUNT: &str = "1000000";

pub(super) async fn measure_all(plan: &Plan<'_>) -> Result<Vec<Table>> {
    let (rounds, seconds) = (plan.args.rounds, plan.args.seconds);
    let mut few = Vec::new();
    for count in [3, 10, 100] {
        few.push(case(plan, format!("{count} budgets, 3 apply"), count, Kind::OfOthers).await?);
    }
    let few = compare("budgets, most of them of other agents".into(), &mut few, rounds, seconds).await?;
    let mut all = Vec::new();
    for count in [0, 1, 3, 10, 100] {
        all.push(case(plan, format!("{count} budgets, all apply"), count, Kind::OfAll).await?);
    }
    let all = compare("budgets that all apply".into(), &mut all, rounds, seconds).await?;
    Ok(vec![few, all])
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    /// Three that apply to who asks; the rest are of agents that do not ask.
    OfOthers,
    /// Rolling spans of everybody's spending, each of another length.
    OfAll,
}

async fn case(plan: &Plan<'_>, name: String, count: u32, kind: Kind) -> Result<Case> {
    progress(&format!("setting up {name}"));
    let gateway = plan.start(Name::Capability, "").await?;
    match kind {
        Kind::OfOthers => set_with_others(&gateway, count).await?,
        Kind::OfAll => {
            for hours in 1..=count {
                set(&gateway, "global", &format!("{hours}h")).await?;
            }
        }
    }
    let tokens = vec![gateway.subject.credential.clone()];
    Ok(Case { name, gateway, tokens })
}

async fn set_with_others(gateway: &Served, count: u32) -> Result<()> {
    for subject in ["global", "openai", "agent:bench"] {
        set(gateway, subject, "daily").await?;
    }
    for at in 3..count {
        let agent = format!("other-{at:04}");
        gateway.tokfence.mint_for(&agent, &[]).await?;
        set(gateway, &format!("agent:{agent}"), "daily").await?;
    }
    Ok(())
}

pub(super) async fn set(gateway: &Served, subject: &str, period: &str) -> Result<()> {
    gateway.tokfence.run(&["budget", "set", subject, AMOUNT, period], None).await.map(drop)
}
