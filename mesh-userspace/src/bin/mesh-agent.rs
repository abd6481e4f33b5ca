//! The node agent.

use std::process::ExitCode;

use zerohop::{
    agent,
    cli::agent_args::{self, AgentCommand},
};

fn main() -> ExitCode {
    let status = match agent_args::parse(std::env::args_os()) {
        Ok(AgentCommand::Run(args)) => agent::run(&args),
        Ok(AgentCommand::Uninstall(args)) => agent::uninstall(&args),
        Err(status) => status,
    };
    status.into()
}
