//! How an endpoint is chosen: what the policies of a service port ask for, and what is remembered for them.

use crate::{IpBe, PortBe};

/// Who gets a service port's next connection.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    /// Any endpoint, by weight.
    Random = 0,
    /// The endpoints in turn.
    RoundRobin = 1,
    /// Of two random ones that with fewer open connections of this node.
    LeastConnections = 2,
}

/// Key of the affinity map: a client of a service port.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct AffinityKey {
    /// The client pod's number in the names map.
    pub client: u32,
    /// The service's address.
    pub address: IpBe,
    /// The service's port.
    pub port: PortBe,
    /// As [`crate::policy::FrontendKey::protocol`].
    pub protocol: u16,
}

/// The endpoint that this client had last.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Affinity {
    /// `CLOCK_MONOTONIC` nanoseconds of its last connection.
    pub used_ns: u64,
    /// Where the endpoint was found, first half of [`crate::policy::EndpointKey`]: a hint.
    pub group: u32,
    /// Second half.
    pub slot: u32,
    /// The endpoint.
    pub address: IpBe,
    /// The endpoint.
    pub port: PortBe,
    /// Explicit.
    pub reserved: [u16; 3],
}

/// Key of the served and unseen maps: a port of a network namespace. Loopback does not count: no client comes
/// there.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct ServedKey {
    /// Cookie of the network namespace.
    pub netns: u64,
    /// The port.
    pub port: PortBe,
    /// [`family::V4`] or [`family::V6`].
    pub family: u16,
    /// Explicit.
    pub reserved: u32,
}

impl ServedKey {
    /// What `address` and `port` are, in that namespace.
    #[inline(always)]
    pub const fn new(netns: u64, port: PortBe, family: u16) -> Self {
        Self {
            netns,
            port,
            family,
            reserved: 0,
        }
    }
}

/// Bits of [`Listening::families`]; each alone is a [`ServedKey::family`].
pub mod family {
    /// IPv4.
    pub const V4: u16 = 1;
    /// IPv6.
    pub const V6: u16 = 2;
}

/// Value of the listening map: what a listening socket, by its cookie, was counted as.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Listening {
    /// Cookie of its network namespace.
    pub netns: u64,
    /// Where it listens.
    pub port: PortBe,
    /// Bits of [`family`].
    pub families: u16,
    /// Explicit.
    pub reserved: u32,
}

crate::assert_layout!(
    AffinityKey = 24,
    Affinity = 40,
    ServedKey = 16,
    Listening = 16,
);
