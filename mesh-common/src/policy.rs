//! What user space compiled for the programs: who is enrolled, what stands at an address, where to go.

use crate::{IpBe, PortBe};

/// An enrolled pod, by the cookie of its network namespace; one in the host's namespace by the id of its
/// cgroup.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Workload {
    /// Its number in the names map.
    pub id: u32,
    /// Its own IPv4 address, the source of its connections to the agent; none where it has none.
    pub address: IpBe,
    /// The same of IPv6.
    pub address6: IpBe,
    /// The agent's listener on 127.0.0.1 in the pod's namespace; 0 where there is none.
    pub listener: PortBe,
    /// The same on `::1`.
    pub listener6: PortBe,
    /// The agent's listeners for names on IPv4, see [`crate::dns`]; 0 where there are none.
    pub dns: PortBe,
    /// The same on `::1`: the first slot's port.
    pub dns6: PortBe,
    /// See [`flags`].
    pub flags: u32,
}

impl Workload {
    /// Its own address of the family of `like`.
    #[inline(always)]
    pub const fn own_address(&self, like: IpBe) -> IpBe {
        if like.is_v4() {
            self.address
        } else {
            self.address6
        }
    }

    /// The agent's listener for connections of the family of `like`.
    #[inline(always)]
    pub const fn listener_for(&self, like: IpBe) -> PortBe {
        if like.is_v4() {
            self.listener
        } else {
            self.listener6
        }
    }
}

/// Bits of [`Workload::flags`] and [`LocalPod::flags`].
pub mod flags {
    /// The pod's connections stay plain TCP.
    pub const NO_ACCELERATION: u32 = 1;
    /// Redirected even where a blocking read could show it: somebody knows better.
    pub const FORCE_ACCELERATION: u32 = 4;
    /// The excluded_ports map has entries for it.
    pub const EXCLUDES_PORTS: u32 = 8;
    /// Connections that need the agent are refused while there is none.
    pub const FAIL_CLOSED: u32 = 2;
    /// No pod, but the host's namespace: some of its processes are pods, known by their cgroup.
    pub const BY_CGROUP: u32 = 16;
    /// Some policy selects the pod: it is to have an entry in the access map.
    pub const GUARDED: u32 = 32;
}

/// A service port by its address.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct FrontendKey {
    /// A cluster IP.
    pub address: IpBe,
    /// The service's port.
    pub port: PortBe,
    /// `IPPROTO_TCP` or `IPPROTO_UDP`.
    pub protocol: u16,
}

/// What stands at a frontend. Replaced in one map update, so a connect sees the old or the new whole.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Frontend {
    /// Its number in the names map.
    pub service: u32,
    /// A [`Verdict`].
    pub verdict: u32,
    /// The endpoints in force: first half of [`EndpointKey`]. A new set gets a new group.
    pub group: u32,
    /// How many slots the group has, in the order of their addresses; 0: nothing is ready, the connect is
    /// refused.
    pub slots: u32,
    /// A [`crate::balance::Balance`].
    pub balance: u32,
    /// For how many seconds after its last connection a client keeps its endpoint; 0: it does not.
    pub affinity_seconds: u32,
}

/// What becomes of a connection to a frontend.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Untouched.
    Pass = 0,
    /// To an endpoint that the kernel picks.
    Direct = 1,
    /// To the agent's listener in the pod's namespace.
    Agent = 2,
    /// Refused.
    Deny = 3,
}

/// A slot of an endpoint group.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct EndpointKey {
    /// [`Frontend::group`].
    pub group: u32,
    /// 0..[`Frontend::slots`].
    pub slot: u32,
}

/// An endpoint, and its row of the alias table (Vose 1991) that makes a weighted choice two look-ups
/// at most, whatever the number of endpoints.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// Where to connect.
    pub address: IpBe,
    /// Where to connect.
    pub port: PortBe,
    /// Explicit.
    pub reserved: u16,
    /// The pod behind it in the names map; 0 where unknown.
    pub workload: u32,
    /// This slot is taken where a random 32-bit number is at most this …
    pub threshold: u32,
    /// … else this slot of the same group.
    pub alias: u32,
}

/// A number by which the endpoints of a group stand in order, so that one is found among many in few steps.
/// Equal numbers of unequal endpoints (one in 2⁶⁴) cost a client its affinity.
#[inline(always)]
pub const fn order(address: IpBe, port: PortBe) -> u64 {
    let [a, b, c, d] = address.0;
    let high = (a ^ c.rotate_left(16)) as u64;
    let low = (b.rotate_left(8) ^ d) as u64;
    (high << 32 | low).wrapping_add((port.0 as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// A pod of this node, by its address.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LocalPod {
    /// Cookie of its network namespace.
    pub netns: u64,
    /// Its number in the names map.
    pub workload: u32,
    /// See [`flags`].
    pub flags: u32,
    /// 1 once a port of the pod was closed, so that the served map has to be asked. Set by the programs.
    pub closed: u32,
    /// Explicit.
    pub reserved: u32,
}

/// A port of a pod whose connections stay plain TCP, dialled by it or served by it.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct ExcludedPort {
    /// The pod's number in the names map.
    pub workload: u32,
    /// The server's port.
    pub port: PortBe,
    /// Explicit.
    pub reserved: u16,
}

crate::assert_layout!(
    Workload = 48,
    FrontendKey = 20,
    Frontend = 24,
    EndpointKey = 8,
    Endpoint = 32,
    LocalPod = 24,
    ExcludedPort = 8,
);
