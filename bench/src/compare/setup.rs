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
/// it as one.
const CREDENTIAL: &str = "sk-bench-0000000000000000000000000000000000000000";
const STARTS: usize = 3;

pub(super) struct Setup {
    pub(super) subjects: Vec<Subject>,
    gateway: Option<Tokfence>,
    _floor: Role,
    _mock: Role,
}

/// Answers and log rows of the gateway.
pub(super) struct LogCheck {
    pub(super) answered: u64,
    pub(super) logged: Logged,
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
        let mut gateway = None;
        if let Some(binary) = binary {
            let (tokfence, subject) = start_gateway(args, binary, upstream, samples).await?;
            gateway = Some(tokfence);
            subjects.push(subject);
        }
        for subject in &mut subjects {
            if let (Some(pid), true) = (subject.pid, args.wants(Part::Memory)) {
                let idle_mib = Memory::of(pid)?.now_mib;
                samples.push(Section::Memory, subject.name, Metric::IdleMib, Some(idle_mib));
            }
            subject.probe().await?;
        }
        Ok(Self { subjects, gateway, _floor: floor, _mock: mock })
    }

    pub(super) async fn version(&self) -> Result<Option<String>> {
        match &self.gateway {
            None => Ok(None),
            Some(gateway) => gateway.version().await.map(Some),
        }
    }

    pub(super) async fn logged(&self) -> Result<Option<LogCheck>> {
        let Some(gateway) = &self.gateway else { return Ok(None) };
        let mut subjects = self.subjects.iter().filter(|subject| subject.name == Name::Tokfence);
        let answered = subjects.next().context("the gateway is a subject")?.answered;
        Ok(Some(LogCheck { answered, logged: gateway.logged(answered).await? }))
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
    binary: &Path,
    upstream: SocketAddr,
    samples: &mut Samples,
) -> Result<(Tokfence, Subject)> {
    progress(&format!("setting up {}", binary.display()));
    let gateway = Tokfence::set_up(binary, upstream, args.threads.into(), CREDENTIAL).await?;
    let mut subject = gateway.start().await?;
    if args.wants(Part::Start) {
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
