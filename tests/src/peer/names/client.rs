//! `lab-peer resolve`: asks for a name and prints what came back, and from whom as the socket says it.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::wire;

#[derive(Debug, Args)]
pub(in super::super) struct Arguments {
    /// What to ask for
    name: String,
    /// How
    #[arg(long, value_enum, default_value = "library")]
    how: How,
    /// Whom, at port 53; several: all of them from one socket. IPv4 in an IPv6 socket as ::ffff:1.2.3.4
    #[arg(long = "server")]
    servers: Vec<IpAddr>,
    /// For AAAA
    #[arg(long)]
    aaaa: bool,
    /// With an OPT record
    #[arg(long)]
    edns: bool,
    /// How long an answer may take
    #[arg(long, default_value_t = 20_000)]
    timeout_ms: u64,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum How {
    /// By getaddrinfo(3)
    Library,
    /// By sendto(2) and recvfrom(2)
    Sendto,
    /// By a UDP socket that is connected
    Connected,
    /// By TCP
    Tcp,
}

pub(in super::super) fn run(arguments: &Arguments) -> Result<()> {
    let answers = match arguments.how {
        How::Library => vec![library(&arguments.name)],
        How::Sendto => sendto(arguments)?,
        How::Connected => vec![connected(arguments)],
        How::Tcp => vec![tcp(arguments)],
    };
    let answers: Vec<Value> = answers
        .into_iter()
        .map(|answer| answer.unwrap_or_else(|error| json!({"error": format!("{error:#}")})))
        .collect();
    println!("{}", json!({ "answers": answers }));
    Ok(())
}

fn library(name: &str) -> Result<Value> {
    let mut addresses: Vec<IpAddr> = (name, 0)
        .to_socket_addrs()?
        .map(|address| address.ip())
        .collect();
    addresses.sort();
    addresses.dedup();
    Ok(json!({ "addresses": addresses }))
}

impl Arguments {
    fn query(&self, id: u16) -> Vec<u8> {
        let kind = if self.aaaa { wire::AAAA } else { wire::A };
        wire::query(id, &self.name, kind, self.edns)
    }

    fn server(&self) -> Result<SocketAddr> {
        let server = self.servers.first().context("no --server")?;
        Ok((*server, 53).into())
    }

    fn patience(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }
}

/// One socket, all servers; the answers in the servers' order.
fn sendto(arguments: &Arguments) -> Result<Vec<Result<Value>>> {
    let socket = unbound(arguments.server()?)?;
    socket.set_read_timeout(Some(arguments.patience()))?;
    let queries: Vec<Vec<u8>> = (1..=arguments.servers.len() as u16)
        .map(|number| arguments.query(number))
        .collect();
    for (server, query) in arguments.servers.iter().zip(&queries) {
        socket.send_to(query, (*server, 53))?;
    }
    let mut answers: Vec<_> = queries
        .iter()
        .map(|_| Err(anyhow::anyhow!("no answer")))
        .collect();
    for _ in &queries {
        let mut buffer = [0; 4096];
        let (length, source) = socket.recv_from(&mut buffer)?;
        let which = usize::from(u16::from_be_bytes([buffer[0], buffer[1]]) - 1);
        let mut answer = describe(&queries[which], &buffer[..length])?;
        answer["source"] = json!(source);
        answers[which] = Ok(answer);
    }
    Ok(answers)
}

fn connected(arguments: &Arguments) -> Result<Value> {
    let socket = unbound(arguments.server()?)?;
    socket.connect(arguments.server()?)?;
    socket.set_read_timeout(Some(arguments.patience()))?;
    let query = arguments.query(0x4242);
    socket.send(&query)?;
    let mut buffer = [0; 4096];
    let (length, source) = socket.recv_from(&mut buffer)?;
    let mut answer = describe(&query, &buffer[..length])?;
    answer["source"] = json!(source);
    answer["peer"] = json!(socket.peer_addr()?);
    answer["local"] = json!(socket.local_addr()?.ip());
    Ok(answer)
}

/// A socket that nobody bound, as resolvers have it.
fn unbound(server: SocketAddr) -> Result<UdpSocket> {
    let kind = socket2::Type::DGRAM;
    Ok(socket2::Socket::new(socket2::Domain::for_address(server), kind, None)?.into())
}

fn tcp(arguments: &Arguments) -> Result<Value> {
    let mut stream = TcpStream::connect(arguments.server()?)?;
    stream.set_read_timeout(Some(arguments.patience()))?;
    let query = arguments.query(0x4343);
    let length = (query.len() as u16).to_be_bytes();
    stream.write_all(&[&length[..], &query].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut bytes = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut bytes)?;
    let mut answer = describe(&query, &bytes)?;
    answer["peer"] = json!(stream.peer_addr()?);
    answer["local"] = json!(stream.local_addr()?.ip());
    Ok(answer)
}

fn describe(query: &[u8], answer: &[u8]) -> Result<Value> {
    let (code, addresses) = wire::answer(answer)?;
    Ok(json!({
        "code": code, "addresses": addresses, "sameId": query[..2] == answer[..2],
        "query": wire::hex(query), "answer": wire::hex(answer),
    }))
}
