//! The processes of a comparison, and what can be measured only while they are new: start and idle memory.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{CompareArgs, Part, memory, progress};
use crate::child::Role;
use crate::mock::{self, CREDENTIAL};
use crate::nginx::{self, Nginx};
use crate::report::{Metric, Samples, Section};
use crate::scrape::{self, Scraper};
use crate::subject::{Name, Subject};
use crate::tokfence::{Logged, Tokfence};

const STARTS: usize = 3;

pub(super) struct Setup {
    pub(super) subjects: Vec<Subject>,
    gateways: Vec<Tokfence>,
    _scraper: Option<Scraper>,
    _nginx: Option<Nginx>,
    _floor: Role,
    _mock: Role,
}

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
        let mock = mock::spawn().await?;
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
        let nginx = start_nginx(args, upstream).await?;
        let mut subjects = vec![direct, floor_subject];
        subjects.extend(nginx.as_ref().map(nginx_subject));
        let mut gateways = Vec::new();
        if let Some(binary) = binary {
            progress(&format!("setting up {}", binary.display()));
            for name in Name::GATEWAYS.into_iter().filter(|name| args.includes(*name)) {
                let (tokfence, subject) = start_gateway(args, name, binary, upstream, samples).await?;
                gateways.push(tokfence);
                subjects.push(subject);
            }
        }
        memory::keep_idle(args, &subjects, samples).await?;
        for subject in &mut subjects {
            subject.probe().await?;
        }
        // After all idle memory was read, since being read is no idleness.
        let scraper = start_scraper(&gateways).await?;
        Ok(Self { subjects, gateways, _scraper: scraper, _nginx: nginx, _floor: floor, _mock: mock })
    }

    /// The gateway with everything on, if there is one.
    pub(super) fn everything(&self) -> Option<(&Tokfence, &Subject)> {
        let gateway = self.gateways.iter().find(|gateway| gateway.name == Name::Everything)?;
        Some((gateway, self.subjects.iter().find(|subject| subject.name == Name::Everything)?))
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
    for _ in 0..starts(args) {
        let started = Instant::now();
        let floor = Role::spawn("floor", &arguments, &[]).await?;
        floor_subject(&floor).probe().await?;
        // It derives no key, so both of its starts are one.
        push_start(samples, Name::Floor, Metric::LockedStartMs, started.elapsed());
        push_start(samples, Name::Floor, Metric::FirstAnswerMs, started.elapsed());
    }
    // A new one that was never asked anything: its idle memory is yet to be read.
    let floor = Role::spawn("floor", &arguments, &[]).await?;
    let subject = floor_subject(&floor);
    Ok((floor, subject))
}

/// Starts nginx if it is there. It is one process, so it compares with proxies of one thread only.
async fn start_nginx(args: &CompareArgs, upstream: SocketAddr) -> Result<Option<Nginx>> {
    match nginx::installed() {
        Some(binary) if args.threads == 1 => Nginx::start(&binary, upstream).await.map(Some),
        Some(_) => {
            progress("nginx is left out: it is measured with one thread");
            Ok(None)
        }
        None => {
            progress("nginx is left out: it is not installed (Debian: nginx-light)");
            Ok(None)
        }
    }
}

fn nginx_subject(nginx: &Nginx) -> Subject {
    Subject {
        name: Name::Nginx,
        address: nginx.address,
        prefix: nginx::PREFIX,
        credential: CREDENTIAL.into(),
        pid: Some(nginx.pid),
        answered: 0,
    }
}

async fn start_scraper(gateways: &[Tokfence]) -> Result<Option<Scraper>> {
    let Some(gateway) = gateways.iter().find(|gateway| gateway.name == Name::Everything) else {
        return Ok(None);
    };
    scrape::start(gateway).await.map(Some)
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
    if name == Name::Everything {
        for _ in 0..starts(args) {
            let locked = gateway.restart_locked(&mut subject).await?;
            push_start(samples, name, Metric::LockedStartMs, locked);
            let unlocked = gateway.restart(&mut subject).await?;
            push_start(samples, name, Metric::FirstAnswerMs, unlocked);
        }
    }
    Ok((gateway, subject))
}

/// How often the start is measured.
fn starts(args: &CompareArgs) -> usize {
    match args.wants(Part::Start) {
        false => 0,
        true if args.quick => 1,
        true => STARTS,
    }
}

fn push_start(samples: &mut Samples, name: Name, metric: Metric, took: Duration) {
    samples.push(Section::Start, name, metric, Some(took.as_secs_f64() * 1e3));
}
