//! A gateway of a scale run: set up, served, and asked by its command line with a watch in hand.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Instant;

use anyhow::Result;

use super::ScaleArgs;
use crate::measure::{Measurement, measure};
use crate::process::Memory;
use crate::stats::median;
use crate::subject::{Name, Subject};
use crate::tokfence::Tokfence;

/// What the mock provider demands: made up, in the shape of a provider's credential.
pub(super) const CREDENTIAL: &str = "sk-bench-q7RzX2mVt9LbK4wPn8sYd3GhJ6fCa1Ue5oTiQw0Z";
/// A command is run so often, and the median counts.
const TIMES: usize = 5;

/// What all parts of a run need.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan<'a> {
    pub(super) args: &'a ScaleArgs,
    pub(super) binary: &'a Path,
    pub(super) upstream: SocketAddr,
}

impl Plan<'_> {
    /// Starts a gateway with `tables` in its configuration beside the usual ones.
    pub(super) async fn start(&self, name: Name, tables: &str) -> Result<Served> {
        let threads = self.args.threads.into();
        let tokfence = Tokfence::set_up(name, self.binary, self.upstream, threads, CREDENTIAL).await?;
        tokfence.configure(tables)?;
        let mut subject = tokfence.start().await?;
        subject.probe().await?;
        Ok(Served { tokfence, subject })
    }
}

/// A running gateway.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) tokfence: Tokfence,
    pub(super) subject: Subject,
}

impl Served {
    /// Runs `bench load ARGUMENTS` against it.
    pub(super) async fn load(&mut self, arguments: &str) -> Result<Measurement> {
        let arguments: Vec<String> = arguments.split_ascii_whitespace().map(String::from).collect();
        measure(&mut self.subject, &arguments).await
    }

    /// The same with the capabilities of several agents, which ask in turn.
    pub(super) async fn load_by(&mut self, tokens: &[String], arguments: &str) -> Result<Measurement> {
        let own = std::mem::replace(&mut self.subject.credential, tokens.join(" "));
        let measurement = self.load(arguments).await;
        self.subject.credential = own;
        measurement
    }

    /// Resident memory, in MiB.
    pub(super) fn memory_mib(&self) -> Result<Option<f64>> {
        Ok(self.subject.pid.map(Memory::of).transpose()?.map(|memory| memory.now_mib))
    }

    /// The milliseconds that a command takes, from its start to its end.
    pub(super) async fn command_ms(&self, arguments: &[&str]) -> Result<Option<f64>> {
        let mut samples = Vec::new();
        for _ in 0..TIMES {
            let started = Instant::now();
            self.tokfence.run(arguments, None).await?;
            samples.push(started.elapsed().as_secs_f64() * 1e3);
        }
        Ok(median(&samples))
    }
}
