//! Who may connect to a pod: authorization and peer authentication, compiled.
//!
//! A pod that some policy selects has a set. In it the longest prefix that covers the client's address
//! says what becomes of the connection: an identity is known by its pod's address, so identities are
//! prefixes of full length. Ports that are judged otherwise have entries of their own.

use crate::{IpBe, PortBe};

/// A set that was too large for the maps: nobody may connect.
pub const NOBODY: u32 = u32::MAX;

/// What holds for a pod, by the cookie of its network namespace.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Access {
    /// First half of [`SourceKey`]; [`NOBODY`]: everybody is refused.
    pub set: u32,
    /// The pod's number in the names map.
    pub workload: u32,
}

/// An address in a set; the key of a prefix trie. All of the set's bits always count.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct SourceKey {
    /// [`Access::set`].
    pub set: u32,
    /// The client's, or a block's that it may lie in.
    pub address: IpBe,
}

/// Bits of [`SourceKey::set`], which come before those of the address.
pub const SET_BITS: u32 = 32;

/// What becomes of connections from a prefix.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SourceAccess {
    /// 1: refused.
    pub denied: u32,
    /// Who decided, in the names map; 0: nobody.
    pub policy: u32,
    /// [`PortKey::table`] of the ports that are judged otherwise; 0: none is.
    pub ports: u32,
}

/// A port of a pod that is judged otherwise than its other ports.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct PortKey {
    /// [`Access::set`].
    pub set: u32,
    /// [`SourceAccess::ports`].
    pub table: u32,
    /// Where the pod listens.
    pub port: PortBe,
    /// Explicit.
    pub reserved: u16,
}

/// What becomes of connections to such a port.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PortAccess {
    /// 1: refused.
    pub denied: u32,
    /// Who decided, in the names map; 0: nobody.
    pub policy: u32,
}

/// Who was refused by whom.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct DenialKey {
    /// The client's number in the names map; 0 where it is not enrolled.
    pub source: u32,
    /// The server's number in the names map.
    pub destination: u32,
    /// Who decided, in the names map.
    pub policy: u32,
    /// A [`Place`].
    pub place: u32,
}

/// Where a connection was refused.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// At the client's connect().
    Connect = 0,
    /// At the SYN that reached the server's pod.
    Syn = 1,
    /// By the agent, which carries the connection. Counted by the agent.
    Agent = 2,
}

/// A connection that a pod's own socket is about to ask for: no other may claim to be it. The value is the
/// time, `CLOCK_MONOTONIC` nanoseconds.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct AnnouncedKey {
    /// Cookie of the namespace of the socket that asks.
    pub netns: u64,
    /// Where it comes from.
    pub client_address: IpBe,
    /// Where it goes to.
    pub server_address: IpBe,
    /// Where it comes from.
    pub client_port: PortBe,
    /// Where it goes to.
    pub server_port: PortBe,
    /// Explicit.
    pub reserved: u32,
}

/// For how long an announcement holds, in nanoseconds: longer than a SYN is sent again (tcp_syn_retries(7)).
pub const ANNOUNCED_NS: u64 = 180_000_000_000;

crate::assert_layout!(
    AnnouncedKey = 48,
    Access = 8,
    SourceKey = 20,
    SourceAccess = 12,
    PortKey = 12,
    PortAccess = 8,
    DenialKey = 16,
);
