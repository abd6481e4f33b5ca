//! What the programs remember of a connection, and how its two ends find each other.

use crate::{IpBe, PortBe};

/// What is known of one socket; lives in the socket's own storage and goes with it.
///
/// Written by connect and `sock_ops`; `sk_msg` alone writes the sending direction's fields once the
/// socket is established, under the socket's lock, so they need no atomics.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Connection {
    /// The socket's cookie: its key in the sockets map.
    pub cookie: u64,
    /// Cookie of its network namespace.
    pub netns: u64,
    /// The other end's socket cookie; 0 until the two are paired.
    pub peer: u64,
    /// Kernel address of the other end's record, 0 where unknown. May be stale: whoever reads there
    /// compares the cookie.
    pub peer_record: u64,
    /// Kernel address of this socket.
    pub sock: u64,
    /// `CLOCK_MONOTONIC` nanoseconds at established.
    pub opened_ns: u64,
    /// Payload bytes that this end sent into the peer's queue, past TCP.
    pub redirected_bytes: u64,
    /// Messages that did.
    pub redirected_messages: u64,
    /// Of the peer's messages, those that were there when this end last looked.
    pub heard: u64,
    /// The address that the application dialled, where connect replaced it; else none.
    pub dialled_address: IpBe,
    /// This end.
    pub local_address: IpBe,
    /// The other end.
    pub remote_address: IpBe,
    /// The port that the application dialled, where connect replaced it; else 0.
    pub dialled_port: PortBe,
    /// This end.
    pub local_port: PortBe,
    /// The other end.
    pub remote_port: PortBe,
    /// Of a client: a [`Counted`].
    pub counted: u16,
    /// Explicit.
    pub reserved: [u16; 2],
    /// The client's number in the names map; 0 where unknown.
    pub source: u32,
    /// The server's number in the names map; 0 where unknown.
    pub destination: u32,
    /// The service's number in the names map; 0 where none was dialled.
    pub service: u32,
    /// A [`crate::policy::Verdict`]: the way that was taken.
    pub way: u32,
    /// A [`Role`].
    pub role: u32,
    /// A [`Sending`]: how this end's bytes travel.
    pub sending: u32,
    /// A [`Plain`]: why they travel as plain TCP.
    pub plain: u32,
    /// `tcp_sock.write_seq` before the first byte: another value at the first send means that bytes
    /// went by TCP before.
    pub first_sequence: u32,
    /// 1 once its bytes are in the traffic map: a record of the live must not count them again.
    pub settled: u32,
    /// Of a client: bits of [`hazard`]. Of a listener: bits of [`listener`]. Of both: bits of
    /// [`crate::caveat`].
    pub hazards: u32,
    /// 1 once both ends agreed to redirection: bytes may be queued past TCP, so the socket stays in the
    /// socket map until the other end sends by TCP for good, and all was read.
    pub agreed: u32,
    /// Bytes that may be redirected before the peer's queue is looked at again.
    pub credit: u32,
    /// Small messages since the peer's were last looked at.
    pub small: u32,
    /// 1: bytes go by TCP, and no redirected message is under way any more.
    pub clean: u32,
    /// 1: the other end sends by TCP for good, so this one is to do the same.
    pub told: u32,
}

impl Connection {
    /// Whether somebody knows better than to ask whether this client's reads block.
    #[inline(always)]
    pub const fn forced(&self) -> u32 {
        self.hazards & hazard::FORCED
    }
}

/// Bits of [`Connection::hazards`] of a client.
pub mod hazard {
    /// Its reads block.
    pub const BLOCKS: u32 = 1;
    /// An annotation says that this is no reason.
    pub const FORCED: u32 = 2;
}

/// Value of the peers map: who is there.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Peer {
    /// Its socket cookie.
    pub cookie: u64,
    /// Kernel address of its record.
    pub record: u64,
}

/// In the peers map: there is no redirecting to this one.
pub const NOBODY: Peer = Peer {
    cookie: 0,
    record: 0,
};

/// Which end of a connection a socket is.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Not established yet.
    None = 0,
    /// It connected.
    Client = 1,
    /// It was accepted.
    Server = 2,
    /// The agent's own socket: never caught, never counted. Set by the agent, out of a pod's reach.
    Agent = 3,
    /// It listens, or will.
    Listener = 4,
}

/// Whether a client's socket is among the open connections of its endpoint.
#[repr(u16)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// Nobody asks.
    No = 0,
    /// It will be, from its SYN on.
    Wanted = 1,
    /// It is.
    Yes = 2,
}

/// How the bytes that a socket sends travel. Only Redirect and Detour alternate; Plain is the last.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sending {
    /// Nothing was sent yet.
    Undecided = 0,
    /// From socket to socket.
    Redirect = 1,
    /// As TCP, for ever: redirected bytes could overtake TCP's that are still under way.
    Plain = 2,
    /// As TCP until the reader has caught up, which proves that nothing is under way.
    Detour = 3,
}

/// Why a direction is plain TCP.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plain {
    /// It is not.
    No = 0,
    /// The other end is not an enrolled pod of this node.
    Remote = 1,
    /// Switched off for the node.
    SwitchedOff = 2,
    /// Switched off for one of the pods.
    Workload = 3,
    /// The port is excluded.
    Port = 4,
    /// The kernel refused the socket: another tool's socket map holds it, or ours is full.
    Refused = 5,
    /// At the first send the other end was not there yet (`TCP_DEFER_ACCEPT`, a race).
    PeerNotThere = 6,
    /// Bytes had gone by TCP before the first send that could be seen (`MSG_FASTOPEN`).
    SentBefore = 7,
    /// The other end has closed.
    PeerGone = 8,
    /// It is one leg of a connection by the agent.
    Agent = 9,
    /// The server's listener has `TCP_DEFER_ACCEPT`: the client's first bytes come before the server's end.
    Deferred = 10,
    /// One end's reads block: from a socket map they could return EAGAIN, which plain TCP never does.
    Blocking = 11,
    /// The server spoke first, before the client had shown that it may be redirected to.
    ServerFirst = 12,
    /// The other end is not to be redirected to, so neither is this one.
    PeerPlain = 13,
    /// The reader lags: what is queued for it reached the bound, from where on TCP's own flow control holds
    /// the sender back. With [`Sending::Detour`], until it has caught up.
    Queued = 14,
    /// Many small messages and hardly an answer: TCP joins them, redirection would wake the reader for each.
    SmallMessages = 15,
    /// The first message alone is as large as the bound.
    LargeMessage = 16,
    /// An option was set before the first byte that redirection could not honour: [`crate::caveat`].
    Option = 20,
    /// One end's executable is on the list: [`crate::executable`].
    Executable = 21,
    /// The application has shut its sending down: TCP refuses what it sends all the same.
    ShutDown = 22,
    /// The client is a pod in the host's namespace: those are not paired.
    Host = 40,
}

/// A connection whose client is established and whose server is not yet.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct HandshakeKey {
    /// Cookie of the client's network namespace: equal tuples in two namespaces stay apart.
    pub client_netns: u64,
    /// Cookie of the server's network namespace.
    pub server_netns: u64,
    /// The client's end.
    pub client_address: IpBe,
    /// The server's end.
    pub server_address: IpBe,
    /// The client's end.
    pub client_port: PortBe,
    /// The server's end.
    pub server_port: PortBe,
    /// Explicit.
    pub reserved: u32,
}

/// What the client knows when it is established. The server's sequence numbers must mirror it, or the
/// two are not ends of one connection, or bytes were already under way.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Handshake {
    /// The client's end.
    pub client: Peer,
    /// The client's `snd_nxt`.
    pub sent: u32,
    /// The client's `rcv_nxt`.
    pub received: u32,
    /// The service's number in the names map.
    pub service: u32,
    /// A [`crate::policy::Verdict`].
    pub way: u32,
    /// 1 where somebody knows better than to ask whether the client's reads block.
    pub forced: u32,
    /// Explicit.
    pub reserved: u32,
}

/// A port that is listened on.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct ListenerKey {
    /// Cookie of its network namespace.
    pub netns: u64,
    /// Where it listens.
    pub port: PortBe,
    /// Explicit.
    pub reserved: [u16; 3],
}

/// What is known of a listener; bits of the listeners map's values.
pub mod listener {
    /// It has `TCP_DEFER_ACCEPT`.
    pub const DEFERS: u32 = 1;
    /// The socket blocks and its process has several threads: see [`super::Plain::Blocking`].
    pub const BLOCKS: u32 = 2;
}

/// A client's end of a connection to the agent's listener.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct OriginKey {
    /// Cookie of the pod's network namespace.
    pub netns: u64,
    /// The client's end.
    pub address: IpBe,
    /// The client's end.
    pub port: PortBe,
    /// Explicit.
    pub reserved: [u16; 3],
}

/// Where that client wanted to go.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Origin {
    /// The address that was dialled.
    pub address: IpBe,
    /// The port that was dialled.
    pub port: PortBe,
    /// Explicit.
    pub reserved: u16,
}

/// One record of `dump_connections`, as it is read from the pinned iterator.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConnectionRecord {
    /// The socket's storage.
    pub connection: Connection,
    /// Payload bytes that this end sent by TCP.
    pub tcp_sent: u64,
    /// Payload bytes that this end received by TCP.
    pub tcp_received: u64,
    /// Smoothed round trip in microseconds; 0 where unknown.
    pub rtt_us: u32,
    /// The socket's TCP state (`TCP_ESTABLISHED` is 1).
    pub state: u32,
    /// Smallest round trip of the last minutes (`net.ipv4.tcp_min_rtt_wlen`) in microseconds; 0 where unknown.
    pub min_rtt_us: u32,
    /// Segments that this end sent again.
    pub retransmits: u32,
}

crate::assert_layout!(
    Connection = 192,
    HandshakeKey = 56,
    Handshake = 40,
    ListenerKey = 16,
    OriginKey = 32,
    Origin = 20,
    Peer = 16,
    ConnectionRecord = 192 + 32,
);
