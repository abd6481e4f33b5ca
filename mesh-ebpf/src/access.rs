//! Who may connect to a pod, as user space compiled it, and the count of those who may not.
//!
//! Reads access, access_sources, access_ports; writes denials. A pod without an entry in
//! access is open to everybody. An entry that leads nowhere refuses: only a damaged map has one.

use aya_ebpf::btf_maps::lpm_trie::Key;
use mesh_common::{
    IpBe, PortBe,
    access::{Access, DenialKey, NOBODY, Place, PortKey, SET_BITS, SourceAccess, SourceKey},
    policy::LocalPod,
};

use crate::maps::{ACCESS, ACCESS_PORTS, ACCESS_SOURCES, DENIALS, add_one};

/// The bits of a whole address after those of its set.
const WHOLE: u32 = SET_BITS + 128;

/// A connection that must not be.
#[derive(Clone, Copy)]
pub struct Denial {
    /// The server's number in the names map.
    pub destination: u32,
    /// Who decided, in the names map.
    pub policy: u32,
}

/// Judges a connection of the pod in `netns` at `source` to `port` of `pod`. A pod may talk to itself.
#[inline(always)]
pub fn judge_connect(netns: u64, source: IpBe, pod: &LocalPod, port: PortBe) -> Result<(), Denial> {
    if pod.netns == netns {
        return Ok(());
    }
    judge(pod.netns, source, port)
}

/// Judges a connection to `port` of the pod in `netns`.
#[inline(always)]
pub fn judge(netns: u64, source: IpBe, port: PortBe) -> Result<(), Denial> {
    // SAFETY: user space replaces values whole.
    let Some(mut access) = (unsafe { ACCESS.get(&netns) }) else {
        return Ok(());
    };
    let mut found = look_up(access, source);
    if found.is_none() && access.set != NOBODY {
        // The set was replaced between the two look-ups: the pod names the new one by now.
        // SAFETY: as above.
        access = match unsafe { ACCESS.get(&netns) } {
            Some(access) => access,
            None => return Ok(()),
        };
        found = look_up(access, source);
    }
    let denial = |policy| Denial {
        destination: access.workload,
        policy,
    };
    let Some(entry) = found else {
        return Err(denial(0));
    };
    if entry.ports != 0 {
        let key = PortKey {
            set: access.set,
            table: entry.ports,
            port,
            reserved: 0,
        };
        // A set that was replaced is kept until the next change: its ports are still there.
        // SAFETY: as above.
        if let Some(entry) = unsafe { ACCESS_PORTS.get(&key) } {
            return match entry.denied {
                0 => Ok(()),
                _ => Err(denial(entry.policy)),
            };
        }
    }
    match entry.denied {
        0 => Ok(()),
        _ => Err(denial(entry.policy)),
    }
}

#[inline(always)]
fn look_up(access: &Access, source: IpBe) -> Option<&'static SourceAccess> {
    let key = SourceKey {
        set: access.set,
        address: source,
    };
    ACCESS_SOURCES.get(&Key::new(WHOLE, key))
}

/// Adds one to the refusals of a client by a policy. `source`: its number in the names map.
#[inline(always)]
pub fn count_denial(denial: Denial, source: u32, place: Place) {
    let key = DenialKey {
        source,
        destination: denial.destination,
        policy: denial.policy,
        place: place as u32,
    };
    // Where the map is full, only the event tells of it.
    add_one(&DENIALS, &key);
}
