//! `lab-peer udp-server`: sends each datagram back with its own name before it.

use std::io::Write;
use std::net::{SocketAddr, UdpSocket};

use anyhow::{Context, Result};
use clap::Args;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Where to listen; several, one socket each
    #[arg(long = "listen", required = true)]
    listen: Vec<SocketAddr>,
    /// Its name: answers are `NAME TEXT`
    #[arg(long)]
    name: String,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let sockets = arguments
        .listen
        .iter()
        .map(|listen| UdpSocket::bind(listen).with_context(|| format!("bind {listen}")))
        .collect::<Result<Vec<_>>>()?;
    println!("listens");
    std::io::stdout().flush()?;
    std::thread::scope(|scope| {
        let threads: Vec<_> = sockets
            .iter()
            .map(|socket| scope.spawn(|| answer(socket, &arguments.name)))
            .collect();
        for thread in threads {
            if let Ok(result) = thread.join() {
                result?;
            }
        }
        Ok(())
    })
}

fn answer(socket: &UdpSocket, name: &str) -> Result<()> {
    let mut buffer = [0; 2048];
    loop {
        let (length, client) = socket.recv_from(&mut buffer)?;
        let answer = [name.as_bytes(), b" ", &buffer[..length]].concat();
        socket.send_to(&answer, client)?;
    }
}
