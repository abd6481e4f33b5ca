//! Whether an endpoint that was chosen before is still one of its service's.

use mesh_common::{
    datagram::Exchange,
    policy::{EndpointKey, Frontend, FrontendKey, order},
};

use crate::{
    kernel::opaque,
    maps::{ENDPOINTS, FRONTENDS},
};

/// A group has fewer slots than 2 to this.
const STEPS: usize = 18;

/// Whether the endpoint of an exchange is ready still. As long as the service's endpoints are what they were
/// this costs a comparison.
#[inline(always)]
pub fn stands(entry: &mut Exchange, frontend: &Frontend, key: &FrontendKey) -> bool {
    if frontend.slots != 0 && frontend.group == entry.group {
        return true;
    }
    if holds(frontend, entry) {
        entry.group = frontend.group;
        return true;
    }
    // The group may have been replaced since the frontend was read: it names the new one by now.
    // SAFETY: user space replaces values whole.
    if let Some(now) = unsafe { FRONTENDS.get(key) }
        && now.group != frontend.group
        && holds(now, entry)
    {
        entry.group = now.group;
        return true;
    }
    false
}

/// Whether a group has the endpoint: its slots stand in the order of [`order`].
#[inline(always)]
fn holds(frontend: &Frontend, entry: &Exchange) -> bool {
    let wanted = order(entry.endpoint_address, entry.endpoint_port);
    let (mut low, mut high) = (opaque(0), frontend.slots);
    for _ in 0..STEPS {
        if low >= high {
            return false;
        }
        let middle = low + (high - low) / 2;
        let key = EndpointKey {
            group: frontend.group,
            slot: middle,
        };
        // SAFETY: user space replaces values whole.
        let Some(slot) = (unsafe { ENDPOINTS.get(&key) }) else {
            return false;
        };
        if slot.address.is(entry.endpoint_address) && slot.port.0 == entry.endpoint_port.0 {
            return true;
        }
        if order(slot.address, slot.port) < wanted {
            low = middle + 1;
        } else {
            high = middle;
        }
        (low, high) = (opaque(low), opaque(high));
    }
    false
}
