//! `cgroup/setsockopt`: sees the options that redirection could not honour, and keeps those connections
//! on plain TCP.
//!
//! `TCP_DEFER_ACCEPT`: the server's end comes to be with the client's first bytes, too late to pair. The
//! listener's port is noted, and clients of it are left alone from the start.
//!
//! Reads nothing; writes the listener's record and the listeners map. Never refuses an option.
//! Minimum kernel 5.15: `bpf_get_netns_cookie` (commit fb99f9f2d45a has it for sockopt programs).

use aya_ebpf::{
    EbpfContext as _, bindings::bpf_sock, macros::cgroup_sockopt, programs::SockoptContext,
};
use mesh_common::{
    PortBe,
    connection::{Role, listener::DEFERS},
};

use crate::{
    kernel::{self, TCP},
    listener,
};

const ALLOW: i32 = 1;
const TCP_DEFER_ACCEPT: i32 = 9;
const TCP_LISTEN: u32 = 10;
const PAGE: i32 = 4096;

/// See the module.
#[cgroup_sockopt(setsockopt)]
pub fn setsockopt(ctx: SockoptContext) -> i32 {
    // SAFETY: the context is the program's own.
    let (level, name, length, sk) = unsafe {
        let options = &*ctx.sockopt;
        (
            options.level,
            options.optname,
            options.optlen,
            options.__bindgen_anon_1.sk,
        )
    };
    if length > PAGE {
        // Longer than what programs get to see: 0 tells the kernel to take the caller's own buffer.
        // SAFETY: the verifier lets this field be written.
        unsafe { (*ctx.sockopt).optlen = 0 };
    }
    if level == i32::from(TCP) && name == TCP_DEFER_ACCEPT && !sk.is_null() {
        // SAFETY: the context's own socket.
        unsafe { note_deferring(&ctx, sk) };
    }
    ALLOW
}

/// # Safety
/// `sk` is the context's socket, not null.
#[inline(always)]
unsafe fn note_deferring(ctx: &SockoptContext, sk: *mut bpf_sock) {
    // SAFETY: as the caller says.
    unsafe {
        if (*sk).state == TCP_LISTEN {
            let port = PortBe::new((*sk).src_port as u16);
            listener::note_deferring(kernel::netns_cookie(ctx.as_ptr()), port);
        } else if let Some(record) = kernel::connection_or_new(sk) {
            (*record.as_ptr()).role = Role::Listener as u32;
            (*record.as_ptr()).hazards = DEFERS;
        }
    }
}
