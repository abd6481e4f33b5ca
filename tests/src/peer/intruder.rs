//! `lab-peer intruder`: what a process tries that is root in its own namespace and nowhere else: to connect from
//! addresses of its choice, and SYNs written by hand. One JSON document says what came of it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use serde_json::json;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

mod syn;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Connects by the kernel's TCP
    Dial(Dial),
    /// Sends one SYN by a raw socket
    Syn(syn::Arguments),
}

#[derive(Debug, Args)]
struct Dial {
    /// Where to
    #[arg(long)]
    to: SocketAddr,
    /// The address to bind to
    #[arg(long)]
    from: Option<IpAddr>,
    /// The port to bind to
    #[arg(long, default_value_t = 0)]
    from_port: u16,
    /// With IP_TRANSPARENT: any address at all
    #[arg(long)]
    transparent: bool,
    /// With IP_FREEBIND: an address that is not there yet
    #[arg(long)]
    freebind: bool,
    /// Sends this with the SYN (MSG_FASTOPEN)
    #[arg(long)]
    fast_open: Option<String>,
    /// By an IPv6 socket, to ::ffff:a.b.c.d
    #[arg(long)]
    mapped: bool,
    /// Connects to here first, on the same socket, and disconnects
    #[arg(long)]
    after: Option<SocketAddr>,
    /// How long to wait
    #[arg(long, default_value_t = 1500)]
    within_ms: u64,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let report = match &arguments.what {
        What::Dial(dial) => match dial.dial() {
            Ok(()) => json!({"outcome": "connected"}),
            Err(error) => json!({"outcome": error.to_string()}),
        },
        What::Syn(arguments) => {
            syn::send(arguments)?;
            json!({"outcome": "sent"})
        }
    };
    println!("{report}");
    Ok(())
}

impl Dial {
    fn dial(&self) -> io::Result<()> {
        let within = Duration::from_millis(self.within_ms);
        let to = self.form(self.to);
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        if self.transparent {
            socket.set_ip_transparent_v4(true)?;
        }
        if self.freebind {
            socket.set_freebind_v4(true)?;
        }
        if let Some(from) = self.from {
            socket.bind(&self.form(SocketAddr::new(from, self.from_port)).into())?;
        }
        if let Some(first) = self.after {
            socket.connect_timeout(&self.form(first).into(), within)?;
            disconnect(&socket)?;
        }
        match &self.fast_open {
            Some(text) => {
                socket.set_write_timeout(Some(within))?;
                let sent = socket.send_to_with_flags(
                    text.as_bytes(),
                    &SockAddr::from(to),
                    libc::MSG_FASTOPEN | libc::MSG_NOSIGNAL,
                );
                sent?;
                socket.set_read_timeout(Some(within))?;
                let mut first = [std::mem::MaybeUninit::uninit(); 1];
                match socket.recv(&mut first)? {
                    0 => Err(io::Error::other("closed")),
                    _ => Ok(()),
                }
            }
            None => socket.connect_timeout(&to.into(), within),
        }
    }

    fn form(&self, address: SocketAddr) -> SocketAddr {
        match address.ip() {
            IpAddr::V4(ip) if self.mapped => {
                SocketAddr::new(ip.to_ipv6_mapped().into(), address.port())
            }
            _ => address,
        }
    }
}

/// connect(2) to `AF_UNSPEC`.
fn disconnect(socket: &Socket) -> io::Result<()> {
    use std::os::fd::AsRawFd as _;
    // SAFETY: all zeroes is a socket address of the family AF_UNSPEC, which outlives the call.
    let done = unsafe {
        let nowhere: libc::sockaddr = std::mem::zeroed();
        libc::connect(
            socket.as_raw_fd(),
            &raw const nowhere,
            size_of::<libc::sockaddr>() as libc::socklen_t,
        )
    };
    match done {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Both addresses, of one family.
fn families(from: SocketAddr, to: SocketAddr) -> Result<Ends> {
    match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => Ok(Ends::V4(from, to)),
        (IpAddr::V6(from), IpAddr::V6(to)) => Ok(Ends::V6(from, to)),
        _ => bail!("{from} and {to} are of two families"),
    }
}

enum Ends {
    V4(Ipv4Addr, Ipv4Addr),
    V6(Ipv6Addr, Ipv6Addr),
}

fn raw_socket(domain: Domain) -> Result<Socket> {
    Socket::new(domain, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)))
        .context("a raw socket: CAP_NET_RAW")
}
