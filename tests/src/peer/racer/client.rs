//! The opening end: many tasks, each with one connection after the other.

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream as Blocking};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use clap::Args;
use rand::RngExt;
use rand::seq::IndexedRandom;
use socket2::{Domain, SockRef, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::LocalSet;
use tokio::time::timeout;

use super::end::{BlockingSocket, Carried, End, Place, pause};
use super::tally::Tally;
use super::variant::{self, Ends, Opens, Variant};
use crate::{poll, sys};

/// How long a connection may take.
const PATIENCE: Duration = Duration::from_mins(1);
/// Source ports that are used again and again; below those that the kernel gives by itself.
const REUSED: std::ops::Range<u16> = 20_000..20_024;
/// Failures after which going on teaches nothing more.
const ENOUGH_FAILURES: u64 = 50;

/// How many, to whom.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    /// How many connections; with `--seconds`, whichever is reached first
    #[arg(long, default_value_t = u64::MAX)]
    connections: u64,
    /// For how long to open new ones
    #[arg(long, default_value_t = u64::MAX)]
    seconds: u64,
    /// How many at a time
    #[arg(long, default_value_t = 64)]
    concurrency: usize,
    /// Only these variants, by name
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// IPv4 and IPv6 addresses of a server, `A,B`; again for another
    #[arg(long = "server", required = true)]
    servers: Vec<Both>,
    /// IPv4 and IPv6 addresses of the variants' services, in their order
    #[arg(long = "service")]
    services: Vec<Both>,
}

/// Two addresses of the same thing.
#[derive(Clone, Copy, Debug)]
pub struct Both {
    ipv4: Ipv4Addr,
    ipv6: Ipv6Addr,
}

impl std::str::FromStr for Both {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (ipv4, ipv6) = text.split_once(',').ok_or("not IPV4,IPV6")?;
        Ok(Self {
            ipv4: ipv4.parse().map_err(|error| format!("{ipv4}: {error}"))?,
            ipv6: ipv6.parse().map_err(|error| format!("{ipv6}: {error}"))?,
        })
    }
}

/// What all tasks share.
struct Shared {
    arguments: Arguments,
    variants: Vec<Variant>,
    started: Cell<u64>,
    since: Instant,
    tally: RefCell<Tally>,
    free_ports: RefCell<Vec<u16>>,
}

/// A source port that is free again once this is dropped.
struct Source<'a> {
    port: u16,
    free: &'a RefCell<Vec<u16>>,
}

impl Drop for Source<'_> {
    fn drop(&mut self) {
        self.free.borrow_mut().push(self.port);
    }
}

/// Opens connections until there were enough, then prints the tally.
pub async fn drive(arguments: Arguments) -> Result<()> {
    let mut variants = variant::all();
    if !arguments.only.is_empty() {
        for variant in &mut variants {
            variant.weight *= u32::from(arguments.only.iter().any(|name| name == variant.name));
        }
    }
    let shared = Rc::new(Shared {
        tally: RefCell::new(Tally::new(&variants)),
        free_ports: RefCell::new(REUSED.collect()),
        since: Instant::now(),
        started: Cell::new(0),
        variants,
        arguments,
    });
    let local = LocalSet::new();
    for _ in 0..shared.arguments.concurrency {
        let shared = Rc::clone(&shared);
        local.spawn_local(async move {
            while shared.takes_another() {
                shared.one().await;
            }
        });
    }
    local.await;
    println!("{}", shared.tally.borrow().report());
    Ok(())
}

impl Shared {
    fn takes_another(&self) -> bool {
        let number = self.started.get();
        let tally = self.tally.borrow();
        if number >= self.arguments.connections
            || self.since.elapsed().as_secs() >= self.arguments.seconds
            || tally.failed() >= ENOUGH_FAILURES
        {
            return false;
        }
        self.started.set(number + 1);
        if number.is_multiple_of(10_000) {
            eprintln!(
                "progress: {} ended, {} failed",
                tally.ended(),
                tally.failed()
            );
        }
        true
    }

    async fn one(&self) {
        let index = self.choose();
        let variant = &self.variants[index];
        let address = self.address(index);
        let talk = self.connection(variant, address);
        let result = match timeout(poll::patient(PATIENCE), talk).await {
            Ok(result) => result,
            Err(_) => Err(anyhow!("stuck")),
        };
        let result = result.with_context(|| format!("to {address}"));
        self.tally.borrow_mut().add(index, variant, result);
    }

    fn choose(&self) -> usize {
        let all: u32 = self.variants.iter().map(|variant| variant.weight).sum();
        let mut place = rand::rng().random_range(0..all.max(1));
        for (index, variant) in self.variants.iter().enumerate() {
            if place < variant.weight {
                return index;
            }
            place -= variant.weight;
        }
        0
    }

    /// A server or the variant's service, by any family.
    fn address(&self, index: usize) -> SocketAddr {
        let mut rng = rand::rng();
        let service = self.arguments.services.get(index).copied();
        let server = self.arguments.servers.choose(&mut rng).copied();
        let to = match (service, server) {
            (Some(service), Some(server)) => {
                if rng.random() {
                    service
                } else {
                    server
                }
            }
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => Both {
                ipv4: Ipv4Addr::LOCALHOST,
                ipv6: Ipv6Addr::LOCALHOST,
            },
        };
        let address: IpAddr = match rng.random_range(0..4) {
            0 | 1 => to.ipv4.into(),
            2 => to.ipv4.to_ipv6_mapped().into(),
            _ => to.ipv6.into(),
        };
        SocketAddr::new(address, variant::port(index))
    }

    async fn connection(&self, variant: &Variant, to: SocketAddr) -> Result<Option<Carried>> {
        let mut end = End {
            place: Place::Client,
            variant,
            client: None,
            begun: None,
        };
        let mut source = None;
        let mut stream = match variant.opens {
            Opens::Plain => {
                let socket = TcpSocket::from_std_stream(socket(to)?.into());
                socket.connect(to).await.context("connect")?
            }
            Opens::Blocking => return blocking(variant, to).await,
            Opens::Reused => {
                let (stream, port) = self.connect_from(to).await?;
                source = Some(port);
                stream
            }
            Opens::FastOpen => fast_open(to, &mut end).await?,
            Opens::FastOpenConnect => {
                let socket = socket(to)?;
                sys::fastopen_connect(&socket).context("set TCP_FASTOPEN_CONNECT")?;
                match socket.connect(&to.into()) {
                    // No cookie yet: it connects at once.
                    Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
                    other => other.context("connect at the first send")?,
                }
                TcpStream::from_std(socket.into())?
            }
        };
        if !matches!(variant.opens, Opens::FastOpen | Opens::FastOpenConnect) {
            end.client = Some(stream.local_addr().context("getsockname")?);
        }
        stream.set_nodelay(variant.no_delay)?;
        let carried = tokio::select! {
            carried = end.converse(&mut stream) => {
                carried.with_context(|| format!("from {:?}", stream.local_addr()))?
            }
            () = pause(0..=2500), if variant.ends == Ends::ClientAborts => {
                stream.set_zero_linger()?;
                return Ok(None);
            }
        };
        match variant.ends {
            Ends::ServerCloses | Ends::HalfCloses => end.receive_end(&mut stream).await?,
            Ends::ClientResets => stream.set_zero_linger()?,
            Ends::ClientCloses | Ends::ClientAborts | Ends::ServerAborts => {}
        }
        drop(stream);
        drop(source);
        Ok(Some(carried))
    }

    /// Connects from one of the ports that are used again and again. One whose last connection has not
    /// gone yet is left for another.
    async fn connect_from(&self, to: SocketAddr) -> Result<(TcpStream, Source<'_>)> {
        loop {
            let port = self.free_ports.borrow_mut().pop();
            let Some(port) = port else {
                pause(100..=1000).await;
                continue;
            };
            // Once more at the other end of the line: the next to be taken is the longest unused.
            let source = Source {
                port,
                free: &self.free_ports,
            };
            let socket = socket(to)?;
            socket.set_reuse_address(true)?;
            let any: IpAddr = match to {
                SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
            };
            let bound = socket.bind(&SocketAddr::new(any, port).into());
            let connected = match bound {
                Ok(()) => TcpSocket::from_std_stream(socket.into()).connect(to).await,
                Err(error) => Err(error),
            };
            match connected {
                Ok(stream) => return Ok((stream, source)),
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::AddrInUse | ErrorKind::AddrNotAvailable
                    ) =>
                {
                    self.tally.borrow_mut().retried += 1;
                    drop(source);
                    pause(50..=500).await;
                }
                Err(error) => return Err(error).context("connect from a port that was used"),
            }
        }
    }
}

fn socket(to: SocketAddr) -> Result<Socket> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).context("socket")?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Sends the header, and what fits beside it, by `MSG_FASTOPEN`.
async fn fast_open(to: SocketAddr, end: &mut End<'_>) -> Result<TcpStream> {
    let socket = socket(to)?;
    let header = end.announce(None);
    let mut bytes = vec![0; header.end(false).min(400) as usize];
    header.fill(0, &mut bytes);
    let sent = match socket.send_to_with_flags(&bytes, &to.into(), libc::MSG_FASTOPEN) {
        Ok(sent) => sent,
        // No cookie yet: the kernel asks for one, and takes nothing along.
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => 0,
        Err(error) => return Err(error).context("connect by MSG_FASTOPEN"),
    };
    let stream = TcpStream::from_std(socket.into())?;
    stream.writable().await?;
    if let Some(error) = SockRef::from(&stream).take_error()? {
        return Err(error).context("connect by MSG_FASTOPEN");
    }
    end.begun = Some((header, sent as u64));
    Ok(stream)
}

/// A whole connection on a thread that blocks.
async fn blocking(variant: &Variant, to: SocketAddr) -> Result<Option<Carried>> {
    let variant = variant.clone();
    let thread = tokio::task::spawn_blocking(move || -> Result<Option<Carried>> {
        let stream = Blocking::connect(to).context("connect")?;
        stream.set_nodelay(variant.no_delay)?;
        let patience = Some(poll::patient(PATIENCE));
        stream.set_read_timeout(patience)?;
        stream.set_write_timeout(patience)?;
        let end = End {
            place: Place::Client,
            variant: &variant,
            client: Some(stream.local_addr().context("getsockname")?),
            begun: None,
        };
        let mut socket = BlockingSocket(stream);
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let carried = runtime.block_on(end.converse(&mut socket))?;
        Ok(Some(carried))
    });
    thread.await.map_err(io::Error::from)?
}
