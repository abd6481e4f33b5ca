//! Queries for names: the part of `connect4`, `connect6` and of the datagrams' hooks ([`crate::datagram`])
//! for port 53.
//!
//! A query of an enrolled pod to port 53, UDP or TCP, is sent to the agent's listener in the pod's own
//! namespace, at the place that stands for the name server that was dialled (`mesh_common::dns`). What
//! the application sees (recvmsg, getpeername) is the name server.
//!
//! Reads workloads, frontends, settings, the socket's record; reads and writes nameservers.
//! Fails open: without an agent, or where anything is missing, the query goes where any other datagram or
//! connection would.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{BPF_F_CURRENT_NETNS, bpf_sock, bpf_sock_tuple},
    helpers::generated::{bpf_sk_lookup_udp, bpf_sk_release},
    programs::SockAddrContext,
};
use mesh_common::{
    IpBe, PortBe,
    connection::Role,
    dns::{NameserverKey, PORT, SLOTS, listener, may_listen_at, slot_at},
    policy::{FrontendKey, Verdict, Workload},
};

use crate::{
    connect::{self, family::Family},
    kernel::{self, NOEXIST, TCP, UDP},
    maps::{FRONTENDS, NAMESERVERS, WORKLOADS},
    reuse,
};

/// Turns a connect to port 53 to the agent. False: it is left as it is, and may be something else.
#[inline(always)]
pub fn catch_connect<F: Family>(ctx: &SockAddrContext) -> bool {
    // SAFETY: the context is the program's own.
    let family = unsafe { (*ctx.sock_addr).family };
    // An AF_INET6 socket that is told an AF_INET address could not be bound to the pod's own.
    if family != F::SOCKET {
        return false;
    }
    let Some(caught) = catch::<F>(ctx) else {
        return false;
    };
    connect::keep_source::<F>(ctx, caught.sk, caught.source);
    true
}

/// Turns a datagram to port 53 to the agent. False: as above.
#[inline(always)]
pub fn catch_datagram<F: Family>(ctx: &SockAddrContext) -> bool {
    // SAFETY: the context and its socket are the program's own.
    let is_peer = || unsafe { F::is_peer(ctx.sock_addr, (*ctx.sock_addr).__bindgen_anon_1.sk) };
    // SAFETY: the context is the program's own.
    let port = PortBe(unsafe { (*ctx.sock_addr).user_port } as u16);
    // A connected socket takes answers of its peer only.
    port == PortBe::new(PORT) && !is_peer() && catch::<F>(ctx).is_some()
}

/// A query that was turned to the agent.
struct Caught {
    sk: *mut bpf_sock,
    source: IpBe,
}

#[inline(always)]
fn catch<F: Family>(ctx: &SockAddrContext) -> Option<Caught> {
    // SAFETY: the context is the program's own.
    let (port, protocol, sk) = unsafe {
        let addr = &*ctx.sock_addr;
        (
            PortBe(addr.user_port as u16),
            addr.protocol as u16,
            addr.__bindgen_anon_1.sk,
        )
    };
    if port != PortBe::new(PORT) || (protocol != UDP && protocol != TCP) {
        return None;
    }
    let netns = kernel::netns_cookie(ctx.as_ptr());
    // SAFETY: user space replaces values whole.
    let workload: &Workload = unsafe { WORKLOADS.get(&netns) }?;
    // SAFETY: the context is the program's own.
    let address = unsafe { F::address(ctx.sock_addr) };
    if listener(workload, 0, address).is_none() || !connect::agent_lives() {
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
        // SAFETY: points into the socket's storage, and the socket is locked.
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
    let (at, port) = listener(workload, slot, address)?;
    if !listens(ctx, at, port) {
        return None;
    }
    // SAFETY: the context is the program's own, and its address was read; the verifier lets the port be
    // written.
    unsafe {
        F::set_address(ctx.sock_addr, at);
        (*ctx.sock_addr).user_port = u32::from(port.0);
    }
    Some(Caught {
        sk,
        source: workload.own_address(address),
    })
}

/// Whether policy refuses connections to this name server: the agent must not be a way around.
#[inline(always)]
fn is_denied(address: IpBe, protocol: u16) -> bool {
    let key = FrontendKey {
        address,
        port: PortBe::new(PORT),
        protocol,
    };
    // SAFETY: user space replaces values whole.
    unsafe { FRONTENDS.get(&key) }.is_some_and(|frontend| frontend.verdict == Verdict::Deny as u32)
}

/// The slot of a name server; a new one where it has none. None: the pod has dialled too many.
#[inline(always)]
fn slot_for(netns: u64, address: IpBe) -> Option<u32> {
    for slot in 0..SLOTS {
        let key = NameserverKey::new(netns, slot);
        if nameserver(&key).is_none() {
            // Fails where another CPU was quicker: then the slot may be for the same one.
            let _ = NAMESERVERS.insert(&key, &address, NOEXIST);
        }
        if nameserver(&key).is_some_and(|known| known.is(address)) {
            return Some(slot);
        }
    }
    None
}

#[inline(always)]
fn nameserver(key: &NameserverKey) -> Option<&'static IpBe> {
    // SAFETY: written once, before it can be found.
    unsafe { NAMESERVERS.get(key) }
}

/// Whether a listener is there: the sockets of an agent that was killed are gone before its heartbeat is
/// stale.
#[inline(always)]
fn listens(ctx: &SockAddrContext, address: IpBe, port: PortBe) -> bool {
    // SAFETY: plain data, for which zeros are a value.
    let mut tuple: bpf_sock_tuple = unsafe { core::mem::zeroed() };
    let size = if address.is_v4() {
        // SAFETY: the union's IPv4 half, which is what the size says.
        let ipv4 = unsafe { &mut tuple.__bindgen_anon_1.ipv4 };
        ipv4.saddr = IpBe::LOOPBACK_V4.0[3];
        ipv4.daddr = address.0[3];
        ipv4.sport = PortBe::new(PORT).0;
        ipv4.dport = port.0;
        size_of_val(ipv4)
    } else {
        // SAFETY: the IPv6 half, likewise.
        let ipv6 = unsafe { &mut tuple.__bindgen_anon_1.ipv6 };
        ipv6.saddr = IpBe::LOOPBACK_V6.0;
        ipv6.daddr = address.0;
        ipv6.sport = PortBe::new(PORT).0;
        ipv6.dport = port.0;
        size_of_val(ipv6)
    };
    // SAFETY: the tuple is ours and of this size; what is found is released.
    unsafe {
        let found = bpf_sk_lookup_udp(
            ctx.as_ptr(),
            &raw mut tuple,
            size as u32,
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

/// Puts the name server that was dialled in the place of the agent's listener. False: this is none.
#[inline(always)]
pub fn give_back<F: Family>(ctx: &SockAddrContext) -> bool {
    // SAFETY: the context is the program's own.
    let address = unsafe { F::address(ctx.sock_addr) };
    if !may_listen_at(address) {
        return false;
    }
    let netns = kernel::netns_cookie(ctx.as_ptr());
    // SAFETY: user space replaces values whole.
    let Some(workload) = (unsafe { WORKLOADS.get(&netns) }) else {
        return false;
    };
    // SAFETY: the context is the program's own.
    let port = PortBe(unsafe { (*ctx.sock_addr).user_port } as u16);
    let Some(slot) = slot_at(workload, address, port) else {
        return false;
    };
    let Some(dialled) = nameserver(&NameserverKey::new(netns, slot)) else {
        return false;
    };
    // SAFETY: the verifier lets these be written.
    unsafe {
        F::set_address(ctx.sock_addr, *dialled);
        (*ctx.sock_addr).user_port = u32::from(PortBe::new(PORT).0);
    }
    true
}
