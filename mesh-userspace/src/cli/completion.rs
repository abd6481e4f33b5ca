//! `meshctl completion`: scripts that shells complete commands and flags with.

use std::io::{self, Write};

use clap::CommandFactory;
use clap_complete::shells;

use super::{
    args::{Cli, Shell},
    error::CliError,
    exit::ExitStatus,
};

/// Prints the script.
pub fn run(shell: Shell) -> Result<ExitStatus, CliError> {
    let mut command = Cli::command();
    // Into memory first: the generators panic where a write fails.
    let mut script = Vec::new();
    match shell {
        Shell::Bash => clap_complete::generate(shells::Bash, &mut command, "meshctl", &mut script),
        Shell::Zsh => clap_complete::generate(shells::Zsh, &mut command, "meshctl", &mut script),
        Shell::Fish => clap_complete::generate(shells::Fish, &mut command, "meshctl", &mut script),
    }
    io::stdout().write_all(&script)?;
    Ok(ExitStatus::Ok)
}
