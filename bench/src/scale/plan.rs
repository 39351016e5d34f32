//! What all parts of a scale run need.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Result;

use super::ScaleArgs;
use crate::served::Served;
use crate::subject::Name;

#[derive(Debug, Clone, Copy)]
pub(super) struct Plan<'a> {
    pub(super) args: &'a ScaleArgs,
    pub(super) binary: &'a Path,
    pub(super) upstream: SocketAddr,
}

impl Plan<'_> {
    /// Starts a gateway with `tables` in its configuration beside the usual ones.
    pub(super) async fn start(&self, name: Name, tables: &str) -> Result<Served> {
        Served::start(name, self.binary, self.upstream, self.args.threads.into(), tables).await
    }
}
