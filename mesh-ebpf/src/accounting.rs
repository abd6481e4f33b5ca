//! Totals per pair of workloads: what is settled when a connection opens and closes.
//!
//! Reads the sockets' records; writes traffic and peers (a closed socket has no peer).

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::programs::SockOpsContext;
use mesh_common::{
    connection::{Connection, Role},
    traffic::{Event, Traffic, TrafficKey},
};

use crate::{
    kernel::{self, NOEXIST, TcpSock},
    load,
    maps::{PEERS, TRAFFIC, count},
    sock_ops::sk,
};

/// Counts an established connection.
#[inline(always)]
pub fn opened(record: &Connection) {
    settle(
        record,
        &Traffic {
            opened: 1,
            ..Traffic::default()
        },
    );
}

/// Adds a connection's bytes to the totals, once, when its socket closes.
#[inline(always)]
pub fn closed(ctx: &SockOpsContext) {
    let sk = sk(ctx);
    if sk.is_null() {
        return;
    }
    // SAFETY: the context's own socket.
    let Some(record) = (unsafe { kernel::connection(sk) }) else {
        return;
    };
    // SAFETY: points into the socket's storage; the state changes under the socket's lock.
    let record = unsafe { &mut *record.as_ptr() };
    load::ended(record);
    if record.settled != 0 || record.cookie == 0 {
        return;
    }
    record.settled = 1;
    let _ = PEERS.remove(&record.cookie);
    let bytes = match unsafe { TcpSock::of(sk.cast()) } {
        Some(tcp) => tcp.bytes(),
        None => return,
    };
    if record.role == Role::Client as u32 {
        settle(
            record,
            &Traffic {
                opened: 0,
                closed: 1,
                sent: bytes.sent + record.redirected_bytes,
                received: bytes.received,
                redirected_sent: record.redirected_bytes,
                redirected_received: 0,
            },
        );
    } else if record.source == 0 {
        settle(
            record,
            &Traffic {
                opened: 0,
                closed: 1,
                sent: bytes.received,
                received: bytes.sent,
                redirected_sent: 0,
                redirected_received: 0,
            },
        );
    } else if record.redirected_bytes != 0 {
        // The client's end counts what went by TCP both ways; what this end redirected, nobody else saw.
        settle(
            record,
            &Traffic {
                opened: 0,
                closed: 0,
                sent: 0,
                received: record.redirected_bytes,
                redirected_sent: 0,
                redirected_received: record.redirected_bytes,
            },
        );
    }
}

/// Adds to the totals of the record's pair of workloads.
#[inline(always)]
fn settle(record: &Connection, more: &Traffic) {
    let key = TrafficKey {
        source: record.source,
        destination: record.destination,
        service: record.service,
        way: record.way,
    };
    if let Some(total) = TRAFFIC.get_ptr_mut(&key) {
        // SAFETY: points into the map.
        unsafe { add(total, more) };
        return;
    }
    if TRAFFIC.insert(&key, more, NOEXIST).is_ok() {
        return;
    }
    // Another CPU made it first, or the map is full.
    match TRAFFIC.get_ptr_mut(&key) {
        // SAFETY: points into the map.
        Some(total) => unsafe { add(total, more) },
        None => count(Event::TrafficLost),
    }
}

/// # Safety
/// `total` points to a live value.
#[inline(always)]
unsafe fn add(total: *mut Traffic, more: &Traffic) {
    // SAFETY: as the caller says; the fields are aligned u64.
    unsafe {
        for (field, amount) in [
            (&raw mut (*total).opened, more.opened),
            (&raw mut (*total).closed, more.closed),
            (&raw mut (*total).sent, more.sent),
            (&raw mut (*total).received, more.received),
            (&raw mut (*total).redirected_sent, more.redirected_sent),
            (
                &raw mut (*total).redirected_received,
                more.redirected_received,
            ),
        ] {
            if amount != 0 {
                atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(field, amount);
            }
        }
    }
}
