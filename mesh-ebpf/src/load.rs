//! How many connections of this node's clients an endpoint has: of those that were chosen by it
//! ([`mesh_common::balance::Balance::LeastConnections`]).
//!
//! A connection counts from its SYN on, so that an endpoint that does not answer does not look idle, until its
//! socket is closed, however that comes: what is counted stands in the socket's record. The key is the
//! endpoint's address, which outlives agents and groups of endpoints.
//!
//! Writes loads and the socket's record.
//! <https://github.com/torvalds/linux/blob/v6.18/net/ipv4/tcp_output.c> `tcp_connect` has the callback before
//! all that can fail; from there on TCP's state leaves CLOSE, and comes back to it.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::{bindings::BPF_SOCK_OPS_STATE_CB_FLAG, programs::SockOpsContext};
use mesh_common::{
    IpBe, PortBe,
    connection::{Connection, Counted},
    policy::FrontendKey,
};

use crate::{
    kernel::{self, NOEXIST, TCP},
    maps::LOADS,
    sock_ops::{Ends, sk, watch},
};

/// The open connections of an endpoint.
#[inline(always)]
pub fn of(address: IpBe, port: PortBe) -> u64 {
    // SAFETY: a number, copied out.
    unsafe { LOADS.get(&key(address, port)) }
        .copied()
        .unwrap_or(0)
}

/// Before the SYN.
#[inline(always)]
pub fn connecting(ctx: &SockOpsContext) {
    let sk = sk(ctx);
    if sk.is_null() {
        return;
    }
    // SAFETY: the context's own socket.
    let Some(record) = (unsafe { kernel::connection(sk) }) else {
        return;
    };
    // SAFETY: points into the socket's storage, and the socket is locked.
    let record = unsafe { &mut *record.as_ptr() };
    if record.counted != Counted::Wanted as u16 {
        return;
    }
    let ends = Ends::of(ctx);
    record.remote_address = ends.remote_address;
    record.remote_port = ends.remote_port;
    if change(record, 1) {
        record.counted = Counted::Yes as u16;
        watch(ctx, BPF_SOCK_OPS_STATE_CB_FLAG);
    }
}

/// The socket is closed, or never was established.
#[inline(always)]
pub fn ended(record: &mut Connection) {
    if record.counted == Counted::Yes as u16 {
        record.counted = Counted::No as u16;
        change(record, u64::MAX);
    }
}

/// Adds to the endpoint's count. False: the map is full, the endpoint counts as idle.
#[inline(always)]
fn change(record: &Connection, by: u64) -> bool {
    let key = key(record.remote_address, record.remote_port);
    if let Some(load) = LOADS.get_ptr_mut(&key) {
        // SAFETY: points into the map; an aligned u64.
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(load, by) };
        return true;
    }
    // The agent has forgotten an endpoint that is gone, with what was left of its connections.
    if by != 1 {
        return false;
    }
    if LOADS.insert(&key, &by, NOEXIST).is_ok() {
        return true;
    }
    // Another CPU made it first, or the map is full.
    let Some(load) = LOADS.get_ptr_mut(&key) else {
        return false;
    };
    // SAFETY: as above.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(load, by) };
    true
}

#[inline(always)]
fn key(address: IpBe, port: PortBe) -> FrontendKey {
    FrontendKey {
        address,
        port,
        protocol: TCP,
    }
}
