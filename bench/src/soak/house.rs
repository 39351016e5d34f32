//! The gateway of a soak: everything on, several agents with a capability each, and budgets that count from the beginning
//! of time, so that what they were charged can be compared with the whole log.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::SoakArgs;
use crate::scrape::{self, Scraper};
use crate::served::Served;
use crate::subject::Name;

/// Dollars, more than any run spends.
const AMOUNT: &str = "1000000";
/// The most agents that have a budget.
const BUDGETS_MAX: u32 = 100;

pub(super) struct House {
    pub(super) gateway: Served,
    /// Of those who ask.
    pub(super) tokens: Vec<String>,
    /// Reads the figures each second, as it is done where a gateway runs for long.
    _scraper: Scraper,
}

impl House {
    pub(super) async fn set_up(args: &SoakArgs, binary: &Path, upstream: SocketAddr) -> Result<Self> {
        let name = Name::Everything;
        let gateway = Served::start(name, binary, upstream, args.threads.into(), "").await?;
        let mut tokens = Vec::new();
        let mut budgets = vec!["global".to_owned()];
        for at in 0..args.agents {
            let agent = format!("soak-{at:04}");
            tokens.push(gateway.tokfence.mint_as(name, &agent).await?);
            budgets.extend((at < BUDGETS_MAX).then(|| format!("agent:{agent}")));
        }
        for subject in budgets {
            gateway.tokfence.run(&["budget", "set", &subject, AMOUNT, PERIOD], None).await?;
        }
        let scraper = scrape::start(&gateway.tokfence).await?;
        Ok(Self { gateway, tokens, _scraper: scraper })
    }

    /// What of the database is not yet moved into its file.
    pub(super) fn wal(&self) -> PathBuf {
        self.gateway.tokfence.home().join("tokfence.db-wal")
    }
}

/// Of the budgets that are compared with the log.
pub(super) const PERIOD: &str = "total";
