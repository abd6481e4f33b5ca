//! The agent's listeners for names in a pod: one address per name server that the pod may dial.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
};

use mesh_common::dns::{SLOTS, address_of};
use socket2::{Domain, Protocol, Socket, Type};

use super::{Netns, NetnsError, within};

/// The port that they take where it is free.
const PORT: u16 = 15053;

/// How many other ports are tried.
const TRIES: usize = 8;

/// How many connections may wait per name server.
const BACKLOG: i32 = 128;

/// The listeners of one pod. All are non-blocking, on one port.
#[derive(Debug)]
pub struct DnsSockets {
    /// Their port.
    pub port: u16,
    /// By slot (`mesh_common::dns`).
    pub slots: Vec<(UdpSocket, TcpListener)>,
}

impl Netns {
    /// Listens in the pod, out of reach for anybody outside of it.
    pub fn dns_sockets(&self) -> Result<DnsSockets, NetnsError> {
        let mut opened = self.dns_sockets_on(PORT);
        for _ in 0..TRIES {
            if opened.is_ok() {
                break;
            }
            opened = self.dns_sockets_on(0);
        }
        opened.map_err(|source| NetnsError::Use {
            operation: "listening for names",
            path: self.path.clone(),
            source,
        })
    }

    fn dns_sockets_on(&self, port: u16) -> io::Result<DnsSockets> {
        let mut port = port;
        let mut slots = Vec::with_capacity(SLOTS as usize);
        for slot in 0..SLOTS {
            let address = Ipv4Addr::from(address_of(slot).octets());
            let datagrams = self.datagram_socket()?;
            datagrams.bind(&SocketAddr::from((address, port)).into())?;
            let datagrams = UdpSocket::from(datagrams);
            port = datagrams.local_addr()?.port();
            let streams = self.socket(Domain::IPV4)?;
            // The port of a stopped agent is in TIME_WAIT for a minute.
            streams.set_reuse_address(true)?;
            streams.bind(&SocketAddr::from((address, port)).into())?;
            streams.listen(BACKLOG)?;
            slots.push((datagrams, TcpListener::from(streams)));
        }
        Ok(DnsSockets { port, slots })
    }

    /// A non-blocking UDP socket inside.
    pub fn datagram_socket(&self) -> io::Result<Socket> {
        within(&self.file, || {
            let kind = Type::DGRAM.nonblocking();
            Socket::new(Domain::IPV4, kind, Some(Protocol::UDP))
        })
    }
}
