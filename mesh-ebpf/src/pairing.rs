//! How the two ends of a connection find each other, and how an end that stays plain leaves the socket map.
//!
//! Reads listeners; writes the sockets' records, sockets, handshakes, peers. What the two ends then agree
//! on is in `sk_msg`.

use core::ptr;

use aya_ebpf::{
    bindings::{BPF_SOCK_OPS_STATE_CB_FLAG, BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG},
    helpers::generated::{bpf_map_delete_elem, bpf_sock_hash_update},
    programs::SockOpsContext,
};
use mesh_common::{
    connection::{Connection, Handshake, HandshakeKey, NOBODY, Peer, Plain, Role, Sending},
    policy::LocalPod,
    traffic::Event,
};

use crate::{
    kernel::{self, ANY, NOEXIST, TcpSock},
    listener,
    maps::{HANDSHAKES, PEERS, SOCKETS, count},
    queue::{PeerRecord, Psock},
    sock_ops::{Ends, plain, record, sk, watch},
};

/// The client in a handshake that the server wrote: it was established before the client.
const SERVED_ALREADY: Peer = NOBODY;

/// Puts the client's end on offer: a server's end that mirrors it may pair with it.
#[inline(always)]
pub fn offer(
    ctx: &SockOpsContext,
    record: &mut Connection,
    ends: &Ends,
    netns: u64,
    server_netns: u64,
) {
    let sk = sk(ctx);
    // The verifier forgets between two reads of the context that the socket is there.
    if sk.is_null() {
        return;
    }
    // SAFETY: the context's own socket.
    let tcp = unsafe { TcpSock::of(sk.cast()) };
    if tcp.is_none_or(TcpSock::has_waiting_sender) {
        plain(record, Plain::SentBefore);
        return;
    }
    let key = HandshakeKey {
        client_netns: netns,
        server_netns,
        client_address: ends.local_address,
        server_address: ends.remote_address,
        client_port: ends.local_port,
        server_port: ends.remote_port,
        reserved: 0,
    };
    // SAFETY: the context is the program's own.
    let (sent, received) = unsafe { ((*ctx.ops).snd_nxt, (*ctx.ops).rcv_nxt) };
    // SAFETY: copied out at once.
    if let Some(served) = (unsafe { HANDSHAKES.get(&key) }).copied()
        && served.client == SERVED_ALREADY
        && served.sent == received
    {
        let _ = HANDSHAKES.remove(&key);
        plain(record, Plain::SentBefore);
        return;
    }
    if !enter(ctx, record) {
        return;
    }
    let handshake = Handshake {
        client: itself(record),
        sent,
        received,
        service: record.service,
        way: record.way,
        forced: record.forced(),
        reserved: 0,
    };
    watch(ctx, BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG);
    let _ = HANDSHAKES.insert(&key, &handshake, ANY);
}

/// Makes a pair of this server's end and the client's, if they are ends of one connection and no byte is
/// under way yet. A server's end that stays plain needs no record: its client's end counts both ways.
/// Where there is no pair, the client finds nobody at its first send, and leaves the map by itself: a
/// reader of it may wait already.
#[inline(always)]
pub fn pair(ctx: &SockOpsContext, ends: &Ends, workload: u32, client: &LocalPod, netns: u64) {
    let key = HandshakeKey {
        client_netns: client.netns,
        server_netns: netns,
        client_address: ends.remote_address,
        server_address: ends.local_address,
        client_port: ends.remote_port,
        server_port: ends.local_port,
        reserved: 0,
    };
    // SAFETY: the context is the program's own.
    let (sent, received) = unsafe { ((*ctx.ops).snd_nxt, (*ctx.ops).rcv_nxt) };
    // SAFETY: copied out at once; the key's connection is this one or dead.
    let offered = (unsafe { HANDSHAKES.get(&key) }).copied();
    let Some(handshake) = offered.filter(|handshake| handshake.client != SERVED_ALREADY) else {
        if completed_by_data(ctx) {
            // TCP_FASTOPEN: served from the SYN on, while the client knows nothing yet.
            let served = Handshake {
                client: SERVED_ALREADY,
                sent,
                received,
                ..Handshake::default()
            };
            let _ = HANDSHAKES.insert(&key, &served, ANY);
        }
        return;
    };
    let _ = HANDSHAKES.remove(&key);
    if handshake.sent != received || handshake.received != sent {
        count(Event::PairMismatch);
        return;
    }
    let Some(record) = record(ctx, ends, netns, Role::Server) else {
        return;
    };
    record.source = client.workload;
    record.destination = workload;
    record.service = handshake.service;
    record.way = handshake.way;
    watch(ctx, BPF_SOCK_OPS_STATE_CB_FLAG);
    if !enter(ctx, record) {
        return;
    }
    record.peer = handshake.client.cookie;
    record.peer_record = handshake.client.record;
    if handshake.forced != 0 {
        let _ = PEERS.insert(&record.cookie, &handshake.client, NOEXIST);
    }
    // Last: from here on the client may send to this socket. If it has sent already, it left its mark.
    if PEERS
        .insert(&handshake.client.cookie, &itself(record), NOEXIST)
        .is_ok()
    {
        watch(ctx, BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG);
        count(Event::Paired);
        return;
    }
    record.peer = 0;
    record.peer_record = 0;
    let _ = PEERS.remove(&record.cookie);
    let _ = PEERS.remove(&handshake.client.cookie);
    withdraw(record.cookie);
    if completed_by_data(ctx) {
        // A listener from before the programs were attached: its option was not seen.
        listener::note_deferring(netns, ends.local_port);
    }
    plain(record, Plain::PeerNotThere);
}

/// Whether the segment that completed the handshake carried data: the listener waited for it.
#[inline(always)]
fn completed_by_data(ctx: &SockOpsContext) -> bool {
    const HEADER: usize = 20;
    const DATA_OFFSET: usize = 12;
    // SAFETY: the context is the program's own; the byte lies within the bounds that were checked.
    unsafe {
        let segment = (*ctx.ops).__bindgen_anon_3.skb_data as usize;
        let end = (*ctx.ops).__bindgen_anon_4.skb_data_end as usize;
        if segment + HEADER > end {
            return false;
        }
        let words = *((segment + DATA_OFFSET) as *const u8) >> 4;
        (*ctx.ops).skb_len > u32::from(words) * 4
    }
}

/// Puts the socket into the socket map, under its own cookie: no tuple, no namespace can collide.
#[inline(always)]
fn enter(ctx: &SockOpsContext, record: &mut Connection) -> bool {
    let mut key = record.cookie;
    // SAFETY: the context is the program's own, the key is of the map's type.
    let refused = unsafe {
        bpf_sock_hash_update(
            ctx.ops,
            (&raw const SOCKETS).cast_mut().cast(),
            (&raw mut key).cast(),
            ANY,
        )
    };
    if refused != 0 {
        count(Event::SocketRefused);
        plain(record, Plain::Refused);
        return false;
    }
    true
}

/// This end, as the other needs it.
#[inline(always)]
fn itself(record: &Connection) -> Peer {
    Peer {
        cookie: record.cookie,
        record: ptr::from_ref(record) as u64,
    }
}

/// Takes a socket out of the map.
#[inline(always)]
fn withdraw(cookie: u64) {
    // SAFETY: the key is of the map's type; `sock_ops` programs may delete.
    unsafe {
        bpf_map_delete_elem(
            (&raw const SOCKETS).cast_mut().cast(),
            (&raw const cookie).cast_mut().cast(),
        )
    };
}

/// Takes a socket that turned out to be plain, or became it, out of the map. Runs whenever a segment is
/// about to leave, so inside the very send that decided, and with the ACK of what came by TCP.
///
/// With bytes in its queue it would lose them, so a socket leaves when the other end is done with
/// redirecting and everything was read; until then this is tried again with each segment.
#[inline(always)]
pub fn leave_if_plain(ctx: &SockOpsContext) {
    let sk = sk(ctx);
    if sk.is_null() {
        return;
    }
    // SAFETY: the context's own socket.
    let (record, tcp) = unsafe { (kernel::connection(sk), TcpSock::of(sk.cast())) };
    let (Some(record), Some(tcp)) = (record, tcp) else {
        return;
    };
    // SAFETY: points into the socket's storage; segments are made under the socket's lock.
    let record = unsafe { &mut *record.as_ptr() };
    let psock = Psock::of(tcp);
    if !follow(record, psock) || !psock.is_empty() || !psock.is_unattended(tcp) {
        return;
    }
    withdraw(record.cookie);
    let flags = ctx.cb_flags() & !BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG;
    let _ = ctx.set_cb_flags(flags as i32);
}

/// Whether both directions are plain for good. Makes this one plain where the other is.
#[inline(always)]
fn follow(record: &mut Connection, psock: Psock) -> bool {
    let peer = PeerRecord::of(record);
    if record.sending == Sending::Undecided as u32 {
        let why = match peer_is_plain(record) {
            // It agreed, and has come to an end with redirecting.
            Plain::No if record.peer_record != 0 && peer.is_done() => Plain::PeerPlain,
            why => why,
        };
        if why == Plain::No {
            return false;
        }
        plain(record, why);
        record.clean = 1;
        return true;
    }
    if record.agreed == 0 {
        return record.sending == Sending::Plain as u32;
    }
    if !peer.is_done() {
        return false;
    }
    if record.sending != Sending::Plain as u32 {
        if psock.in_call() || psock.calls() != 0 {
            // A message may be under way: the next send knows.
            record.told = 1;
            return false;
        }
        plain(record, Plain::PeerPlain);
        record.clean = 1;
    }
    true
}

/// Whether the other end has decided for TCP while this one has not sent yet.
#[inline(always)]
fn peer_is_plain(record: &Connection) -> Plain {
    let (server, why) = if record.role == Role::Client as u32 {
        // SAFETY: a number, copied out.
        match unsafe { PEERS.get(&record.cookie) }.copied() {
            Some(server) => (server.cookie, Plain::ServerFirst),
            None => return Plain::No,
        }
    } else {
        (record.cookie, Plain::PeerPlain)
    };
    // SAFETY: a number, copied out.
    match unsafe { PEERS.get(&server) }.copied() {
        Some(NOBODY) => why,
        _ => Plain::No,
    }
}
