//! The long runs; see `lab::soak`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use lab::soak::{life, race};

/// Runs for a long time what the scenarios run for a short one.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask soak", bin_name = "cargo xtask soak")]
struct Arguments {
    #[command(subcommand)]
    soak: Soak,
}

#[derive(Debug, Subcommand)]
enum Soak {
    /// Connections of every racing kind, each byte checked, while agents are killed and come back
    Race(race::Plan),
    /// Direct connections under load, while agents are killed, stopped and upgraded
    Life(life::Plan),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().soak {
        Soak::Race(plan) => race::run(&plan).and_then(|report| {
            println!("{report}");
            report.verdict()
        }),
        Soak::Life(plan) => life::run(&plan).and_then(|report| {
            println!("{report}");
            report.verdict()
        }),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}
