//! What waits in queues: the peer's, before more is redirected into it; one's own, before the socket
//! leaves the socket map.
//!
//! The structures of the kernel are read by their addresses, which user space cannot hand in. A peer may
//! be gone by then: reading there gives another cookie, or zeros.
//! <https://github.com/torvalds/linux/blob/v6.18/include/linux/skmsg.h> `struct sk_psock`.

use core::mem::offset_of;

use mesh_common::connection::{Connection, Sending};

use crate::kernel::{TcpSock, offset, read_at};

/// The other end's record, from afar.
#[derive(Clone, Copy)]
pub struct PeerRecord {
    address: u64,
    cookie: u64,
}

/// A field of a record that is read from afar.
macro_rules! field {
    ($peer:expr, $field:ident) => {
        read_at($peer.address, offset_of!(Connection, $field) as u32)
    };
}

impl PeerRecord {
    /// What `record` knows of its peer.
    #[inline(always)]
    pub fn of(record: &Connection) -> Self {
        Self {
            address: record.peer_record,
            cookie: record.peer,
        }
    }

    /// Read after what was read of it: whether that was the peer's.
    #[inline(always)]
    fn is_there(self) -> bool {
        let cookie: u64 = field!(self, cookie);
        cookie == self.cookie
    }

    /// Bytes that may be redirected to it now.
    ///
    /// Half of its receive buffer is the bound: TCP promises a window of the other half, and drops what
    /// comes beyond both. A peer that is gone has room for all: redirecting to it then fails by itself.
    #[inline(always)]
    pub fn room(self) -> u32 {
        let sock: u64 = field!(self, sock);
        let queued: u32 = read_at(sock, offset!(sk_rmem_alloc));
        let buffer: u32 = read_at(sock, offset!(sk_rcvbuf));
        if self.is_there() {
            (buffer / 2).saturating_sub(queued)
        } else {
            u32::MAX
        }
    }

    /// Whether its application has read everything that was sent to it by TCP, up to `write_seq`.
    #[inline(always)]
    pub fn has_read_up_to(self, write_seq: u32) -> bool {
        let sock: u64 = field!(self, sock);
        let read: u32 = read_at(sock, offset!(copied_seq));
        read == write_seq && self.is_there()
    }

    /// Whether it is open, so that somebody may still ask about it.
    #[inline(always)]
    pub fn is_open(self) -> bool {
        let settled: u32 = field!(self, settled);
        settled == 0 && self.is_there()
    }

    /// Bytes that it has redirected; None: it is gone.
    #[inline(always)]
    pub fn redirected_bytes(self) -> Option<u64> {
        let bytes: u64 = field!(self, redirected_bytes);
        self.is_there().then_some(bytes)
    }

    /// Messages that it has redirected.
    #[inline(always)]
    pub fn messages(self) -> u64 {
        field!(self, redirected_messages)
    }

    /// Whether nothing that it redirects can come any more: it sends by TCP for good, or is gone.
    #[inline(always)]
    pub fn is_done(self) -> bool {
        let sending: u32 = field!(self, sending);
        let clean: u32 = field!(self, clean);
        (sending == Sending::Plain as u32 && clean != 0) || !self.is_there()
    }
}

/// A socket's part in a socket map.
#[derive(Clone, Copy)]
pub struct Psock {
    sock: u64,
    address: u64,
}

impl Psock {
    /// Of a socket that is in one; else all is zeros.
    #[inline(always)]
    pub fn of(tcp: TcpSock) -> Self {
        let sock = tcp.address();
        let data: u64 = read_at(sock, offset!(sk_user_data));
        Self {
            sock,
            address: data & !7,
        }
    }

    /// System calls that send or receive on the socket right now.
    #[inline(always)]
    pub fn calls(self) -> u32 {
        let users: u32 = read_at(self.address, offset!(psock_refcnt));
        users.wrapping_sub(1)
    }

    /// Whether a system call has the socket: without, this runs in an interrupt.
    #[inline(always)]
    pub fn in_call(self) -> bool {
        let owned: u32 = read_at(self.sock, offset!(sk_lock_owned));
        owned != 0
    }

    /// Whether everything was read.
    #[inline(always)]
    pub fn is_empty(self) -> bool {
        let list = self.address + u64::from(offset!(psock_messages));
        let first: u64 = read_at(list, 0);
        let backlog: u32 = read_at(self.address, offset!(psock_backlog));
        first == list && backlog == 0
    }

    /// Whether nobody is about to wait, or waits, for bytes with what the socket is now: such a read would
    /// return EAGAIN once the socket has left the map, which a socket that does not block may.
    #[inline(always)]
    pub fn is_unattended(self, tcp: TcpSock) -> bool {
        if !tcp.blocks() {
            return true;
        }
        let queue: u64 = read_at(self.sock, offset!(sk_wq));
        let list = queue + u64::from(offset!(wq_waiters));
        let first: u64 = read_at(list, 0);
        let sleeps = queue != 0 && first != list;
        !sleeps && self.calls() == u32::from(self.in_call())
    }
}
