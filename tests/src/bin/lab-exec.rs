//! Runs a command inside a pod of a lab that is up.

use std::process::ExitCode;

use clap::Parser;

/// Runs a command inside a pod of a lab that is up.
#[derive(Debug, Parser)]
#[command(name = "lab-exec")]
struct Arguments {
    /// Which lab, where several are up
    #[arg(long, value_name = "ID")]
    lab: Option<String>,
    /// Which pod: NAMESPACE/NAME, NAME, or an app (its v1)
    pod: String,
    /// What to run
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let Err(error) = lab::exec::exec(arguments.lab.as_deref(), &arguments.pod, &arguments.command);
    eprintln!("{error:#}");
    ExitCode::FAILURE
}
