//! One end of a measured connection; see `bench::peer`.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use bench::peer::{self, Address, Load, Traffic};
use clap::{Parser, Subcommand};

/// One end of a measured connection.
#[derive(Parser)]
struct Arguments {
    /// The core to run on; any by default
    #[arg(long)]
    core: Option<usize>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve until killed
    Serve {
        traffic: Traffic,
        size: usize,
        /// tcp:ADDRESS:PORT or unix:PATH
        address: Address,
    },
    /// Drive a server for some seconds, then print the figures as JSON
    Drive {
        traffic: Traffic,
        size: usize,
        /// tcp:ADDRESS:PORT or unix:PATH
        address: Address,
        #[arg(long, default_value_t = 1.0)]
        seconds: f64,
        #[arg(long, default_value_t = 100)]
        connections: usize,
    },
    /// Open many connections, print what that took as JSON, and for each line on standard input, a number of
    /// seconds, ask over connections by chance for so long and print the figures
    Hold {
        size: usize,
        /// tcp:ADDRESS:PORT, in turn
        #[arg(required = true)]
        addresses: Vec<Address>,
        #[arg(long)]
        connections: usize,
    },
    /// Ask for a path again and again; print each answer that differs from the one before
    Watch {
        address: SocketAddr,
        host: String,
        path: String,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<()> {
    if let Some(core) = arguments.core {
        bench::pin(0, core).with_context(|| format!("cannot run on core {core}"))?;
    }
    // Who needs no more than it has is not stopped by having no right to more.
    let _ = bench::raise_descriptors();
    match arguments.command {
        Command::Serve {
            traffic,
            size,
            address,
        } => peer::serve(traffic, size, &address).with_context(|| format!("serving {address}")),
        Command::Drive {
            traffic,
            size,
            address,
            seconds,
            connections,
        } => {
            let duration = Duration::from_secs_f64(seconds);
            let load = Load {
                traffic,
                size,
                connections,
                duration,
            };
            let report =
                peer::drive(&load, &address).with_context(|| format!("driving {address}"))?;
            println!("{}", serde_json::json!(report));
            Ok(())
        }
        Command::Hold {
            size,
            addresses,
            connections,
        } => peer::hold(size, &addresses, connections).context("holding connections"),
        Command::Watch {
            address,
            host,
            path,
        } => {
            peer::watch::watch(address, &host, &path).with_context(|| format!("watching {address}"))
        }
    }
}
