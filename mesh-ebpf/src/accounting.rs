//! Totals per pair of workloads: what is settled when a connection opens and closes.
//!
//! Reads the sockets' records; writes traffic and peers (a closed socket has no peer).
//! Whatever is measured is read here, at the end: nothing runs per message or per segment for it.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::programs::SockOpsContext;
use mesh_common::{
    connection::{Connection, Role},
    traffic::{Event, RTT_BOUNDS_US, Traffic, TrafficKey},
};

use crate::{
    events,
    kernel::{self, NOEXIST, TcpSock},
    load,
    maps::{PEERS, TRAFFIC, count},
    sock_ops::sk,
};

/// Counts an established connection.
#[inline(always)]
pub fn opened(record: &Connection) {
    settle(record, |total| add(&raw mut total.opened, 1));
    events::opened(record);
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
    // SAFETY: the context's own socket.
    let Some(tcp) = (unsafe { TcpSock::of(sk.cast()) }) else {
        return;
    };
    let bytes = tcp.bytes();
    let path = Path {
        rtt_us: tcp.smoothed_rtt_us(),
        min_rtt_us: tcp.min_rtt_us(),
        retransmits: tcp.retransmits(),
    };
    if record.role == Role::Client as u32 {
        let totals = Bytes {
            sent: bytes.sent + record.redirected_bytes,
            received: bytes.received,
            redirected_sent: record.redirected_bytes,
            redirected_received: 0,
        };
        settle(record, |total| {
            totals.add_to(total);
            path.add_to(total);
            add(&raw mut total.closed, 1);
        });
        events::closed_client(ctx, record, tcp, &bytes, &path);
    } else if record.source == 0 {
        let totals = Bytes {
            sent: bytes.received,
            received: bytes.sent,
            redirected_sent: 0,
            redirected_received: 0,
        };
        settle(record, |total| {
            totals.add_to(total);
            path.add_to(total);
            add(&raw mut total.closed, 1);
        });
        events::closed_server(ctx, record, tcp, &bytes, &path);
    } else if record.redirected_bytes != 0 || path.retransmits != 0 {
        // The client's end counts what went by TCP both ways; what this end redirected, nobody else saw.
        let totals = Bytes {
            sent: 0,
            received: record.redirected_bytes,
            redirected_sent: 0,
            redirected_received: record.redirected_bytes,
        };
        settle(record, |total| {
            totals.add_to(total);
            add(&raw mut total.retransmits, u64::from(path.retransmits));
        });
        events::finished(record);
    }
}

/// What is added to a pair's bytes.
struct Bytes {
    sent: u64,
    received: u64,
    redirected_sent: u64,
    redirected_received: u64,
}

impl Bytes {
    #[inline(always)]
    fn add_to(&self, total: &mut Traffic) {
        add(&raw mut total.sent, self.sent);
        add(&raw mut total.received, self.received);
        add(&raw mut total.redirected_sent, self.redirected_sent);
        add(&raw mut total.redirected_received, self.redirected_received);
    }
}

/// What TCP learnt of the way between the two ends.
pub struct Path {
    /// Smoothed round trip in microseconds; 0 where unknown.
    pub rtt_us: u32,
    /// The smallest one.
    pub min_rtt_us: u32,
    /// Segments that this end sent again.
    pub retransmits: u32,
}

impl Path {
    #[inline(always)]
    fn add_to(&self, total: &mut Traffic) {
        add(&raw mut total.retransmits, u64::from(self.retransmits));
        if self.rtt_us == 0 {
            return;
        }
        let least = u64::from(self.min_rtt_us);
        // Of two at the same time one may win: the next connection is as good.
        if least != 0 && (total.min_rtt_us == 0 || least < total.min_rtt_us) {
            total.min_rtt_us = least;
        }
        add(&raw mut total.rtt_sum_us, u64::from(self.rtt_us));
        let slot = RTT_BOUNDS_US
            .iter()
            .position(|bound| self.rtt_us <= *bound)
            .unwrap_or(RTT_BOUNDS_US.len());
        if let Some(slot) = total.rtt.get_mut(slot) {
            add(slot, 1);
        }
    }
}

/// What a pair begins with: too large for the stack.
static NOTHING: Traffic = Traffic::NOTHING;

/// Adds to the totals of the record's pair of workloads.
#[inline(always)]
fn settle(record: &Connection, add_to: impl Fn(&mut Traffic)) {
    let key = TrafficKey {
        source: record.source,
        destination: record.destination,
        service: record.service,
        way: record.way,
    };
    let mut found = TRAFFIC.get_ptr_mut(&key);
    if found.is_none() {
        // Where it fails, another CPU made it first, or the map is full.
        let _ = TRAFFIC.insert(&key, &NOTHING, NOEXIST);
        found = TRAFFIC.get_ptr_mut(&key);
    }
    match found {
        // SAFETY: points into the map, whose values are never removed.
        Some(total) => add_to(unsafe { &mut *total }),
        None => count(Event::TrafficLost),
    }
}

/// Adds to a counter that other CPUs add to at the same time.
#[inline(always)]
fn add(counter: *mut u64, amount: u64) {
    if amount != 0 {
        // SAFETY: callers point into a live value of the map; the fields are aligned u64.
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(counter, amount) };
    }
}
