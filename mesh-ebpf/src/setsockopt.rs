//! `cgroup/setsockopt`: sees the options that redirection could not honour, and keeps those connections
//! on plain TCP.
//!
//! `TCP_DEFER_ACCEPT`: the server's end comes to be with the client's first bytes, too late to pair. The
//! listener's port is noted, and clients of it are left alone from the start. The other options are in
//! [`caveat`]: noted at the listener's port or in the socket's record, and taken back where the option is.
//!
//! Writes the socket's record, the listeners map, peers. Refuses one option: `TCP_ULP` on a connection that
//! is redirected by then.
//! Minimum kernel 5.18: `bpf_set_retval`, beside `bpf_get_netns_cookie`, 5.15. Runs with
//! the socket locked: <https://github.com/torvalds/linux/blob/v6.18/kernel/bpf/cgroup.c>
//! `__cgroup_bpf_run_filter_setsockopt`.

use aya_ebpf::{
    EbpfContext as _, bindings::bpf_sock, helpers::generated::bpf_set_retval,
    macros::cgroup_sockopt, programs::SockoptContext,
};
use mesh_common::{
    PortBe, caveat,
    connection::{Role, Sending, listener::DEFERS},
};

use crate::{
    caveats,
    kernel::{self, TCP},
    listener,
};

const ALLOW: i32 = 1;
const REFUSE: i32 = 0;
const ENOENT: i32 = 2;
const SOL_SOCKET: i32 = 1;
const IPPROTO_TCP: i32 = 6;
const TCP_DEFER_ACCEPT: i32 = 9;
const TCP_CLOSE: u32 = 7;
const TCP_LISTEN: u32 = 10;
const PAGE: i32 = 4096;

/// An option that redirection could not honour.
struct Caveat {
    /// Of [`caveat`].
    bit: u32,
    /// The value, cut or widened to 32 bits, that means that the option is not in force.
    off: u32,
}

/// What setsockopt(2) answers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// What the kernel says.
    Kernels,
    /// ENOENT, as a kernel without that protocol says: TLS stays in user space. The kernel's TLS would read
    /// the other end's redirected records as if they were decrypted (`tls_sw_recvmsg`).
    NoSuchProtocol,
}

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
    if sk.is_null() {
        return ALLOW;
    }
    // SAFETY: the context's own socket.
    unsafe {
        if level == IPPROTO_TCP && name == TCP_DEFER_ACCEPT {
            note_deferring(&ctx, sk);
        } else if let Some(caveat) = caveat_of(level, name)
            && (*sk).protocol == u32::from(TCP)
            && note(&ctx, sk, &caveat) == Answer::NoSuchProtocol
        {
            bpf_set_retval(-ENOENT);
            return REFUSE;
        }
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
            (*record.as_ptr()).hazards |= DEFERS;
        }
    }
}

/// Numbers from the kernel's asm-generic/socket.h and linux/tcp.h: those of x86-64 and arm64.
#[inline(always)]
fn caveat_of(level: i32, name: i32) -> Option<Caveat> {
    let (bit, off) = match (level, name) {
        // SO_RCVLOWAT: 0 means 1.
        (SOL_SOCKET, 18) => (caveat::RCVLOWAT, 1),
        // SO_ATTACH_FILTER, SO_ATTACH_BPF. SO_DETACH_FILTER is rare enough not to be seen.
        (SOL_SOCKET, 26 | 50) => (caveat::FILTER, u32::MAX),
        // SO_TIMESTAMP, SO_TIMESTAMPNS, SO_TIMESTAMPING, each as it was before 2038 mattered and since.
        (SOL_SOCKET, 29 | 35 | 37 | 63 | 64 | 65) => (caveat::TIMESTAMPS, 0),
        // SO_PEEK_OFF: -1.
        (SOL_SOCKET, 42) => (caveat::PEEK_OFF, u32::MAX),
        // SO_MAX_PACING_RATE: ~0.
        (SOL_SOCKET, 47) => (caveat::PACING, u32::MAX),
        // SO_ZEROCOPY.
        (SOL_SOCKET, 60) => (caveat::ZEROCOPY, 0),
        // TCP_ULP: a name.
        (IPPROTO_TCP, 31) => (caveat::ULP, 0),
        // TCP_INQ.
        (IPPROTO_TCP, 36) => (caveat::INQ, 0),
        _ => return None,
    };
    Some(Caveat { bit, off })
}

/// # Safety
/// `sk` is the context's socket, not null.
#[inline(always)]
unsafe fn note(ctx: &SockoptContext, sk: *mut bpf_sock, caveat: &Caveat) -> Answer {
    let value = value(ctx);
    let low = caveat.bit == caveat::RCVLOWAT && value == 0;
    let bits = if value == caveat.off || low {
        0
    } else {
        caveat.bit
    };
    // SAFETY: as the caller says; the socket is locked, and so is its record.
    unsafe {
        let state = (*sk).state;
        if state == TCP_LISTEN {
            let port = PortBe::new((*sk).src_port as u16);
            let netns = kernel::netns_cookie(ctx.as_ptr());
            listener::change(netns, port, caveat.bit, bits);
            return Answer::Kernels;
        }
        let record = if state == TCP_CLOSE && bits != 0 {
            kernel::connection_or_new(sk)
        } else {
            kernel::connection(sk)
        };
        let Some(record) = record else {
            return Answer::Kernels;
        };
        let record = &mut *record.as_ptr();
        if record.role == Role::Agent as u32 {
            return Answer::Kernels;
        }
        record.hazards = record.hazards & !caveat.bit | bits;
        if bits != 0 {
            caveats::refuse(record, bits);
        }
        let stays = record.agreed != 0 || record.sending != Sending::Plain as u32;
        if caveat.bit == caveat::ULP && state != TCP_CLOSE && record.peer != 0 && stays {
            return Answer::NoSuchProtocol;
        }
    }
    Answer::Kernels
}

/// The option's first 32 bits.
#[inline(always)]
fn value(ctx: &SockoptContext) -> u32 {
    // SAFETY: the context is the program's own; the word lies within the bounds that were checked.
    unsafe {
        let at = (*ctx.sockopt).__bindgen_anon_2.optval as usize;
        let end = (*ctx.sockopt).__bindgen_anon_3.optval_end as usize;
        if at + size_of::<u32>() > end {
            // Shorter: the kernel refuses it, or it is a name.
            return u32::MAX - 1;
        }
        *(at as *const u32)
    }
}
