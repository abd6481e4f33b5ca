//! What is known of a listening port before its first connection: whether the two ends will meet in time,
//! and whether a reader could notice that it reads from a socket map.
//!
//! A listener that was there before the programs is entered by the agent, from /proc.

use mesh_common::{
    PortBe, caveat,
    connection::{ListenerKey, Plain, listener},
};

use crate::{caveats, kernel::ANY, maps::LISTENERS};

/// Notes what a listener on this port is like.
#[inline(always)]
pub fn note(netns: u64, port: PortBe, bits: u32) {
    // Where it fails, the port is unknown, and its connections stay plain TCP.
    let _ = LISTENERS.insert(&key(netns, port), &bits, ANY);
}

/// What was learnt from a connection: the listener defers.
#[inline(always)]
pub fn note_deferring(netns: u64, port: PortBe) {
    change(netns, port, listener::DEFERS, listener::DEFERS);
}

/// Sets the bits of `mask` as they are in `bits`.
#[inline(always)]
pub fn change(netns: u64, port: PortBe, mask: u32, bits: u32) {
    // SAFETY: a number, copied out.
    let known = unsafe { LISTENERS.get(&key(netns, port)) }
        .copied()
        .unwrap_or(0);
    note(netns, port, known & !mask | bits);
}

/// What was seen of the listener that is among [`mesh_common::caveat`].
#[inline(always)]
pub fn caveats(netns: u64, port: PortBe) -> u32 {
    // SAFETY: a number, copied out.
    let bits = unsafe { LISTENERS.get(&key(netns, port)) };
    bits.copied().unwrap_or(0) & (caveat::OPTIONS | caveat::EXECUTABLE)
}

/// Why connections to this port are to stay plain TCP. `forced`: a blocking reader is no reason.
#[inline(always)]
pub fn refusal(netns: u64, port: PortBe, forced: bool) -> Plain {
    // SAFETY: a number, copied out.
    let bits = unsafe { LISTENERS.get(&key(netns, port)) }
        .copied()
        .unwrap_or(listener::BLOCKS);
    if bits & listener::DEFERS != 0 {
        return Plain::Deferred;
    }
    match caveats::refusal(bits, forced) {
        Plain::No => {}
        why => return why,
    }
    if bits & listener::BLOCKS != 0 && !forced {
        return Plain::Blocking;
    }
    Plain::No
}

#[inline(always)]
fn key(netns: u64, port: PortBe) -> ListenerKey {
    ListenerKey {
        netns,
        port,
        reserved: [0; 3],
    }
}
