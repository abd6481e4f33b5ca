//! An event of the programs, with numbers turned back into names.

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use mesh_common::{
    IpBe, PortBe,
    access::Place,
    event::{Kind, Record},
    failure::cause_name,
    names::NameKind,
};

use crate::{
    admin::{ClosedConnection, EventKind, EventRow},
    kernel::{
        maps::place_name,
        node::{Kernel, OwnDenial},
        since_boot,
        tables::verdict_name,
    },
    telemetry::{UNKNOWN, access_log::timestamp},
};

/// TCP states after which a connection has been closed in order: `TIME_WAIT` is entered from the first two.
const ORDERLY: [u32; 4] = [FIN_WAIT2, CLOSING, LAST_ACK, FIN_WAIT1];
const FIN_WAIT1: u32 = 4;
const FIN_WAIT2: u32 = 5;
const LAST_ACK: u32 = 9;
const CLOSING: u32 = 11;

/// Of the programs.
pub fn of(kernel: &Kernel, record: &Record) -> EventRow {
    let name = |kind, id| kernel.name(kind, id);
    let event = match record.kind {
        kind if kind == Kind::Opened as u32 => EventKind::Opened,
        kind if kind == Kind::Closed as u32 => EventKind::Closed,
        kind if kind == Kind::Failed as u32 => EventKind::Failed,
        _ => EventKind::Denied,
    };
    EventRow {
        time: wall_clock(record.time_ns),
        event,
        source: name(NameKind::Workload, record.source).unwrap_or_else(|| UNKNOWN.into()),
        destination: name(NameKind::Workload, record.destination),
        service: name(NameKind::Service, record.service),
        way: matches!(event, EventKind::Opened | EventKind::Closed)
            .then(|| verdict_name(record.way).to_owned()),
        reason: match event {
            EventKind::Opened => None,
            EventKind::Closed => Some(ending(record.reason, record.state).to_owned()),
            EventKind::Failed => Some(cause_name(record.reason).to_owned()),
            EventKind::Denied => Some(place_name(record.reason).to_owned()),
        },
        policy: name(NameKind::Policy, record.policy),
        client: (!record.client.is_none()).then(|| record.client.into()),
        client_port: Some(record.client_port.get()).filter(|port| *port != 0),
        server: end(record.server, record.server_port),
        closed: (event == EventKind::Closed).then(|| ClosedConnection {
            bytes_sent: record.sent,
            bytes_received: record.received,
            bytes_redirected: record.redirected,
            duration_us: record.duration_ns / 1000,
            rtt_us: known(record.rtt_us),
            min_rtt_us: known(record.min_rtt_us),
            retransmits: record.retransmits.into(),
        }),
    }
}

/// Of the agent itself.
pub fn of_own(denial: &OwnDenial) -> EventRow {
    EventRow {
        time: timestamp(SystemTime::now()),
        event: EventKind::Denied,
        source: denial.source.clone(),
        destination: Some(denial.destination.clone()),
        service: None,
        way: None,
        reason: Some(place_name(Place::Agent as u32).to_owned()),
        policy: Some(denial.policy.clone()),
        client: None,
        client_port: None,
        server: None,
        closed: None,
    }
}

fn wall_clock(monotonic_ns: u64) -> String {
    let ago = since_boot().saturating_sub(Duration::from_nanos(monotonic_ns));
    timestamp(SystemTime::now() - ago)
}

fn end(address: IpBe, port: PortBe) -> Option<SocketAddr> {
    (!address.is_none()).then(|| SocketAddr::new(address.into(), port.get()))
}

fn known(micros: u32) -> Option<u64> {
    (micros != 0).then_some(micros.into())
}

/// How a connection ended, by the socket's error and the TCP state before.
fn ending(error: u32, state: u32) -> &'static str {
    match error.cast_signed() {
        0 if ORDERLY.contains(&state) => "orderly",
        // Closed with bytes unread, or with SO_LINGER: a reset was sent.
        0 => "aborted",
        libc::ECONNRESET | libc::EPIPE => "reset",
        // By sock_diag: the agent for a policy, or `ss -K`.
        libc::ECONNABORTED => "cut",
        libc::ETIMEDOUT => "timed_out",
        libc::EHOSTUNREACH | libc::ENETUNREACH => "unreachable",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_have_names() {
        assert_eq!(ending(0, LAST_ACK), "orderly");
        assert_eq!(ending(0, 1), "aborted");
        assert_eq!(ending(104, 1), "reset");
        assert_eq!(ending(103, 1), "cut");
    }
}
