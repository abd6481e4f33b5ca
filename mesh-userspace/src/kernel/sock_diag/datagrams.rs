//! UDP sockets, listed and ended: `SOCK_DESTROY` gives such a socket the error ECONNABORTED and disconnects it.
//! <https://github.com/torvalds/linux/blob/v6.18/net/ipv4/udp_diag.c> `udp_diag_destroy`.

use std::{io, net::SocketAddr};

use super::{
    ACKNOWLEDGE, AF_INET, AF_INET6, ASK, DUMP, HEADER, ID, SOCK_DESTROY, SOCK_DIAG_BY_FAMILY,
    SockDiag, parse, request,
};

/// `TCP_ESTABLISHED`, which a connected UDP socket is in too.
const ESTABLISHED: u32 = 1 << 1;

/// A connected UDP socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DatagramSocket {
    family: u8,
    /// Whom it is connected to; IPv4 as IPv4, in an IPv6 socket too.
    pub remote: SocketAddr,
    /// Unique on the machine.
    pub cookie: u64,
    id: [u8; ID],
}

impl SockDiag {
    /// Those that are connected.
    pub fn connected_datagram_sockets(&self) -> io::Result<Vec<DatagramSocket>> {
        let mut sockets = Vec::new();
        for family in [AF_INET, AF_INET6] {
            let mut ask = about_datagrams(SOCK_DIAG_BY_FAMILY, DUMP, family);
            ask[HEADER + 4..HEADER + 8].copy_from_slice(&ESTABLISHED.to_ne_bytes());
            self.send(&ask)?;
            self.receive(|message| {
                sockets.extend(parse(message).map(|socket| DatagramSocket {
                    family: socket.family,
                    remote: socket.remote,
                    cookie: socket.cookie,
                    id: socket.id,
                }));
            })?;
        }
        Ok(sockets)
    }

    /// Ends one. False: it was gone, or is connected to somebody else.
    pub fn destroy_datagram_socket(&self, socket: &DatagramSocket) -> io::Result<bool> {
        let mut ask = about_datagrams(SOCK_DESTROY, ACKNOWLEDGE, socket.family);
        ask[HEADER + 4..HEADER + 8].fill(0xff);
        ask[HEADER + 8..].copy_from_slice(&socket.id);
        self.send(&ask)?;
        match self.receive(|_| ()) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn about_datagrams(kind: u16, flags: u16, family: u8) -> [u8; HEADER + ASK] {
    let mut message = request(kind, flags, family);
    message[HEADER + 1] = libc::IPPROTO_UDP as u8;
    message
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn a_connected_socket_is_found_and_learns_of_its_end() {
        for (from, to) in [
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("[::]:0", "127.0.0.1:0"),
            ("[::1]:0", "[::1]:0"),
        ] {
            let server = UdpSocket::bind(to).expect("a server");
            let at = server.local_addr().expect("its address");
            let client = UdpSocket::bind(from).expect("a client");
            let dialled = match at {
                SocketAddr::V4(v4) if from.starts_with("[::]") => {
                    SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port())
                }
                other => other,
            };
            client.connect(dialled).expect("connected");
            let diag = SockDiag::open().expect("privilege: run as root");
            let sockets = diag.connected_datagram_sockets().expect("a list");
            let found = sockets.iter().find(|one| one.remote == at);
            let found = found.unwrap_or_else(|| panic!("{from} to {at}: {sockets:?}"));
            assert!(diag.destroy_datagram_socket(found).expect("an answer"));
            let error = client.recv(&mut [0]).expect_err("it was ended");
            assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
            assert!(client.peer_addr().is_err());
            assert!(!diag.destroy_datagram_socket(found).expect("an answer"));
        }
    }
}
