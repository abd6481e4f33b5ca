//! Who may connect to a pod, as user space compiled it, and the count of those who may not.
//!
//! Reads access, access_sources, access_ports, settings, workloads; writes denials. A pod without an entry in
//! access is open to everybody, unless settings say that some have none for want of room. An entry that leads
//! nowhere refuses: only a damaged map has one.

use aya_ebpf::btf_maps::lpm_trie::Key;
use mesh_common::{
    IpBe, PortBe,
    access::{Access, DenialKey, NOBODY, Place, PortKey, SET_BITS, SourceAccess, SourceKey},
    policy::flags,
    settings::guards,
};

use crate::maps::{ACCESS, ACCESS_PORTS, ACCESS_SOURCES, DENIALS, SETTINGS, WORKLOADS, add_one};

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

/// Judges a connection to `port` of the pod in `netns`.
#[inline(always)]
pub fn judge(netns: u64, source: IpBe, port: PortBe) -> Result<(), Denial> {
    judge_within(netns, source, port, WHOLE)
}

/// As [`judge`], of a client that only claims `source`: as those around it whom nobody vouches for.
#[inline(always)]
pub fn judge_claim(netns: u64, source: IpBe, port: PortBe) -> Result<(), Denial> {
    judge_within(netns, source, port, WHOLE - 1)
}

/// Refuses whoever connects to the pod in `netns`, if somebody guards it.
#[inline(always)]
pub fn refuse(netns: u64) -> Result<(), Denial> {
    // SAFETY: user space replaces values whole.
    match unsafe { ACCESS.get(&netns) } {
        Some(access) => Err(Denial {
            destination: access.workload,
            policy: 0,
        }),
        None => unlisted(netns),
    }
}

/// What holds for a pod that is not in the access map: everybody may connect, unless it found no room there.
#[inline(always)]
fn unlisted(netns: u64) -> Result<(), Denial> {
    if !has(guards::OVERFLOW) {
        return Ok(());
    }
    // SAFETY: user space replaces values whole.
    match unsafe { WORKLOADS.get(&netns) } {
        Some(workload) if workload.flags & flags::GUARDED != 0 => Err(Denial {
            destination: workload.id,
            policy: 0,
        }),
        _ => Ok(()),
    }
}

/// Whether settings have a bit of [`guards`].
#[inline(always)]
pub fn has(guard: u32) -> bool {
    SETTINGS
        .get(0)
        .is_some_and(|settings| settings.guards & guard != 0)
}

#[inline(always)]
fn judge_within(netns: u64, source: IpBe, port: PortBe, bits: u32) -> Result<(), Denial> {
    // SAFETY: user space replaces values whole.
    let Some(mut access) = (unsafe { ACCESS.get(&netns) }) else {
        return unlisted(netns);
    };
    let mut found = look_up(access, source, bits);
    if found.is_none() && access.set != NOBODY {
        // The set was replaced between the two look-ups: the pod names the new one by now.
        // SAFETY: as above.
        access = match unsafe { ACCESS.get(&netns) } {
            Some(access) => access,
            None => return Ok(()),
        };
        found = look_up(access, source, bits);
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
fn look_up(access: &Access, source: IpBe, bits: u32) -> Option<&'static SourceAccess> {
    let key = SourceKey {
        set: access.set,
        address: source,
    };
    ACCESS_SOURCES.get(&Key::new(bits, key))
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
