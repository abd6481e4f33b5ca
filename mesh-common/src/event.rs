//! What the programs tell of single connections, through a ring buffer, while somebody follows.
//!
//! Nothing is decided or counted by these: a full ring loses the event, and says so.

use crate::{IpBe, PortBe};

/// Bits of [`crate::settings::Settings::events`].
pub mod follow {
    /// Refusals by policy.
    pub const DENIALS: u32 = 1;
    /// Opens, closes, connects that failed.
    pub const CONNECTIONS: u32 = 2;
}

/// Bytes of the ring: about 1,900 events.
pub const RING_BYTES: usize = 256 << 10;

/// What happened.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A connection was established.
    Opened = 1,
    /// One was closed.
    Closed = 2,
    /// A connect failed.
    Failed = 3,
    /// A policy refused one.
    Denied = 4,
}

/// One event. What does not apply is 0.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Record {
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub time_ns: u64,
    /// Of a closed one: since it was established.
    pub duration_ns: u64,
    /// Of a closed one: payload bytes, client to server, both kinds.
    pub sent: u64,
    /// Of a closed one: payload bytes, server to client, both kinds.
    pub received: u64,
    /// Of both, those that went from socket to socket.
    pub redirected: u64,
    /// A [`Kind`].
    pub kind: u32,
    /// The client's number in the names map.
    pub source: u32,
    /// The server's number in the names map.
    pub destination: u32,
    /// The service's number in the names map.
    pub service: u32,
    /// Who refused it, in the names map.
    pub policy: u32,
    /// A [`crate::policy::Verdict`].
    pub way: u32,
    /// Of a denied one a [`crate::access::Place`], of a failed one a [`crate::failure::Cause`], of a closed one
    /// the socket's error (errno).
    pub reason: u32,
    /// Of a closed one: the TCP state that it was in before.
    pub state: u32,
    /// Of a closed one: smoothed round trip in microseconds.
    pub rtt_us: u32,
    /// Of a closed one: smallest round trip in microseconds.
    pub min_rtt_us: u32,
    /// Of a closed one: segments sent again.
    pub retransmits: u32,
    /// The client's end.
    pub client_port: PortBe,
    /// The server's end.
    pub server_port: PortBe,
    /// The client's end.
    pub client: IpBe,
    /// The server's end; none where a SYN was refused.
    pub server: IpBe,
}

crate::assert_layout!(Record = 120);
