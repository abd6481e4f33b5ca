//! Queries for names: `connect4`'s part for port 53, `cgroup/sendmsg4` and `cgroup/recvmsg4`.
//!
//! A query of an enrolled pod to port 53, UDP or TCP, is sent to the agent's listener in the pod's own
//! namespace, at the address that stands for the name server that was dialled (`mesh_common::dns`). What
//! the application sees (recvmsg, getpeername) is the name server.
//!
//! Reads workloads, frontends, settings, the socket's record; reads and writes nameservers.
//! Fails open: without an agent, or where anything is missing, the query goes untouched.
//! Minimum kernel: as `connect4`, nothing here is newer (recvmsg4 is of 5.2, commit 983695fa6765).
//! `udp_sendmsg` runs sendmsg4 for destinations that a call names; connected sockets have theirs from
//! connect(2):
//! <https://github.com/torvalds/linux/blob/v6.18/net/ipv4/udp.c>.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{BPF_F_CURRENT_NETNS, bpf_sock, bpf_sock_tuple},
    helpers::generated::{bpf_sk_lookup_udp, bpf_sk_release},
    macros::cgroup_sock_addr,
    programs::SockAddrContext,
};
use mesh_common::{
    IpBe, Ipv4Be, PortBe,
    connection::Role,
    dns::{NameserverKey, PORT, SLOTS, address_of, slot_at},
    policy::{FrontendKey, Verdict, Workload},
};

use crate::{
    connect::{self, family::V4},
    kernel::{self, AF_INET, NOEXIST, TCP, UDP},
    maps::{FRONTENDS, NAMESERVERS, WORKLOADS},
    reuse,
};

const ALLOW: i32 = 1;

/// See the module.
#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(ctx: SockAddrContext) -> i32 {
    catch(&ctx);
    ALLOW
}

/// See the module.
#[cgroup_sock_addr(recvmsg4)]
pub fn recvmsg4(ctx: SockAddrContext) -> i32 {
    give_back(&ctx);
    ALLOW
}

/// Turns a connect to port 53 to the agent. False: it is left as it is, and may be something else.
#[inline(always)]
pub fn catch_connect(ctx: &SockAddrContext) -> bool {
    let Some(caught) = catch(ctx) else {
        return false;
    };
    connect::keep_source::<V4>(ctx, caught.sk, caught.source);
    true
}

/// A query that was turned to the agent.
struct Caught {
    sk: *mut bpf_sock,
    source: IpBe,
}

#[inline(always)]
fn catch(ctx: &SockAddrContext) -> Option<Caught> {
    // SAFETY: the context is the program's own.
    let (address, port, family, protocol, sk) = unsafe {
        let addr = &*ctx.sock_addr;
        (
            Ipv4Be(addr.user_ip4),
            PortBe(addr.user_port as u16),
            addr.family,
            addr.protocol as u16,
            addr.__bindgen_anon_1.sk,
        )
    };
    // An AF_INET6 socket that speaks IPv4 would get its answers past recvmsg4.
    if port != PortBe::new(PORT) || family != AF_INET || (protocol != UDP && protocol != TCP) {
        return None;
    }
    let netns = kernel::netns_cookie(ctx.as_ptr());
    // SAFETY: user space replaces values whole.
    let workload: &Workload = unsafe { WORKLOADS.get(&netns) }?;
    if workload.dns.0 == 0 || !connect::agent_lives() {
        return None;
    }
    // SAFETY: the context's own socket.
    let bound_device = unsafe { (*sk).bound_dev_if };
    // Loopback is out of reach for a socket that is bound to another interface.
    if bound_device != 0 || is_denied(address, protocol) {
        return None;
    }
    // SAFETY: the context's own socket.
    if let Some(record) = unsafe { kernel::connection(sk) } {
        // SAFETY: points into the socket's storage, and the socket is locked for connect(2); a UDP
        // socket's record is never changed.
        let record = unsafe { &mut *record.as_ptr() };
        if record.role == Role::Agent as u32 {
            return None;
        }
        if protocol == TCP {
            // A second connect on the socket: what the first one left is not true any more.
            *record = reuse::renewed(record);
        }
    }
    let slot = slot_for(netns, address)?;
    if !listens(ctx, slot, workload.dns) {
        return None;
    }
    // SAFETY: the verifier lets these two fields be written.
    unsafe {
        (*ctx.sock_addr).user_ip4 = address_of(slot).0;
        (*ctx.sock_addr).user_port = u32::from(workload.dns.0);
    }
    Some(Caught {
        sk,
        source: workload.address,
    })
}

/// Whether policy refuses connections to this name server: the agent must not be a way around.
#[inline(always)]
fn is_denied(address: Ipv4Be, protocol: u16) -> bool {
    let key = FrontendKey {
        address: IpBe::from_v4(address),
        port: PortBe::new(PORT),
        protocol,
    };
    // SAFETY: user space replaces values whole.
    unsafe { FRONTENDS.get(&key) }.is_some_and(|frontend| frontend.verdict == Verdict::Deny as u32)
}

/// The slot of a name server; a new one where it has none. None: the pod has dialled too many.
#[inline(always)]
fn slot_for(netns: u64, address: Ipv4Be) -> Option<u32> {
    for slot in 0..SLOTS {
        let key = NameserverKey::new(netns, slot);
        if nameserver(&key).is_none() {
            // Fails where another CPU was quicker: then the slot may be for the same one.
            let _ = NAMESERVERS.insert(&key, &address, NOEXIST);
        }
        if nameserver(&key) == Some(address) {
            return Some(slot);
        }
    }
    None
}

#[inline(always)]
fn nameserver(key: &NameserverKey) -> Option<Ipv4Be> {
    // SAFETY: written once, before it can be found.
    unsafe { NAMESERVERS.get(key) }.copied()
}

/// Whether the listener of a slot is there: the sockets of an agent that was killed are gone before its
/// heartbeat is stale.
#[inline(always)]
fn listens(ctx: &SockAddrContext, slot: u32, port: PortBe) -> bool {
    // SAFETY: plain data, for which zeros are a value.
    let mut tuple: bpf_sock_tuple = unsafe { core::mem::zeroed() };
    // SAFETY: the union's IPv4 half, which is what the size below says.
    let ipv4 = unsafe { &mut tuple.__bindgen_anon_1.ipv4 };
    ipv4.saddr = Ipv4Be::LOOPBACK.0;
    ipv4.daddr = address_of(slot).0;
    ipv4.sport = PortBe::new(PORT).0;
    ipv4.dport = port.0;
    let size = size_of_val(ipv4) as u32;
    // SAFETY: the tuple is ours and of this size; what is found is released.
    unsafe {
        let found = bpf_sk_lookup_udp(
            ctx.as_ptr(),
            &raw mut tuple,
            size,
            BPF_F_CURRENT_NETNS as u64,
            0,
        );
        if found.is_null() {
            return false;
        }
        bpf_sk_release(found.cast());
    }
    true
}

/// Puts the name server that was dialled in the place of the agent's listener.
#[inline(always)]
pub fn give_back(ctx: &SockAddrContext) {
    // SAFETY: the context is the program's own.
    let (address, port) = unsafe {
        let addr = &*ctx.sock_addr;
        (Ipv4Be(addr.user_ip4), PortBe(addr.user_port as u16))
    };
    let Some(slot) = slot_at(address) else {
        return;
    };
    let netns = kernel::netns_cookie(ctx.as_ptr());
    // SAFETY: user space replaces values whole.
    let Some(workload) = (unsafe { WORKLOADS.get(&netns) }) else {
        return;
    };
    if port != workload.dns {
        return;
    }
    if let Some(dialled) = nameserver(&NameserverKey::new(netns, slot)) {
        // SAFETY: the verifier lets these two fields be written.
        unsafe {
            (*ctx.sock_addr).user_ip4 = dialled.0;
            (*ctx.sock_addr).user_port = u32::from(PortBe::new(PORT).0);
        }
    }
}
