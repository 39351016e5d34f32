//! The command line: one subcommand for each role.

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::compare::CompareArgs;
use crate::floor::FloorArgs;
use crate::instructions::InstructionsArgs;
use crate::load::LoadArgs;
use crate::mock::MockArgs;
use crate::open_files;
use crate::scale::ScaleArgs;
use crate::soak::SoakArgs;

/// Measures what tokfence adds to a request
#[derive(Debug, Parser)]
#[command(name = "bench", version)]
struct Cli {
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Measure direct, floor and tokfence side by side
    Compare(CompareArgs),
    /// Count the instructions of a request and of an event, and hold them against what is accepted
    Instructions(InstructionsArgs),
    /// Measure what grows: connections, streams, agents, budgets, log rows
    Scale(ScaleArgs),
    /// Hold a load for long beside changes of the rules, and check that nothing is lost, miscounted or growing
    Soak(SoakArgs),
    /// Generate load and print what it met as JSON
    Load(LoadArgs),
    /// Serve as a provider
    Mock(MockArgs),
    /// Serve as a bare Pingora proxy
    Floor(FloorArgs),
}

pub(crate) fn run() -> Result<()> {
    let role = Cli::parse().role;
    open_files::raise()?;
    match role {
        Role::Compare(args) => crate::compare::run(&args),
        Role::Instructions(args) => crate::instructions::run(&args),
        Role::Scale(args) => crate::scale::run(&args),
        Role::Soak(args) => crate::soak::run(&args),
        Role::Load(args) => crate::load::run(&args),
        Role::Mock(args) => crate::mock::run(&args),
        Role::Floor(args) => crate::floor::run(&args),
    }
}
