//! The processes of a comparison, and what can be measured only while they are new: start and idle memory.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{CompareArgs, Part, progress};
use crate::child::Role;
use crate::mock::MOCK_CREDENTIAL_ENV;
use crate::process::Memory;
use crate::report::{Metric, Samples, Section};
use crate::subject::{Name, Subject};
use crate::tokfence::{Logged, Tokfence};

/// What the mock provider demands. It has the shape of a provider's credential, so that the gateway treats
/// it as one; made up, and no row of zeros, which stand in the answers as well.
pub(crate) const CREDENTIAL: &str = "sk-bench-q7RzX2mVt9LbK4wPn8sYd3GhJ6fCa1Ue5oTiQw0Z";
const STARTS: usize = 3;

pub(super) struct Setup {
    pub(super) subjects: Vec<Subject>,
    gateways: Vec<Tokfence>,
    _floor: Role,
    _mock: Role,
}

/// The gateway in each of its roles, from the least to the most that it has to decide.
const GATEWAYS: [Name; 4] = [Name::LogOnly, Name::Capability, Name::Tokfence, Name::Control];

/// What a gateway answered, and what it remembers of that.
pub(super) struct LogCheck {
    pub(super) name: Name,
    pub(super) answered: u64,
    pub(super) logged: Logged,
    /// Budgets that should have been charged and were not.
    pub(super) unspent_budgets: Vec<String>,
}

impl Setup {
    pub(super) async fn new(
        args: &CompareArgs,
        binary: Option<&Path>,
        samples: &mut Samples,
    ) -> Result<Self> {
        let mock = Role::spawn("mock", &[], &[(MOCK_CREDENTIAL_ENV, CREDENTIAL)]).await?;
        let upstream = mock.address;
        let direct = Subject {
            name: Name::Direct,
            address: upstream,
            prefix: "",
            credential: CREDENTIAL.into(),
            pid: None,
            answered: 0,
        };
        let (floor, floor_subject) = start_floor(args, upstream, samples).await?;
        let mut subjects = vec![direct, floor_subject];
        let mut gateways = Vec::new();
        if let Some(binary) = binary {
            progress(&format!("setting up {}", binary.display()));
            for name in GATEWAYS {
                let (tokfence, subject) = start_gateway(args, name, binary, upstream, samples).await?;
                gateways.push(tokfence);
                subjects.push(subject);
            }
        }
        for subject in &mut subjects {
            if let (Some(pid), true) = (subject.pid, args.wants(Part::Memory)) {
                let idle_mib = Memory::of(pid)?.now_mib;
                samples.push(Section::Memory, subject.name, Metric::IdleMib, Some(idle_mib));
            }
            subject.probe().await?;
        }
        Ok(Self { subjects, gateways, _floor: floor, _mock: mock })
    }

    pub(super) async fn version(&self) -> Result<Option<String>> {
        match self.gateways.first() {
            None => Ok(None),
            Some(gateway) => gateway.version().await.map(Some),
        }
    }

    /// What each gateway logged of its answers.
    pub(super) async fn logged(&self) -> Result<Vec<LogCheck>> {
        let mut checks = Vec::new();
        for gateway in &self.gateways {
            let name = gateway.name;
            let subject = self.subjects.iter().find(|subject| subject.name == name);
            let answered = subject.context("each gateway is a subject")?.answered;
            let logged = gateway.logged(answered).await?;
            let unspent_budgets = gateway.unspent_budgets().await?;
            checks.push(LogCheck { name, answered, logged, unspent_budgets });
        }
        Ok(checks)
    }
}

/// Starts the floor, several times if its start is measured, and keeps the last one.
async fn start_floor(
    args: &CompareArgs,
    upstream: SocketAddr,
    samples: &mut Samples,
) -> Result<(Role, Subject)> {
    let arguments =
        ["--upstream", &upstream.to_string(), "--threads", &args.threads.to_string()].map(String::from);
    let starts = if args.wants(Part::Start) { STARTS } else { 0 };
    for _ in 0..starts {
        let started = Instant::now();
        let floor = Role::spawn("floor", &arguments, &[]).await?;
        floor_subject(&floor).probe().await?;
        push_start(samples, Name::Floor, started.elapsed());
    }
    // A new one that was never asked anything: its idle memory is yet to be read.
    let floor = Role::spawn("floor", &arguments, &[]).await?;
    let subject = floor_subject(&floor);
    Ok((floor, subject))
}

fn floor_subject(floor: &Role) -> Subject {
    Subject {
        name: Name::Floor,
        address: floor.address,
        prefix: "",
        credential: CREDENTIAL.into(),
        pid: Some(floor.pid),
        answered: 0,
    }
}

async fn start_gateway(
    args: &CompareArgs,
    name: Name,
    binary: &Path,
    upstream: SocketAddr,
    samples: &mut Samples,
) -> Result<(Tokfence, Subject)> {
    let gateway = Tokfence::set_up(name, binary, upstream, args.threads.into(), CREDENTIAL).await?;
    let mut subject = gateway.start().await?;
    // Rules are read in no time beside the key derivation, so one of the gateways stands for all.
    if args.wants(Part::Start) && name == Name::Tokfence {
        for _ in 0..STARTS {
            let took = gateway.restart(&mut subject).await?;
            push_start(samples, Name::Tokfence, took);
        }
    }
    Ok((gateway, subject))
}

fn push_start(samples: &mut Samples, name: Name, took: Duration) {
    samples.push(Section::Start, name, Metric::FirstAnswerMs, Some(took.as_secs_f64() * 1e3));
}
