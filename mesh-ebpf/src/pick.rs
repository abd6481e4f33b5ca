//! Which endpoint of a service a connection, or a datagram, goes to. For `connect` and whoever sends to a
//! service's address without one.
//!
//! A service that asks for nothing costs two look-ups at most. What others ask for stands in the frontend:
//! a policy ([`Balance`]), and for how long a client keeps its endpoint.
//!
//! Reads frontends, endpoints, loads, and what [`served`] reads; writes affinity and turns.

use core::{
    intrinsics::{AtomicOrdering, atomic_xadd},
    ptr,
};

use aya_ebpf::helpers::generated::{bpf_get_prandom_u32, bpf_ktime_get_ns};
use mesh_common::{
    IpBe, PortBe,
    balance::{Affinity, AffinityKey, Balance},
    connection::Counted,
    policy::{Endpoint, EndpointKey, Frontend, FrontendKey, LocalPod, order},
};

use crate::{
    kernel::{ANY, NOEXIST, opaque},
    load,
    maps::{AFFINITY, ENDPOINTS, FRONTENDS, LOCAL_PODS, TURNS},
    served,
};

/// A binary search among more slots than the endpoints map holds (2¹⁸).
const STEPS: u32 = 19;

/// How often another endpoint is looked for at random, before it is taken in order.
const AT_RANDOM: u32 = 4;
/// How many are looked at.
const TRIES: u32 = AT_RANDOM + 12;

/// Where a connect is sent.
pub struct Target {
    /// Where to.
    pub address: IpBe,
    /// Where to.
    pub port: PortBe,
    /// The pod behind it in the names map; 0 where unknown.
    pub workload: u32,
    /// Whether its open connections are counted.
    pub counted: Counted,
}

impl Target {
    #[inline(always)]
    fn of(endpoint: &Endpoint, frontend: &Frontend) -> Self {
        Self {
            address: endpoint.address,
            port: endpoint.port,
            workload: endpoint.workload,
            counted: if frontend.balance == Balance::LeastConnections as u32 {
                Counted::Wanted
            } else {
                Counted::No
            },
        }
    }
}

/// A ready endpoint of what stands at `key`. `client`: the asking pod's number in the names map.
#[inline(always)]
pub fn pick(frontend: &Frontend, key: &FrontendKey, client: u32) -> Option<Target> {
    if frontend.slots == 0 {
        return None;
    }
    if let Some(endpoint) = endpoint_of(frontend, key, client) {
        return Some(Target::of(endpoint, frontend));
    }
    // The group was replaced between the two look-ups: the frontend names the new one by now.
    // SAFETY: user space replaces values whole.
    let frontend = unsafe { FRONTENDS.get(key) }?;
    if frontend.slots == 0 {
        return None;
    }
    Some(Target::of(by_weight(frontend)?, frontend))
}

/// As [`pick`], for a connection: an endpoint of this node whose listener was seen to close is left out while
/// there is another. Also the pod of this node that it is.
#[inline(always)]
pub fn pick_open(
    frontend: &Frontend,
    key: &FrontendKey,
    client: u32,
) -> Option<(Target, Option<&'static LocalPod>)> {
    let target = pick(frontend, key, client)?;
    let pod = local_pod(target.address);
    if pod.is_none_or(|pod| !served::is_closed(pod, target.address, target.port)) {
        return Some((target, pod));
    }
    match another(frontend, key, client) {
        Some(other) => {
            let pod = local_pod(other.address);
            Some((other, pod))
        }
        None => Some((target, pod)),
    }
}

/// The pod of this node that has the address.
#[inline(always)]
pub fn local_pod(address: IpBe) -> Option<&'static LocalPod> {
    // SAFETY: user space replaces values whole; what the programs write is a word.
    unsafe { LOCAL_PODS.get(&address) }
}

/// An endpoint whose listener was not seen to close.
#[inline(always)]
fn another(frontend: &Frontend, key: &FrontendKey, client: u32) -> Option<Target> {
    let slot = open_slot(frontend);
    let endpoint = at(frontend, slot)?;
    if frontend.affinity_seconds != 0 {
        remember(frontend, key, client, slot);
    }
    Some(Target::of(endpoint, frontend))
}

#[inline(always)]
fn endpoint_of(frontend: &Frontend, key: &FrontendKey, client: u32) -> Option<&'static Endpoint> {
    if frontend.balance == Balance::Random as u32 && frontend.affinity_seconds == 0 {
        return by_weight(frontend);
    }
    at(frontend, by_policy(frontend, key, client))
}

#[inline(always)]
fn at(frontend: &Frontend, slot: u32) -> Option<&'static Endpoint> {
    let key = EndpointKey {
        group: frontend.group,
        slot,
    };
    // SAFETY: user space replaces values whole.
    unsafe { ENDPOINTS.get(&key) }
}

/// A number below `bound`.
#[inline(always)]
fn below(bound: u32) -> u32 {
    // SAFETY: takes nothing.
    let random = unsafe { bpf_get_prandom_u32() };
    ((u64::from(random) * u64::from(bound)) >> 32) as u32
}

#[inline(always)]
fn by_weight(frontend: &Frontend) -> Option<&'static Endpoint> {
    let endpoint = at(frontend, below(frontend.slots))?;
    // SAFETY: takes nothing.
    if unsafe { bpf_get_prandom_u32() } > endpoint.threshold {
        return at(frontend, endpoint.alias);
    }
    Some(endpoint)
}

/// The slot that the frontend's policies lead to; some number where there is none. A function of its own, so
/// that who needs none does not carry its stack.
#[inline(never)]
fn by_policy(frontend: &Frontend, key: &FrontendKey, client: u32) -> u32 {
    if frontend.affinity_seconds != 0
        && let Some(slot) = remembered(frontend, key, client)
    {
        return slot;
    }
    let slot = if frontend.balance == Balance::RoundRobin as u32 {
        next_turn(frontend, key)
    } else if frontend.balance == Balance::LeastConnections as u32 {
        less_loaded(frontend)
    } else {
        by_weight_slot(frontend)
    };
    if frontend.affinity_seconds != 0 {
        remember(frontend, key, client, slot);
    }
    slot
}

/// As [`by_weight`].
#[inline(always)]
fn by_weight_slot(frontend: &Frontend) -> u32 {
    let slot = below(frontend.slots);
    let Some(endpoint) = at(frontend, slot) else {
        return slot;
    };
    // SAFETY: takes nothing.
    if unsafe { bpf_get_prandom_u32() } > endpoint.threshold {
        endpoint.alias
    } else {
        slot
    }
}

/// One after the other, for all clients of the node together. Where the map is full: any.
#[inline(always)]
fn next_turn(frontend: &Frontend, key: &FrontendKey) -> u32 {
    if TURNS.get_ptr_mut(key).is_none() {
        // Elsewhere than where every other node begins.
        let _ = TURNS.insert(key, &u64::from(below(frontend.slots)), NOEXIST);
    }
    let Some(turn) = TURNS.get_ptr_mut(key) else {
        return below(frontend.slots);
    };
    // SAFETY: points into the map; an aligned u64. The compiler's target has no fetch-and-add, so two CPUs at
    // the same moment may get the same turn; the next ones go on as if they had not.
    let turn = unsafe {
        let now = ptr::read_volatile(turn);
        atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(turn, 1);
        now
    };
    // The verifier wants a divisor of which it sees that it is not 0.
    (turn % u64::from(frontend.slots.max(1))) as u32
}

/// Of two, that with fewer open connections (M. Mitzenmacher, The Power of Two Choices, 2001): nearly as even
/// as asking all, without a herd that runs to the one that was idle.
#[inline(always)]
fn less_loaded(frontend: &Frontend) -> u32 {
    let one = below(frontend.slots);
    if frontend.slots < 2 {
        return one;
    }
    let other = below(frontend.slots - 1);
    let other = other + u32::from(other >= one);
    let (Some(first), Some(second)) = (at(frontend, one), at(frontend, other)) else {
        return one;
    };
    // What was closed while an entry was missing may have left a count below 0.
    let load = |endpoint: &Endpoint| load::of(endpoint.address, endpoint.port) as i64;
    if load(first) <= load(second) {
        one
    } else {
        other
    }
}

#[inline(always)]
fn affinity_key(key: &FrontendKey, client: u32) -> AffinityKey {
    AffinityKey {
        client,
        address: key.address,
        port: key.port,
        protocol: key.protocol,
    }
}

/// The slot of the endpoint that this client had last, while it is ready and was not left for too long.
#[inline(always)]
fn remembered(frontend: &Frontend, key: &FrontendKey, client: u32) -> Option<u32> {
    let known = AFFINITY.get_ptr_mut(&affinity_key(key, client))?;
    // No copy of it, which the stack has no room for.
    // SAFETY: points into the map; another CPU may write it meanwhile, so what is found is compared below.
    let last = unsafe { &*known };
    // SAFETY: takes nothing.
    let now = unsafe { bpf_ktime_get_ns() };
    let limit = u64::from(frontend.affinity_seconds) * 1_000_000_000;
    if now.wrapping_sub(last.used_ns) > limit {
        return None;
    }
    let mut slot = last.slot;
    let is_there = last.group == frontend.group
        && at(frontend, slot).is_some_and(|endpoint| is_at(endpoint, last));
    if !is_there {
        // Endpoints came or went since.
        slot = find(frontend, last)?;
    }
    // SAFETY: as above.
    unsafe {
        (*known).used_ns = now;
        (*known).group = frontend.group;
        (*known).slot = slot;
    }
    Some(slot)
}

#[inline(always)]
fn is_at(endpoint: &Endpoint, last: &Affinity) -> bool {
    endpoint.address.is(last.address) && endpoint.port.0 == last.port.0
}

#[inline(always)]
fn remember(frontend: &Frontend, key: &FrontendKey, client: u32, slot: u32) {
    let Some(endpoint) = at(frontend, slot) else {
        return;
    };
    let affinity = Affinity {
        // SAFETY: takes nothing.
        used_ns: unsafe { bpf_ktime_get_ns() },
        group: frontend.group,
        slot,
        address: endpoint.address,
        port: endpoint.port,
        // Zeros that the compiler does not see: it would call memset, one more frame on a stack that is full
        // (Linux 6.1 counts 32 bytes for it).
        reserved: [opaque(0) as u16; 3],
    };
    // The oldest gives way.
    let _ = AFFINITY.insert(&affinity_key(key, client), &affinity, ANY);
}

/// The slot of an endpoint: they stand in the order of their addresses.
#[inline(always)]
fn find(frontend: &Frontend, last: &Affinity) -> Option<u32> {
    let wanted = order(last.address, last.port);
    let (mut low, mut high) = (opaque(0), frontend.slots);
    // No way out before the last step: once `low` has met `high` nothing moves any more, and the verifier does
    // not have to follow each way out through all that comes after.
    for _ in 0..STEPS {
        let middle = low + (high - low) / 2;
        match at(frontend, middle) {
            Some(endpoint) if order(endpoint.address, endpoint.port) < wanted => {
                low = middle + 1;
            }
            _ => high = middle,
        }
        (low, high) = (opaque(low), opaque(high));
    }
    at(frontend, low)
        .is_some_and(|endpoint| is_at(endpoint, last))
        .then_some(low)
}

/// A slot whose listener was not seen to close; a slot that is not there where none was found.
#[inline(never)]
fn open_slot(frontend: &Frontend) -> u32 {
    let slots = frontend.slots.max(1);
    let start = below(slots);
    for attempt in 0..TRIES {
        // At random first, so that the others share evenly; then in order, so that a few are all asked.
        let slot = if attempt < AT_RANDOM {
            below(slots)
        } else {
            (start + attempt) % slots
        };
        let Some(endpoint) = at(frontend, slot) else {
            break;
        };
        let pod = local_pod(endpoint.address);
        if pod.is_none_or(|pod| !served::is_closed(pod, endpoint.address, endpoint.port)) {
            return slot;
        }
    }
    u32::MAX
}
