//! Both ends of the L4 cases: a server and a client of one kind of traffic, on one core each.
//!
//! Blocking sockets, or one epoll loop for many connections; no runtime, so that what is measured
//! is the kernel's path.

mod client;
mod hold;
mod server;
pub mod watch;

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

pub use client::drive;
pub use hold::hold;
use serde::{Deserialize, Serialize};
pub use server::serve;
use socket2::{Domain, SockAddr, Socket, Type};

/// What the two ends do with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Traffic {
    /// One connection: a message there, as many bytes back, and again.
    Ping,
    /// One connection: messages there as fast as they go; at the end the count comes back.
    Stream,
    /// Many connections, each as `ping`, in one epoll loop on either side.
    Parallel,
    /// A new connection for each message and its answer; with size 0 nothing is sent.
    Connect,
}

/// What a client does.
#[derive(Clone, Debug)]
pub struct Load {
    /// The kind of traffic.
    pub traffic: Traffic,
    /// Bytes of a message.
    pub size: usize,
    /// Connections at a time, for [`Traffic::Parallel`].
    pub connections: usize,
    /// How long.
    pub duration: Duration,
}

/// What the driving end says when it is done.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// Round trips, messages or connections.
    pub operations: u64,
    /// Payload in one direction, as the receiver counted it where it does.
    pub bytes: u64,
    /// Seconds that it took.
    pub seconds: f64,
    /// Processor seconds of this process meanwhile.
    pub cpu_seconds: f64,
    /// Median time of an operation in microseconds; 0 where they are not timed one by one.
    pub p50_us: f64,
    /// 99th percentile, likewise.
    pub p99_us: f64,
    /// Median time of connect() alone in microseconds, for [`Traffic::Connect`].
    pub connect_p50_us: f64,
}

/// Where a server listens: `tcp:ADDRESS:PORT` or `unix:PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A TCP port.
    Tcp(SocketAddr),
    /// A socket in the file system.
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("tcp", address)) => address.parse().map(Self::Tcp).map_err(|e| e.to_string()),
            Some(("unix", path)) => Ok(Self::Unix(path.into())),
            _ => Err(format!("not tcp:ADDRESS:PORT or unix:PATH: {text}")),
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "tcp:{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Address {
    fn socket(&self) -> io::Result<(Socket, SockAddr)> {
        let (domain, address) = match self {
            Self::Tcp(address) => (Domain::for_address(*address), SockAddr::from(*address)),
            Self::Unix(path) => (Domain::UNIX, SockAddr::unix(path)?),
        };
        Ok((Socket::new(domain, Type::STREAM, None)?, address))
    }

    fn connect(&self, traffic: Traffic) -> io::Result<Socket> {
        let (socket, address) = self.socket()?;
        socket.connect(&address)?;
        self.prepare(&socket, traffic)?;
        Ok(socket)
    }

    fn listen(&self) -> io::Result<Socket> {
        const BACKLOG: i32 = 4096;
        let (socket, address) = self.socket()?;
        socket.set_reuse_address(true)?;
        if let Self::Unix(path) = self {
            // A server that was killed leaves its file.
            let _ = std::fs::remove_file(path);
        }
        socket.bind(&address)?;
        socket.listen(BACKLOG)?;
        Ok(socket)
    }

    /// As applications do: no delay for requests, TCP's own joining of small writes for streams.
    fn prepare(&self, socket: &Socket, traffic: Traffic) -> io::Result<()> {
        match self {
            Self::Tcp(_) => socket.set_tcp_nodelay(traffic != Traffic::Stream),
            Self::Unix(_) => Ok(()),
        }
    }
}

/// A socket as a file: read(2) and write(2), whatever its family.
fn as_file(socket: Socket) -> File {
    File::from(OwnedFd::from(socket))
}
