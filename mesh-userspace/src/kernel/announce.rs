//! The agent's own connections to guarded pods, announced as `sock_ops` announces those of the pods (see
//! `vouch.rs` of the programs): the agent may run where the programs do not see its sockets.

use std::{io, net::SocketAddr};

use aya::maps::{HashMap as BpfMap, MapData};
use mesh_common::{PortBe, access::AnnouncedKey, names};
use socket2::Socket;

use super::{
    loader::PinDir,
    sys,
    tables::{self, TableError},
};

/// The map of announcements.
pub(super) struct Announcements(BpfMap<MapData, AnnouncedKey, u64>);

impl Announcements {
    /// Opens the pin.
    pub(super) fn open(pins: &PinDir) -> Result<Self, TableError> {
        tables::open(names::ANNOUNCED, &pins.map(names::ANNOUNCED)).map(Self)
    }

    /// Announces a socket of the namespace `netns` that is about to connect from `own` to `server`. Its port
    /// must be known for that, so it is bound here.
    pub(super) fn announce(
        &mut self,
        socket: &Socket,
        netns: u64,
        own: SocketAddr,
        server: SocketAddr,
    ) -> io::Result<()> {
        // Lets it share its port with connections that are over.
        socket.set_reuse_address(true)?;
        socket.bind(&own.into())?;
        let bound = socket.local_addr()?.as_socket();
        let own = bound.ok_or_else(|| io::Error::other("a socket without an IP address"))?;
        let key = AnnouncedKey {
            netns,
            client_address: own.ip().into(),
            server_address: server.ip().into(),
            client_port: PortBe::new(own.port()),
            server_port: PortBe::new(server.port()),
            reserved: 0,
        };
        self.0
            .insert(key, sys::monotonic_ns(), 0)
            .map_err(io::Error::other)
    }
}
