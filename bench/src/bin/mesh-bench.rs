//! `cargo xtask bench`: runs the benchmarks and writes target/bench/NAME.json.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use bench::{apps, l4, l7, scale, start};
use clap::{Parser, ValueEnum};

/// Measure what Zerohop costs and gains, arm against arm.
#[derive(Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench")]
struct Arguments {
    /// Which; l4, l7 and start by default
    names: Vec<Name>,
    /// A first impression within a minute each, instead of figures to rely on
    #[arg(long)]
    quick: bool,
    /// Rounds over all arms
    #[arg(long)]
    rounds: Option<usize>,
    /// Only these arms, separated by commas
    #[arg(long, value_delimiter = ',')]
    arms: Vec<String>,
    /// l4, apps: only the cases whose name contains one of these, separated by `;`
    #[arg(long, value_delimiter = ';')]
    cases: Vec<String>,
    /// scale: how many connections to hold open, separated by commas
    #[arg(long, value_delimiter = ',')]
    open: Vec<u32>,
    /// scale: how many services, separated by commas
    #[arg(long, value_delimiter = ',')]
    services: Vec<u32>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Name {
    /// Bytes and connections between two pods
    L4,
    /// Requests by proxies
    L7,
    /// Time until ready, and until a changed rule is in effect
    Start,
    /// Redis and nginx with their own load generators
    Apps,
    /// Many open connections, many services
    Scale,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let all = [Name::L4, Name::L7, Name::Start];
    let names = if arguments.names.is_empty() {
        &all[..]
    } else {
        &arguments.names
    };
    for name in names {
        match name {
            Name::L4 => {
                let mut plan = if arguments.quick {
                    l4::Plan::quick()
                } else {
                    l4::Plan::full()
                };
                plan.rounds = arguments.rounds.unwrap_or(plan.rounds);
                plan.arms.clone_from(&arguments.arms);
                plan.cases.clone_from(&arguments.cases);
                l4::run(&plan, &result("l4"))?;
            }
            Name::L7 => {
                let mut plan = if arguments.quick {
                    l7::Plan::quick()
                } else {
                    l7::Plan::full()
                };
                plan.rounds = arguments.rounds.unwrap_or(plan.rounds);
                plan.arms.clone_from(&arguments.arms);
                l7::run(&plan, &result("l7"))?;
            }
            Name::Start => {
                let rounds = arguments
                    .rounds
                    .unwrap_or(if arguments.quick { 5 } else { 20 });
                start::run(rounds, &result("start"))?;
            }
            Name::Apps => {
                let mut plan = if arguments.quick {
                    apps::Plan::quick()
                } else {
                    apps::Plan::full()
                };
                plan.rounds = arguments.rounds.unwrap_or(plan.rounds);
                plan.arms.clone_from(&arguments.arms);
                plan.cases.clone_from(&arguments.cases);
                apps::run(&plan, &result("apps"))?;
            }
            Name::Scale => {
                let mut plan = if arguments.quick {
                    scale::Plan::quick()
                } else {
                    scale::Plan::full()
                };
                plan.rounds = arguments.rounds.unwrap_or(plan.rounds);
                if !arguments.open.is_empty() || !arguments.services.is_empty() {
                    plan.open.clone_from(&arguments.open);
                    plan.services.clone_from(&arguments.services);
                }
                scale::run(&plan, &result("scale"))?;
            }
        }
    }
    Ok(())
}

/// Where figures go: always below the workspace's own `target`, so that they are found.
fn result(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    let root = root.expect("invariant: bench lies one folder below the workspace");
    root.join("target/bench").join(format!("{name}.json"))
}
