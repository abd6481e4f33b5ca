//! `cargo xtask`: the one entry point of a contributor. Each command sets up what it needs first.

mod bench;
mod binaries;
mod check;
mod kernels;
mod privileges;
mod setup;
mod shell;
mod soak;
mod suite;
mod verify;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Set up, build, demonstrate, test, measure and check Zerohop.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Find or install what building and testing need (also run by every other command)
    Setup,
    /// Build the release binaries of the agent and meshctl
    Build {
        /// For another processor: aarch64-unknown-linux-gnu
        #[arg(long)]
        target: Option<String>,
    },
    /// Show Zerohop at work on this machine: Bookinfo, its routes, and what it costs
    Demo {
        /// Passed on to the demo: --stay leaves it up, --requests N per scenario
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Run every test; the last line counts: `N passed, N failed`
    Test {
        /// Passed on to `cargo test`: a name to filter by, or `-p CRATE`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Measure: l4, l7, start (these three without a name), apps or scale; results go to target/bench/
    Bench {
        /// NAME and the benchmark's own options, such as --quick
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Run for a long time what the tests run for a short one: race, life
    Soak {
        /// Passed on: NAME and its options, such as --connections N
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// What CI checks besides the tests: format, lints, docs, dependencies, file sizes
    Check,
    /// Boot Debian's other kernels under qemu, load every program there, run the core scenarios
    Kernels(kernels::Options),
    /// Print what each program costs this kernel's verifier, against its budget
    Verify,
    /// Run a command in a pod of a demo that was left up with `demo --stay`
    Exec {
        /// The pod, then the command after `--`
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Setup => setup::run(),
        Command::Build { target } => binaries::release(target.as_deref()),
        Command::Demo { arguments } => binaries::demo(&arguments),
        Command::Test { arguments } => suite::run(&arguments),
        Command::Bench { arguments } => bench::run(&arguments),
        Command::Soak { arguments } => soak::run(&arguments),
        Command::Check => check::run(),
        Command::Kernels(options) => kernels::run(&options),
        Command::Verify => verify::run(),
        Command::Exec { arguments } => binaries::exec(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
