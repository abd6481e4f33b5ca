//! Name servers that pods dialled: how a query that was turned to the agent keeps its destination.
//!
//! A pod has listeners of the agent, one per slot, and a slot stands for one name server. On IPv4 they are at
//! 127.0.0.1, 127.0.0.2 and so on, on one port; on IPv6, which has one loopback address, on ports that
//! follow each other. So where a query arrives says where it was sent, for every kind of socket, and an
//! answer's source says what to give back.

use crate::{IpBe, Ipv4Be, PortBe, policy::Workload};

/// The port that names are asked at.
pub const PORT: u16 = 53;

/// How many name servers of one pod are known; queries to more go untouched. resolv.conf(5) reads three.
pub const SLOTS: u32 = 4;

/// 127.0.0.0, in host order.
const LOOPBACK: u32 = 0x7f00_0000;

/// Key of the nameservers map; the value is the name server's [`IpBe`].
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

/// The address of a slot's listeners on IPv4.
#[inline(always)]
pub const fn address_of(slot: u32) -> Ipv4Be {
    Ipv4Be((LOOPBACK + 1 + slot).to_be())
}

/// The port of a slot's listeners on IPv6, where the first slot's is `first`.
#[inline(always)]
pub const fn port_of(slot: u32, first: PortBe) -> PortBe {
    PortBe::new(first.get().wrapping_add(slot as u16))
}

/// Where a pod's listeners for a slot are, for a query to an address of the family of `like`. None: there
/// are none.
#[inline(always)]
pub const fn listener(workload: &Workload, slot: u32, like: IpBe) -> Option<(IpBe, PortBe)> {
    if like.is_v4() {
        if workload.dns.0 == 0 {
            return None;
        }
        Some((IpBe::from_v4(address_of(slot)), workload.dns))
    } else {
        if workload.dns6.0 == 0 {
            return None;
        }
        Some((IpBe::LOOPBACK_V6, port_of(slot, workload.dns6)))
    }
}

/// The slot whose listeners are at `address` and `port` of a pod.
#[inline(always)]
pub const fn slot_at(workload: &Workload, address: IpBe, port: PortBe) -> Option<u32> {
    let slot = if address.is_v4() {
        if port.0 != workload.dns.0 {
            return None;
        }
        u32::from_be(address.0[3]).wrapping_sub(LOOPBACK + 1)
    } else if address.is(IpBe::LOOPBACK_V6) && workload.dns6.0 != 0 {
        (port.get() as u32).wrapping_sub(workload.dns6.get() as u32)
    } else {
        return None;
    };
    if slot < SLOTS { Some(slot) } else { None }
}

/// Whether an answer from this address can be from a listener: the check that costs nothing.
#[inline(always)]
pub const fn may_listen_at(address: IpBe) -> bool {
    if address.is_v4() {
        u32::from_be(address.0[3]).wrapping_sub(LOOPBACK + 1) < SLOTS
    } else {
        address.is(IpBe::LOOPBACK_V6)
    }
}

crate::assert_layout!(NameserverKey = 16);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_known_by_where_it_listens() {
        let workload = Workload {
            dns: PortBe::new(15053),
            dns6: PortBe::new(40000),
            ..Workload::default()
        };
        let v4 = IpBe::from_v4(Ipv4Be::from_octets([10, 96, 0, 10]));
        let v6 = IpBe([0xfd, 0, 0, 0x53]);
        for like in [v4, v6] {
            for slot in 0..SLOTS {
                let (address, port) = listener(&workload, slot, like).expect("it listens");
                assert!(may_listen_at(address) && address.is_v4() == like.is_v4());
                assert_eq!(slot_at(&workload, address, port), Some(slot));
            }
            assert!(!may_listen_at(like));
            assert_eq!(slot_at(&workload, like, PortBe::new(15053)), None);
        }
        let beyond = IpBe::from_v4(address_of(SLOTS));
        assert_eq!(slot_at(&workload, beyond, workload.dns), None);
        assert_eq!(
            slot_at(&workload, IpBe::LOOPBACK_V6, PortBe::new(40004)),
            None
        );
        assert_eq!(
            slot_at(&workload, IpBe::LOOPBACK_V6, PortBe::new(39999)),
            None
        );
        assert_eq!(listener(&Workload::default(), 0, v4), None);
        assert_eq!(
            slot_at(&Workload::default(), IpBe::LOOPBACK_V6, PortBe(0)),
            None
        );
    }
}
