//! What is measured: the way to the provider without a proxy, through the floor, and through the gateway, which has
//! more to decide from one subject to the next.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::client::Connection;
use crate::load::request_bytes;
use crate::plan::Wire;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Name {
    Direct,
    Floor,
    /// The gateway with nothing to decide and nothing to look for: callers need no capability, and there are no limits.
    /// What it does is what a proxy with a request log does.
    LogOnly,
    /// The same, and a capability is demanded.
    Capability,
    /// The gateway as it is after `init`: a capability is demanded, and requests and answers are searched for secrets.
    Tokfence,
    /// The gateway with everything an owner can lay down: a scope, budgets, limits on rates.
    Control,
}

impl Name {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Floor => "floor",
            Self::LogOnly => "log only",
            Self::Capability => "capability",
            Self::Tokfence => "tokfence",
            Self::Control => "control",
        }
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
