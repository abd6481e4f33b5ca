//! Name servers that pods dialled: how a query that was turned to the agent keeps its destination.
//!
//! A pod has the agent's listeners on 127.0.0.1, 127.0.0.2 and so on, one per slot, and a slot stands for
//! one name server. So the address that a query arrives at says where it was sent, for every kind of
//! socket, and an answer's source says what to give back.

use crate::Ipv4Be;

/// The port that names are asked at.
pub const PORT: u16 = 53;

/// How many name servers of one pod are known; queries to more go untouched. resolv.conf(5) reads three.
pub const SLOTS: u32 = 4;

/// 127.0.0.0, in host order.
const LOOPBACK: u32 = 0x7f00_0000;

/// Key of the nameservers map; the value is the name server's [`Ipv4Be`].
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct NameserverKey {
    /// Cookie of the pod's network namespace.
    pub netns: u64,
    /// 0..[`SLOTS`].
    pub slot: u32,
    /// Explicit.
    pub reserved: u32,
}

impl NameserverKey {
    /// Of a pod.
    #[inline(always)]
    pub const fn new(netns: u64, slot: u32) -> Self {
        Self {
            netns,
            slot,
            reserved: 0,
        }
    }
}

/// The listeners' address of a slot.
#[inline(always)]
pub const fn address_of(slot: u32) -> Ipv4Be {
    Ipv4Be((LOOPBACK + 1 + slot).to_be())
}

/// The slot of a listeners' address.
#[inline(always)]
pub const fn slot_at(address: Ipv4Be) -> Option<u32> {
    let slot = u32::from_be(address.0).wrapping_sub(LOOPBACK + 1);
    if slot < SLOTS { Some(slot) } else { None }
}

crate::assert_layout!(NameserverKey = 16);
