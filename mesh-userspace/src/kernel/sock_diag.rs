//! The TCP sockets of a network namespace, listed and closed by netlink (`sock_diag(7)`).
//!
//! `SOCK_DESTROY` needs `CONFIG_INET_DIAG_DESTROY` (Linux 4.5; on in every distribution's kernel):
//! <https://github.com/torvalds/linux/blob/v6.18/net/ipv4/tcp_diag.c> `tcp_diag_destroy`. It resets the
//! connection, so the other end learns of it too, wherever it is.

mod datagrams;

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    os::fd::{AsRawFd, OwnedFd},
};

use super::sys;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const DUMP: u16 = 0x300;
const ERROR: u16 = 2;
const DONE: u16 = 3;

const AF_INET: u8 = libc::AF_INET as u8;
const AF_INET6: u8 = libc::AF_INET6 as u8;

/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;
/// Bytes of `struct inet_diag_sockid`.
const ID: usize = 48;
/// Bytes of `struct inet_diag_req_v2`.
const ASK: usize = 8 + ID;

/// `TCP_LISTEN`.
pub const LISTEN: u8 = 10;
/// States that are no connection any more, or not yet one of the server's: SYN_SENT, TIME_WAIT, CLOSE.
const NOT_LISTED: u32 = 1 << 2 | 1 << 6 | 1 << 7;

/// A TCP socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpSocket {
    family: u8,
    /// The kernel's number of the state.
    pub state: u8,
    /// This end; IPv4 as IPv4, in an IPv6 socket too.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// Unique on the machine.
    pub cookie: u64,
    id: [u8; ID],
}

/// A netlink socket inside a namespace.
#[derive(Debug)]
pub struct SockDiag(OwnedFd);

impl SockDiag {
    /// Of the calling thread's namespace.
    pub fn open() -> io::Result<Self> {
        sys::netlink_sock_diag().map(Self)
    }

    /// Listeners and connections.
    pub fn sockets(&self) -> io::Result<Vec<TcpSocket>> {
        let mut sockets = Vec::new();
        for family in [AF_INET, AF_INET6] {
            let mut ask = request(SOCK_DIAG_BY_FAMILY, DUMP, family);
            ask[HEADER + 4..HEADER + 8].copy_from_slice(&(!NOT_LISTED).to_ne_bytes());
            self.send(&ask)?;
            self.receive(|message| sockets.extend(parse(message)))?;
        }
        Ok(sockets)
    }

    /// Resets a connection. False: it was gone.
    pub fn destroy(&self, socket: &TcpSocket) -> io::Result<bool> {
        self.destroy_by(socket.family, &socket.id)
    }

    /// Resets the other end of a connection, in the namespace of that end. False: it is not there.
    pub fn destroy_peer_of(&self, socket: &TcpSocket) -> io::Result<bool> {
        let mut id = [0; ID];
        id[0..2].copy_from_slice(&socket.id[2..4]);
        id[2..4].copy_from_slice(&socket.id[0..2]);
        id[4..20].copy_from_slice(&octets(socket.remote.ip()));
        id[20..36].copy_from_slice(&octets(socket.local.ip()));
        // Whatever its cookie.
        id[40..48].fill(0xff);
        let v4 = socket.local.is_ipv4();
        let family = if v4 { AF_INET } else { AF_INET6 };
        self.destroy_by(family, &id)
    }

    fn destroy_by(&self, family: u8, id: &[u8; ID]) -> io::Result<bool> {
        let mut ask = request(SOCK_DESTROY, ACKNOWLEDGE, family);
        ask[HEADER + 4..HEADER + 8].fill(0xff);
        ask[HEADER + 8..].copy_from_slice(id);
        self.send(&ask)?;
        match self.receive(|_| ()) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn send(&self, message: &[u8]) -> io::Result<()> {
        // SAFETY: a buffer of ours and its length.
        let sent = unsafe {
            libc::send(
                self.0.as_raw_fd(),
                message.as_ptr().cast(),
                message.len(),
                0,
            )
        };
        if sent < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// Hands over each message's content, until the answer is complete.
    fn receive(&self, mut each: impl FnMut(&[u8])) -> io::Result<()> {
        let mut buffer = vec![0_u8; 64 << 10];
        loop {
            // SAFETY: a buffer of ours and its length.
            let got = unsafe {
                libc::recv(
                    self.0.as_raw_fd(),
                    buffer.as_mut_ptr().cast(),
                    buffer.len(),
                    0,
                )
            };
            let got = usize::try_from(got).map_err(|_| io::Error::last_os_error())?;
            let mut rest = &buffer[..got];
            while rest.len() >= HEADER {
                let length = word(rest, 0) as usize;
                if length < HEADER || length > rest.len() {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "a netlink message with a wrong length",
                    ));
                }
                let content = &rest[HEADER..length];
                match u16::from_ne_bytes([rest[4], rest[5]]) {
                    DONE => return Ok(()),
                    ERROR if content.len() >= 4 => {
                        let code = word(content, 0).cast_signed();
                        return match code {
                            0 => Ok(()),
                            code => Err(io::Error::from_raw_os_error(-code)),
                        };
                    }
                    SOCK_DIAG_BY_FAMILY => each(content),
                    _ => {}
                }
                rest = &rest[(length.next_multiple_of(4)).min(rest.len())..];
            }
        }
    }
}

/// A request with an empty id: `struct nlmsghdr` and `struct inet_diag_req_v2`.
fn request(kind: u16, flags: u16, family: u8) -> [u8; HEADER + ASK] {
    let mut message = [0; HEADER + ASK];
    message[0..4].copy_from_slice(&((HEADER + ASK) as u32).to_ne_bytes());
    message[4..6].copy_from_slice(&kind.to_ne_bytes());
    message[6..8].copy_from_slice(&(REQUEST | flags).to_ne_bytes());
    message[HEADER] = family;
    message[HEADER + 1] = libc::IPPROTO_TCP as u8;
    message
}

/// A `struct inet_diag_msg`.
fn parse(message: &[u8]) -> Option<TcpSocket> {
    let id: [u8; ID] = message.get(4..4 + ID)?.try_into().ok()?;
    let family = message[0];
    let end = |port: usize, address: usize| {
        let port = u16::from_be_bytes([id[port], id[port + 1]]);
        let bytes = &id[address..address + 16];
        let address = if family == AF_INET {
            IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]])
        } else {
            let bytes: [u8; 16] = bytes.try_into().ok()?;
            Ipv6Addr::from(bytes).to_canonical()
        };
        Some(SocketAddr::new(address, port))
    };
    Some(TcpSocket {
        family,
        state: message[1],
        local: end(0, 4)?,
        remote: end(2, 20)?,
        cookie: u64::from(word(&id, 40)) | u64::from(word(&id, 44)) << 32,
        id,
    })
}

fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&v4.octets());
            bytes
        }
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use std::{
        io::Read as _,
        net::{TcpListener, TcpStream},
    };

    use super::*;

    #[test]
    fn a_connection_is_found_and_both_ends_learn_of_its_end() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let at = listener.local_addr().expect("its address");
        let mut client = TcpStream::connect(at).expect("a connection");
        let (mut server, from) = listener.accept().expect("its other end");
        let diag = SockDiag::open().expect("privilege: run as root");
        let sockets = diag.sockets().expect("a list");
        let of = |state, remote| {
            let found = sockets
                .iter()
                .find(|one| one.local == at && one.state == state && remote == one.remote.port());
            *found.expect("listed")
        };
        of(LISTEN, 0);
        let end = of(1, from.port());
        assert!(diag.destroy(&end).expect("privilege: run as root"));
        let error = client.read(&mut [0]).expect_err("it was reset");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert!(server.read(&mut [0]).is_err());
        assert!(!diag.destroy(&end).expect("an answer"));
        assert!(!diag.destroy_peer_of(&end).expect("an answer"));
    }
}
