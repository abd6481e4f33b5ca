//! What the programs remember of a UDP socket that talks to services.

use crate::{IpBe, PortBe};

/// How many services one socket may talk to at a time; of more, the one that was longest not sent to gives
/// way: its next datagram may go to another endpoint, and an answer that is still under way has the
/// endpoint's address.
pub const EXCHANGES: usize = 8;

/// [`Exchange::used`] of the exchange that the socket is connected to.
pub const CONNECTED: u64 = u64::MAX;

/// A service that a socket talks to, and the endpoint that stands for it.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Exchange {
    /// What the application dialled; none where the entry is free.
    pub service_address: IpBe,
    /// Who gets it.
    pub endpoint_address: IpBe,
    /// What the application dialled; 0 where the entry is free.
    pub service_port: PortBe,
    /// Who gets it.
    pub endpoint_port: PortBe,
    /// [`crate::policy::Frontend::group`] that the endpoint was last found in.
    pub group: u32,
    /// [`Exchanges::clock`] when it was last sent to; [`CONNECTED`] by connect(2); 0 where the entry is free.
    pub used: u64,
}

/// All of them; lives in the socket's own storage and goes with it. Written under the socket's lock.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exchanges {
    /// The socket's cookie.
    pub cookie: u64,
    /// Cookie of its network namespace.
    pub netns: u64,
    /// Grows by one with each datagram that is sent to a service.
    pub clock: u64,
    /// The pod's number in the names map.
    pub source: u32,
    /// The programs' own note: which entry they are at.
    pub cursor: u32,
    /// In no order.
    pub entries: [Exchange; EXCHANGES],
}

crate::assert_layout!(Exchange = 48, Exchanges = 32 + 48 * EXCHANGES);
