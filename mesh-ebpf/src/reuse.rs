//! A socket that is disconnected (`connect` to AF_UNSPEC) and connects again is still a member of the socket
//! map, and what was queued for its first connection would be read on its second.
//!
//! Reads the socket's record; writes sockets.
//! <https://github.com/torvalds/linux/blob/v6.18/net/ipv4/tcp_bpf.c> `tcp_bpf_rebuild_protos`: nothing of the
//! socket map's is called by `tcp_disconnect`.

use aya_ebpf::{
    EbpfContext as _, bindings::BPF_SOCK_OPS_STATE_CB_FLAG,
    helpers::generated::bpf_map_delete_elem, programs::SockOpsContext,
};
use mesh_common::{
    caveat,
    connection::{Connection, Role},
};

use crate::{
    kernel,
    maps::SOCKETS,
    sock_ops::{sk, watch},
};

/// The record for another connection on the same socket. What was set on the socket stays.
#[inline(always)]
pub fn renewed(record: &Connection) -> Connection {
    let connected = if record.role == Role::Client as u32 {
        caveat::CONNECTED_BEFORE
    } else {
        0
    };
    Connection {
        hazards: record.hazards & (caveat::OPTIONS | caveat::CONNECTED_BEFORE) | connected,
        ..Connection::default()
    }
}

/// Before the SYN: takes the socket out of the map, and its queue goes with that.
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
    // SAFETY: points into the socket's storage.
    let record = unsafe { record.as_ref() };
    if record.role != Role::Agent as u32 {
        // A connect that fails tells of it by its state.
        watch(ctx, BPF_SOCK_OPS_STATE_CB_FLAG);
    }
    if record.hazards & caveat::CONNECTED_BEFORE == 0 {
        return;
    }
    let cookie = kernel::socket_cookie(ctx.as_ptr());
    // SAFETY: the key is of the map's type; `sock_ops` programs may delete.
    unsafe {
        bpf_map_delete_elem(
            (&raw const SOCKETS).cast_mut().cast(),
            (&raw const cookie).cast_mut().cast(),
        )
    };
}
