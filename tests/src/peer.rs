//! `lab-peer`: the clients and servers that run inside pods.
//!
//! A process has one cgroup, so what the mesh's programs are to see must be a process of its own.
//! Each role prints one JSON document; servers print nothing.

use anyhow::Result;
use clap::{Parser, Subcommand};

mod bookinfo;
mod echo;
mod hold_lab;
mod http_client;
mod intruder;
mod names;
mod puppet;
pub mod racer;
mod stamp;
mod stream_client;
mod stream_server;
mod streams;
mod udp_server;
mod upgrade;

/// A client or server for a pod of the lab.
#[derive(Debug, Parser)]
#[command(name = "lab-peer")]
pub struct Arguments {
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Serves one of Bookinfo's servers
    Bookinfo(bookinfo::Arguments),
    /// Serves HTTP/1.1 and HTTP/2: answers with what it was asked, misbehaves as the query says
    Echo(echo::Arguments),
    /// Sends HTTP requests and prints the answers
    Http(http_client::Arguments),
    /// Upgrades an HTTP/1.1 connection and checks what comes back over it
    Upgrade(upgrade::Arguments),
    /// Serves byte streams that carry their own place: what arrives is checked, byte by byte
    StreamServer(stream_server::Arguments),
    /// Connects to a stream server; the same checks
    StreamClient(stream_client::Arguments),
    /// Serves connections that meet, talk and part in every way that races, and checks every byte
    RaceServer(racer::ServerArguments),
    /// Opens them; the same checks
    RaceClient(racer::ClientArguments),
    /// Does to sockets what standard input says, line by line, and prints what came of it
    Puppet(puppet::Arguments),
    /// Answers queries for names, by UDP and TCP, and prints them
    NameServer(names::NameServerArguments),
    /// Asks for a name
    Resolve(names::ResolveArguments),
    /// Sends datagrams back, with its name
    UdpServer(udp_server::Arguments),
    /// Tries what a hostile pod could: another's address, packets by hand
    Intruder(intruder::Arguments),
    /// Outside of any pod: makes a lab with one busy pod and holds it until it is killed
    HoldLab(hold_lab::Arguments),
}

/// Plays the role that the arguments name until it has an end.
pub fn run(arguments: Arguments) -> Result<()> {
    match arguments.role {
        Role::Bookinfo(arguments) => block_on(bookinfo::run(arguments)),
        Role::Echo(arguments) => block_on(echo::run(arguments)),
        Role::Http(arguments) => block_on(http_client::run(arguments)),
        Role::Upgrade(arguments) => block_on(upgrade::run(arguments)),
        Role::StreamServer(arguments) => stream_server::run(&arguments),
        Role::StreamClient(arguments) => stream_client::run(&arguments),
        Role::RaceServer(arguments) => block_on(racer::serve(arguments)),
        Role::RaceClient(arguments) => block_on(racer::drive(arguments)),
        Role::Puppet(arguments) => puppet::run(&arguments),
        Role::NameServer(arguments) => names::serve(arguments),
        Role::Resolve(arguments) => names::resolve(&arguments),
        Role::UdpServer(arguments) => udp_server::run(&arguments),
        Role::Intruder(arguments) => intruder::run(&arguments),
        Role::HoldLab(arguments) => hold_lab::run(&arguments),
    }
}

fn block_on(role: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(role)
}
