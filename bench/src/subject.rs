//! What is measured: the way to the provider without a proxy, through the floor, through nginx, and through the
//! gateway, which has more to do from one subject to the next.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::client::Connection;
use crate::load::request_bytes;
use crate::plan::Wire;

/// In the order of the tables. From `LogOnly` on each has all that the one before has and one thing more, so that the
/// difference of two neighbours is the price of that thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Name {
    Direct,
    Floor,
    /// What everybody knows, as a yardstick between runs and machines.
    Nginx,
    /// The gateway with a key from the vault and a row for each request, and nothing to decide or to look for.
    LogOnly,
    /// A capability with a scope is demanded.
    Capability,
    /// Three budgets apply, from which the worst case is reserved.
    Budget,
    /// Limits of every kind apply on four subjects.
    Rates,
    /// Requests are searched for secrets.
    RequestScan,
    /// Answers are searched for secrets.
    ResponseScan,
    /// Figures are shown, and read each second. This is the gateway that targets are about.
    Everything,
}

impl Name {
    /// The gateway, from the least to the most that it has to do.
    pub(crate) const GATEWAYS: [Self; 7] = [
        Self::LogOnly,
        Self::Capability,
        Self::Budget,
        Self::Rates,
        Self::RequestScan,
        Self::ResponseScan,
        Self::Everything,
    ];

    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Floor => "floor",
            Self::Nginx => "nginx",
            Self::LogOnly => "vault and log only",
            Self::Capability => "+ capability",
            Self::Budget => "+ budget reserved",
            Self::Rates => "+ rates",
            Self::RequestScan => "+ request scan",
            Self::ResponseScan => "+ response scan",
            Self::Everything => "everything on",
        }
    }

    /// A step between the least and everything. Steps tell the price of a feature and are left out elsewhere.
    pub(crate) fn is_step(self) -> bool {
        self > Self::LogOnly && self < Self::Everything
    }
}

#[derive(Debug)]
pub(crate) struct Subject {
    pub(crate) name: Name,
    pub(crate) address: SocketAddr,
    /// Path before the provider's own.
    pub(crate) prefix: &'static str,
    /// What the caller presents as its API key: the provider's credential, the gateway's capability, or anything where
    /// none is asked for.
    pub(crate) credential: String,
    /// The process whose cost counts; none for the direct way.
    pub(crate) pid: Option<u32>,
    /// Requests that were answered, to be compared with what the gateway logged.
    pub(crate) answered: u64,
}

impl Subject {
    /// One plain request, over a connection of its own.
    pub(crate) async fn probe(&mut self) -> Result<()> {
        let request = request_bytes(Wire::Openai, self.address, self.prefix, &self.credential, None);
        let name = self.name.text();
        Connection::new(self.address)
            .exchange(&request, &mut |_, _| ())
            .await
            .with_context(|| format!("{name} did not answer a plain request"))?;
        self.answered += 1;
        Ok(())
    }
}
