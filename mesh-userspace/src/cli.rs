//! The command lines: `meshctl` whole, `mesh-agent`'s arguments, and the exit statuses of both.

pub mod agent_args;
pub mod args;
pub mod client;
pub mod exit;

mod acceleration;
mod analyze;
mod check;
mod completion;
mod connections;
mod error;
mod events;
mod explain;
mod folder;
mod maps;
mod output;
mod reports;
mod resolved;
mod status;
mod table;
mod units;
mod values;
mod yaml;

use std::{
    ffi::OsString,
    io::{self, Write},
};

use args::{Cli, Command};
use client::Client;
use error::CliError;
use exit::ExitStatus;
use output::Output;

/// Runs `meshctl` with these arguments, the first being its own name.
pub fn meshctl(arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> ExitStatus {
    let cli: Cli = match exit::parse(arguments) {
        Ok(cli) => cli,
        Err(status) => return status,
    };
    match run(&cli) {
        Ok(status) => status,
        Err(error) if error.is_closed_pipe() => ExitStatus::Ok,
        Err(error) => {
            // Nowhere is left to say that standard error is closed.
            let _ = writeln!(io::stderr(), "meshctl: {error}");
            error.status()
        }
    }
}

fn run(cli: &Cli) -> Result<ExitStatus, CliError> {
    let global = &cli.global;
    let out = Output::new(global.output);
    let client = Client::new(&global.admin);
    match &cli.command {
        Command::Check => check::run(global, out),
        Command::Status => status::run(&client, out),
        Command::Config { kind, name } => {
            reports::run(&client, kind.as_deref(), name.as_deref(), out)
        }
        Command::Services => resolved::services(&client, out),
        Command::Workloads => resolved::workloads(&client, out),
        Command::Routes => resolved::routes(&client, out),
        Command::Explain(query) => explain::run(&client, query, global, out),
        Command::Connections => connections::run(&client, out),
        Command::Events { follow } => events::run(&client, *follow, out),
        Command::Maps(command) => maps::run(global, command, out),
        Command::Analyze(what) => analyze::run(what, out),
        Command::Acceleration { state } => acceleration::run(&client, *state, out),
        Command::Completion { shell } => completion::run(*shell),
    }
}
