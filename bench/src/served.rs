//! A gateway that is set up and served, loaded, and asked by its command line with a watch in hand.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Instant;

use anyhow::Result;

use crate::measure::{Measurement, measure};
use crate::mock::CREDENTIAL;
use crate::process::Memory;
use crate::stats::median;
use crate::subject::{Name, Subject};
use crate::tokfence::Tokfence;

/// A command is run so often, and the median counts.
const TIMES: usize = 5;

/// A running gateway.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) tokfence: Tokfence,
    pub(crate) subject: Subject,
}

impl Served {
    /// Starts a gateway with `tables` in its configuration beside the usual ones.
    pub(crate) async fn start(
        name: Name,
        binary: &Path,
        upstream: SocketAddr,
        threads: usize,
        tables: &str,
    ) -> Result<Self> {
        let tokfence = Tokfence::set_up(name, binary, upstream, threads, CREDENTIAL).await?;
        tokfence.configure(tables)?;
        let mut subject = tokfence.start().await?;
        subject.probe().await?;
        Ok(Self { tokfence, subject })
    }

    /// Runs `bench load ARGUMENTS` against it.
    pub(crate) async fn load(&mut self, arguments: &str) -> Result<Measurement> {
        let arguments: Vec<String> = arguments.split_ascii_whitespace().map(String::from).collect();
        measure(&mut self.subject, &arguments).await
    }

    /// The same with the capabilities of several agents, which ask in turn.
    pub(crate) async fn load_by(&mut self, tokens: &[String], arguments: &str) -> Result<Measurement> {
        let own = std::mem::replace(&mut self.subject.credential, tokens.join(" "));
        let measurement = self.load(arguments).await;
        self.subject.credential = own;
        measurement
    }

    /// Resident memory, in MiB.
    pub(crate) fn memory_mib(&self) -> Result<Option<f64>> {
        Ok(self.subject.pid.map(Memory::of).transpose()?.map(|memory| memory.now_mib))
    }

    /// The milliseconds that a command takes, from its start to its end.
    pub(crate) async fn command_ms(&self, arguments: &[&str]) -> Result<Option<f64>> {
        let mut samples = Vec::new();
        for _ in 0..TIMES {
            let started = Instant::now();
            self.tokfence.run(arguments, None).await?;
            samples.push(started.elapsed().as_secs_f64() * 1e3);
        }
        Ok(median(&samples))
    }
}
