//! Zerohop in the kernel. The programs have no policy of their own: they look up the verdicts that
//! user space compiled into maps.
//!
//! | file | hook |
//! |---|---|
//! | [`connect`] | `cgroup/connect4`, `connect6`, `getpeername4`, `getpeername6`: which way a connection goes |
//! | [`pick`] | its part: which endpoint of a service |
//! | [`load`], [`served`] | what that asks: open connections of an endpoint, ports that were closed |
//! | [`ingress`] | `cgroup_skb/ingress`: a SYN to an enrolled pod is let in, or not |
//! | [`access`] | its and `connect`'s part: who may connect to whom |
//! | [`datagram`] | its part for UDP, `cgroup/sendmsg4`, `sendmsg6`, `recvmsg4`, `recvmsg6`: services over UDP |
//! | [`dns`] | the part for names of all of these: queries to the agent |
//! | [`vouch`] | their part too: whether a client is who its address says |
//! | [`host_pods`] | `connect`'s and `sock_ops`' part for pods in the host's namespace, by cgroup |
//! | [`dns`] | its part for names, `cgroup/sendmsg4`, `cgroup/recvmsg4`: queries to the agent |
//! | [`sock_ops`] | `sockops`: a socket listens, is established, sends, closes |
//! | [`pairing`], [`accounting`] | its parts: the two ends of a connection, the totals |
//! | [`failures`] | connects that came to nothing |
//! | [`events`] | what is told of single connections while somebody follows |
//! | [`listener`] | what is known of a port before its first connection |
//! | [`caveats`] | what was seen of a socket before its first byte |
//! | [`reuse`] | a socket that connects again |
//! | [`setsockopt`] | `cgroup/setsockopt`: options that redirection could not honour |
//! | [`sk_msg`], [`queue`] | `sk_msg`: bytes from socket to socket, as far as the reader keeps up |
//! | [`join`] | `sk_skb/stream_verdict`: one queue for redirected bytes and TCP's |
//! | [`dump`] | `iter/bpf_sk_storage_map`: live connections, and exchanges of datagrams, for the agent and the CLI |
#![no_std]
#![no_main]
// core has no fetch_add for a target without compare-and-swap, though BPF can add atomically.
#![feature(core_intrinsics)]
#![expect(internal_features, reason = "atomic_xadd")]

mod access;
mod accounting;
mod caveats;
mod connect;
mod datagram;
mod dns;
mod dump;
mod events;
mod failures;
mod host_pods;
mod ingress;
mod join;
mod kernel;
mod listener;
mod load;
mod maps;
mod pairing;
mod pick;
mod queue;
mod reuse;
mod served;
mod setsockopt;
mod sk_msg;
mod sock_ops;
mod vouch;

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Nothing here panics: the verifier would refuse an endless loop that could be reached.
    loop {}
}

// The helpers that read kernel memory are for GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
