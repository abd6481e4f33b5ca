//! The agent's listeners for names in a pod: one address per name server that the pod may dial.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
};

use mesh_common::{
    PortBe,
    dns::{SLOTS, address_of, port_of},
};
use socket2::{Domain, Protocol, Socket, Type};

use super::{Netns, NetnsError, within};

/// The port that they take where it is free.
const PORT: u16 = 15053;

/// How many other ports are tried.
const TRIES: u16 = 8;

/// How many connections may wait per name server.
const BACKLOG: i32 = 128;

/// The listeners of one pod and one family. All are non-blocking.
#[derive(Debug)]
pub struct DnsSockets {
    /// Their port; of IPv6 the first slot's.
    pub port: u16,
    /// By slot (`mesh_common::dns`).
    pub slots: Vec<(UdpSocket, TcpListener)>,
}

impl Netns {
    /// Listens in the pod on IPv4, out of reach for anybody outside of it.
    pub fn dns_sockets(&self) -> Result<DnsSockets, NetnsError> {
        let mut opened = self.dns_sockets_on(PORT, v4_slot);
        for _ in 0..TRIES {
            if opened.is_ok() {
                break;
            }
            opened = self.dns_sockets_on(0, v4_slot);
        }
        opened.map_err(|source| self.cannot_listen(source))
    }

    /// The same on IPv6, on ports that follow each other.
    pub fn dns_sockets6(&self) -> Result<DnsSockets, NetnsError> {
        let mut opened = self.dns_sockets_on(PORT, v6_slot);
        for turn in 1..=TRIES {
            if opened.is_ok() {
                break;
            }
            opened = self.dns_sockets_on(PORT + turn * 100, v6_slot);
        }
        opened.map_err(|source| self.cannot_listen(source))
    }

    fn cannot_listen(&self, source: io::Error) -> NetnsError {
        NetnsError::Use {
            operation: "listening for names",
            path: self.path.clone(),
            source,
        }
    }

    fn dns_sockets_on(
        &self,
        port: u16,
        place: fn(u32, u16) -> SocketAddr,
    ) -> io::Result<DnsSockets> {
        let mut port = port;
        let mut slots = Vec::with_capacity(SLOTS as usize);
        for slot in 0..SLOTS {
            let address = place(slot, port);
            let datagrams = self.datagram_socket(Domain::for_address(address))?;
            only_v6(&datagrams, address)?;
            datagrams.bind(&address.into())?;
            let datagrams = UdpSocket::from(datagrams);
            let address = datagrams.local_addr()?;
            if slot == 0 {
                port = address.port();
            }
            let streams = self.socket(Domain::for_address(address))?;
            only_v6(&streams, address)?;
            // The port of a stopped agent is in TIME_WAIT for a minute.
            streams.set_reuse_address(true)?;
            streams.bind(&address.into())?;
            streams.listen(BACKLOG)?;
            slots.push((datagrams, TcpListener::from(streams)));
        }
        Ok(DnsSockets { port, slots })
    }

    /// A non-blocking UDP socket inside.
    pub fn datagram_socket(&self, domain: Domain) -> io::Result<Socket> {
        within(&self.file, || {
            Socket::new(domain, Type::DGRAM.nonblocking(), Some(Protocol::UDP))
        })
    }
}

/// `::1` is nobody's but IPv6's.
fn only_v6(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(())
}

fn v4_slot(slot: u32, port: u16) -> SocketAddr {
    let address = Ipv4Addr::from(address_of(slot).octets());
    SocketAddr::new(IpAddr::V4(address), port)
}

fn v6_slot(slot: u32, first: u16) -> SocketAddr {
    let port = port_of(slot, PortBe::new(first)).get();
    SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), port)
}
