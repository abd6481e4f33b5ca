//! The demo: Bookinfo through the kernel and the agent, on this machine.

use std::process::ExitCode;

use clap::Parser;

/// Runs Bookinfo in a lab and walks the tutorials' rules; exit status 0 only if all is as asked.
#[derive(Debug, Parser)]
#[command(name = "lab-demo")]
struct Arguments {
    /// Leave everything up until Ctrl-C, with commands to try
    #[arg(long)]
    stay: bool,
    /// How many requests each scenario sends
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(20..=100_000))]
    requests: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let options = lab::demo::Options {
        stay: arguments.stay,
        requests: arguments.requests,
    };
    match lab::demo::run(options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("the demo could not go on: {error:#}");
            ExitCode::from(2)
        }
    }
}
