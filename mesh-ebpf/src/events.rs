//! What is told of single connections, through a ring buffer, while somebody follows: nothing else depends
//! on it, and a full ring loses the event and counts that.
//!
//! Reads settings (who follows what: one look-up in an array where nobody does), the socket's record and
//! its peer's; writes event_ring, finished.
//! Minimum kernel 5.8. <https://github.com/torvalds/linux/blob/v6.18/kernel/bpf/ringbuf.c>.

use aya_ebpf::{helpers::generated::bpf_ktime_get_ns, programs::SockOpsContext};
use mesh_common::{
    IpBe, PortBe,
    access::Place,
    connection::{Connection, Role},
    event::{Kind, Record, follow},
    failure::FailureKey,
    traffic::Event,
};

use crate::{
    access::Denial,
    accounting::Path,
    kernel::{ANY, TcpBytes, TcpSock},
    maps::{EVENT_RING, FINISHED, SETTINGS, count},
    queue::PeerRecord,
};

/// Tells of a connection that is established.
#[inline(always)]
pub fn opened(record: &Connection) {
    if !is_followed(follow::CONNECTIONS) {
        return;
    }
    let ends = if record.role == Role::Server as u32 {
        ClientAndServer::of_server(record)
    } else {
        ClientAndServer::of_client(record)
    };
    tell(|event| {
        ends.write(event);
        of_pair(record, event);
        event.kind = Kind::Opened as u32;
        event.time_ns = record.opened_ns;
    });
}

/// Tells of a client's end that has closed.
#[inline(always)]
pub fn closed_client(
    ctx: &SockOpsContext,
    record: &Connection,
    tcp: TcpSock,
    bytes: &TcpBytes,
    path: &Path,
) {
    if !is_followed(follow::CONNECTIONS) {
        return;
    }
    let from_server = redirected_to(record);
    let ends = ClientAndServer::of_client(record);
    let (error, state) = (tcp.error(), ctx.arg(0));
    tell(|event| {
        ends.write(event);
        closed(record, path, event);
        event.sent = bytes.sent + record.redirected_bytes;
        event.received = bytes.received + from_server;
        event.redirected = record.redirected_bytes + from_server;
        event.reason = error;
        event.state = state;
    });
}

/// Tells of a server's end that has closed, whose client is not enrolled here.
#[inline(always)]
pub fn closed_server(
    ctx: &SockOpsContext,
    record: &Connection,
    tcp: TcpSock,
    bytes: &TcpBytes,
    path: &Path,
) {
    if !is_followed(follow::CONNECTIONS) {
        return;
    }
    let ends = ClientAndServer::of_server(record);
    let (error, state) = (tcp.error(), ctx.arg(0));
    tell(|event| {
        ends.write(event);
        closed(record, path, event);
        event.sent = bytes.received;
        event.received = bytes.sent;
        event.reason = error;
        event.state = state;
    });
}

/// Leaves a client's end that stays a note of what this server's end redirected: nobody else knows once its
/// record is gone. Where the client's end closed first, there is nobody to ask.
#[inline(always)]
pub fn finished(record: &Connection) {
    if record.redirected_bytes != 0 && PeerRecord::of(record).is_open() {
        let _ = FINISHED.insert(&record.peer, &record.redirected_bytes, ANY);
    }
}

/// What the server's end redirected to this client's.
#[inline(always)]
fn redirected_to(record: &Connection) -> u64 {
    // SAFETY: a number, copied out.
    let noted = unsafe { FINISHED.get(&record.cookie) }.copied();
    if noted.is_some() {
        let _ = FINISHED.remove(&record.cookie);
    }
    noted
        .or_else(|| match record.peer_record {
            0 => None,
            _ => PeerRecord::of(record).redirected_bytes(),
        })
        .unwrap_or(0)
}

/// Tells of a connect that failed.
#[inline(always)]
pub fn failed(
    key: &FailureKey,
    way: u32,
    client: IpBe,
    client_port: PortBe,
    server: IpBe,
    server_port: PortBe,
) {
    if !is_followed(follow::CONNECTIONS) {
        return;
    }
    let ends = ClientAndServer {
        client,
        client_port,
        server,
        server_port,
    };
    tell(|event| {
        ends.write(event);
        event.kind = Kind::Failed as u32;
        event.time_ns = now();
        event.source = key.source;
        event.destination = key.destination;
        event.service = key.service;
        event.way = way;
        event.reason = key.cause;
    });
}

/// Tells of a connection that a policy refused.
#[inline(always)]
pub fn denied(denial: Denial, source: u32, place: Place, client: IpBe, server: IpBe, port: PortBe) {
    if !is_followed(follow::DENIALS) {
        return;
    }
    let ends = ClientAndServer {
        client,
        client_port: PortBe(0),
        server,
        server_port: port,
    };
    tell(|event| {
        ends.write(event);
        event.kind = Kind::Denied as u32;
        event.time_ns = now();
        event.source = source;
        event.destination = denial.destination;
        event.policy = denial.policy;
        event.reason = place as u32;
    });
}

#[inline(always)]
fn is_followed(bit: u32) -> bool {
    SETTINGS
        .get(0)
        .is_some_and(|settings| settings.events & bit != 0)
}

/// Fills an event in the ring itself: it is too large for the stack.
#[inline(always)]
fn tell(fill: impl Fn(&mut Record)) {
    let Some(mut entry) = EVENT_RING.reserve_untyped::<Record>(0) else {
        count(Event::EventLost);
        return;
    };
    fill(entry.write(Record::default()));
    entry.submit(0);
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: takes nothing.
    unsafe { bpf_ktime_get_ns() }
}

/// The two ends of a connection.
struct ClientAndServer {
    client: IpBe,
    client_port: PortBe,
    server: IpBe,
    server_port: PortBe,
}

impl ClientAndServer {
    /// As the client's record has them.
    #[inline(always)]
    fn of_client(record: &Connection) -> Self {
        Self {
            client: record.local_address,
            client_port: record.local_port,
            server: record.remote_address,
            server_port: record.remote_port,
        }
    }

    /// As the server's record has them.
    #[inline(always)]
    fn of_server(record: &Connection) -> Self {
        Self {
            client: record.remote_address,
            client_port: record.remote_port,
            server: record.local_address,
            server_port: record.local_port,
        }
    }

    #[inline(always)]
    fn write(&self, event: &mut Record) {
        event.client = self.client;
        event.client_port = self.client_port;
        event.server = self.server;
        event.server_port = self.server_port;
    }
}

/// Who talked to whom.
#[inline(always)]
fn of_pair(record: &Connection, event: &mut Record) {
    event.source = record.source;
    event.destination = record.destination;
    event.service = record.service;
    event.way = record.way;
}

#[inline(always)]
fn closed(record: &Connection, path: &Path, event: &mut Record) {
    of_pair(record, event);
    let now = now();
    event.kind = Kind::Closed as u32;
    event.time_ns = now;
    event.duration_ns = now.saturating_sub(record.opened_ns);
    event.rtt_us = path.rtt_us;
    event.min_rtt_us = path.min_rtt_us;
    event.retransmits = path.retransmits;
}
