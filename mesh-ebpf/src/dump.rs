//! `iter/bpf_sk_storage_map`: every socket that has a record, as [`ConnectionRecord`]s one after the
//! other; and every UDP socket that talks to services, as [`Exchanges`]. Pinned, so that reading a file
//! lists them, with no agent too.
//!
//! Minimum kernel 5.9. Reads the connections map, or the exchanges map; writes nothing.
//! <https://github.com/torvalds/linux/blob/v6.18/net/core/bpf_sk_storage.c>.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_seq_write;
use mesh_common::{
    connection::{Connection, ConnectionRecord, Role},
    datagram::Exchanges,
};

use crate::kernel::TcpSock;

/// The iterator's context (`struct bpf_iter__bpf_sk_storage_map`).
#[repr(C)]
pub struct Context<V> {
    meta: *const Meta,
    map: *const c_void,
    sk: *mut c_void,
    value: *const V,
}

/// The start of `struct bpf_iter_meta`.
#[repr(C)]
pub struct Meta {
    seq: *mut c_void,
}

/// See the module.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/bpf_sk_storage_map")]
pub extern "C" fn dump_connections(ctx: *mut Context<Connection>) -> i32 {
    // SAFETY: the context is the program's own; the verifier knows the types of its fields.
    unsafe {
        let (sk, value) = ((*ctx).sk, (*ctx).value);
        if sk.is_null() || value.is_null() {
            return 0;
        }
        let connection = *value;
        // Settled ones are in the totals; the agent's own and half-open ones are no connections.
        if connection.settled != 0
            || connection.cookie == 0
            || connection.role == Role::Agent as u32
        {
            return 0;
        }
        let Some(tcp) = TcpSock::of(sk) else { return 0 };
        let bytes = tcp.bytes();
        let mut record = ConnectionRecord {
            connection,
            tcp_sent: bytes.sent,
            tcp_received: bytes.received,
            rtt_us: tcp.smoothed_rtt_us(),
            state: tcp.state(),
            min_rtt_us: tcp.min_rtt_us(),
            retransmits: tcp.retransmits(),
        };
        bpf_seq_write(
            (*(*ctx).meta).seq.cast(),
            (&raw mut record).cast(),
            size_of::<ConnectionRecord>() as u32,
        );
    }
    0
}

/// See the module.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/bpf_sk_storage_map")]
pub extern "C" fn dump_exchanges(ctx: *mut Context<Exchanges>) -> i32 {
    // SAFETY: the context is the program's own; the verifier knows the types of its fields.
    unsafe {
        let value = (*ctx).value;
        if value.is_null() {
            return 0;
        }
        bpf_seq_write(
            (*(*ctx).meta).seq.cast(),
            value.cast_mut().cast(),
            size_of::<Exchanges>() as u32,
        );
    }
    0
}
