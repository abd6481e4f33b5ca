//! Which endpoint of a service a connection, or a datagram, goes to. For `connect` and whoever sends to a
//! service's address without one.
//!
//! Reads frontends and endpoints; writes nothing.

use aya_ebpf::helpers::generated::bpf_get_prandom_u32;
use mesh_common::{
    IpBe, PortBe,
    policy::{Endpoint, EndpointKey, Frontend, FrontendKey},
};

use crate::maps::{ENDPOINTS, FRONTENDS};

/// Where a connect is sent.
pub struct Target {
    /// Where to.
    pub address: IpBe,
    /// Where to.
    pub port: PortBe,
    /// The pod behind it in the names map; 0 where unknown.
    pub workload: u32,
}

/// A ready endpoint of what stands at `key`, by weight. `client`: the asking pod's number in the names map.
#[inline(always)]
pub fn pick(frontend: &Frontend, key: &FrontendKey, client: u32) -> Option<Target> {
    let _ = client;
    if let Some(endpoint) = slot_of(frontend) {
        return Some(endpoint);
    }
    if frontend.slots == 0 {
        return None;
    }
    // The group was replaced between the two look-ups: the frontend names the new one by now.
    // SAFETY: user space replaces values whole.
    let frontend = unsafe { FRONTENDS.get(key) }?;
    slot_of(frontend)
}

#[inline(always)]
fn slot_of(frontend: &Frontend) -> Option<Target> {
    if frontend.slots == 0 {
        return None;
    }
    // SAFETY: takes nothing.
    let (place, draw) = unsafe { (bpf_get_prandom_u32(), bpf_get_prandom_u32()) };
    let slot = (u64::from(place) * u64::from(frontend.slots)) >> 32;
    let key = EndpointKey {
        group: frontend.group,
        slot: slot as u32,
    };
    // SAFETY: user space replaces values whole.
    let mut endpoint: &Endpoint = unsafe { ENDPOINTS.get(&key) }?;
    if draw > endpoint.threshold {
        let key = EndpointKey {
            group: frontend.group,
            slot: endpoint.alias,
        };
        // SAFETY: as above.
        endpoint = unsafe { ENDPOINTS.get(&key) }?;
    }
    Some(Target {
        address: endpoint.address,
        port: endpoint.port,
        workload: endpoint.workload,
    })
}
