//! Services over UDP: the part of `connect4` and `connect6` for datagrams, `cgroup/sendmsg4`, `sendmsg6`,
//! `recvmsg4` and `recvmsg6`.
//!
//! What a pod sends to a service's address goes to a ready endpoint, the same for all that one socket sends
//! to that service, until the endpoint has gone. What the application sees (recvmsg, getpeername) is the
//! service. Policies of pods hold for TCP only, as in Istio: a datagram is not judged.
//!
//! Reads frontends, endpoints, workloads, the socket's record; reads and writes the socket's [`exchanges`].
//! A datagram to an address that is no service's costs one look-up, in frontends; an answer to a socket that
//! talks to none costs the one in the socket's storage.
//! Fails open where there is no memory (the datagram goes to a virtual address that nobody answers).
//! Minimum kernel 6.1: `bpf_set_retval`, as `connect4`; recvmsg is of 5.2 (commit 983695fa6765).
//! `udp_sendmsg` runs sendmsg4 for destinations that a call names, and for all of an IPv6 socket that is
//! connected to IPv4; other connected sockets have theirs from connect(2). All run with the socket locked:
//! <https://github.com/torvalds/linux/blob/v6.18/net/ipv4/udp.c>,
//! <https://github.com/torvalds/linux/blob/v6.18/net/ipv6/udp.c>.

use aya_ebpf::{
    EbpfContext as _, bindings::bpf_sock, helpers::generated::bpf_set_retval,
    macros::cgroup_sock_addr, programs::SockAddrContext,
};
use mesh_common::{
    IpBe, PortBe,
    connection::Role,
    datagram::{CONNECTED, Exchange, Exchanges},
    policy::{Frontend, FrontendKey, Verdict, Workload, flags},
    traffic::Event,
};

use crate::{
    connect::family::{Family, V4, V6},
    dns, host_pods,
    kernel::{self, UDP},
    maps::{FRONTENDS, WORKLOADS, count},
    pick::{Target, pick},
};

mod endpoints;
mod exchanges;

const ALLOW: i32 = 1;
const REFUSE: i32 = 0;
const SOCK_DGRAM: u32 = 2;
const ECONNREFUSED: i32 = 111;

/// How often an endpoint is drawn that the socket knows by another service's name already: an answer of it
/// could be either's.
const DRAWS: usize = 4;

/// No endpoint of the service is ready.
struct NoEndpoint;

/// See the module.
#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(ctx: SockAddrContext) -> i32 {
    send::<V4>(&ctx)
}

/// See the module.
#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(ctx: SockAddrContext) -> i32 {
    send::<V6>(&ctx)
}

/// See the module.
#[cgroup_sock_addr(recvmsg4)]
pub fn recvmsg4(ctx: SockAddrContext) -> i32 {
    receive::<V4>(&ctx)
}

/// See the module.
#[cgroup_sock_addr(recvmsg6)]
pub fn recvmsg6(ctx: SockAddrContext) -> i32 {
    receive::<V6>(&ctx)
}

/// Whether the socket is a UDP one.
#[inline(always)]
pub fn is_datagram(ctx: &SockAddrContext) -> bool {
    // SAFETY: the context is the program's own.
    let (kind, protocol) = unsafe { ((*ctx.sock_addr).type_, (*ctx.sock_addr).protocol) };
    kind == SOCK_DGRAM && protocol == u32::from(UDP)
}

/// A connect(2) of a UDP socket: what the program is to return.
#[inline(always)]
pub fn connect<F: Family>(ctx: &SockAddrContext) -> i32 {
    answer(try_connect::<F>(ctx))
}

#[inline(always)]
fn send<F: Family>(ctx: &SockAddrContext) -> i32 {
    if dns::catch_datagram::<F>(ctx) {
        return ALLOW;
    }
    answer(try_send::<F>(ctx))
}

#[inline(always)]
fn answer(outcome: Result<(), NoEndpoint>) -> i32 {
    match outcome {
        Ok(()) => ALLOW,
        // As kube-proxy's REJECT gives.
        Err(NoEndpoint) => {
            count(Event::ConnectNoEndpoint);
            // SAFETY: takes a number only.
            unsafe { bpf_set_retval(-ECONNREFUSED) };
            REFUSE
        }
    }
}

/// What a program knows of a datagram's way to a service.
struct Dialled {
    sk: *mut bpf_sock,
    key: FrontendKey,
    frontend: &'static Frontend,
    netns: u64,
    workload: &'static Workload,
}

impl Dialled {
    /// None: it is no service of ours, or nobody of ours asks.
    #[inline(always)]
    fn of<F: Family>(ctx: &SockAddrContext) -> Option<Self> {
        // SAFETY: the context is the program's own.
        let (address, port, sk) = unsafe {
            (
                F::address(ctx.sock_addr),
                PortBe((*ctx.sock_addr).user_port as u16),
                (*ctx.sock_addr).__bindgen_anon_1.sk,
            )
        };
        let key = FrontendKey {
            address,
            port,
            protocol: UDP,
        };
        // SAFETY: user space replaces values whole.
        let frontend = unsafe { FRONTENDS.get(&key) }?;
        if frontend.verdict != Verdict::Direct as u32 {
            return None;
        }
        let netns = kernel::netns_cookie(ctx.as_ptr());
        // SAFETY: as above.
        let mut workload = unsafe { WORKLOADS.get(&netns) }?;
        if workload.flags & flags::BY_CGROUP != 0 {
            workload = host_pods::of_current()?;
        }
        Some(Self {
            sk,
            key,
            frontend,
            netns,
            workload,
        })
    }

    /// The socket's exchanges, made where it has none. None: it is one of the agent's own, or there is no
    /// memory.
    #[inline(always)]
    fn exchanges(&self, ctx: &SockAddrContext) -> Option<&'static mut Exchanges> {
        // SAFETY: the context's own socket, which is locked.
        if let Some(exchanges) = unsafe { exchanges::of(self.sk) } {
            return Some(exchanges);
        }
        // SAFETY: as above.
        if let Some(record) = unsafe { kernel::connection(self.sk) } {
            // SAFETY: points into the socket's storage.
            if unsafe { record.as_ref() }.role == Role::Agent as u32 {
                return None;
            }
        }
        // SAFETY: as above.
        let Some(exchanges) = (unsafe { exchanges::new(self.sk) }) else {
            count(Event::RecordLost);
            return None;
        };
        exchanges.cookie = kernel::socket_cookie(ctx.as_ptr());
        exchanges.netns = self.netns;
        exchanges.source = self.workload.id;
        Some(exchanges)
    }

    /// A ready endpoint, if it can be one that the socket does not know by another name.
    #[inline(always)]
    fn pick(&self, exchanges: &Exchanges) -> Result<Target, NoEndpoint> {
        let mut drawn = pick(self.frontend, &self.key, self.workload.id).ok_or(NoEndpoint)?;
        for _ in 1..DRAWS {
            if !exchanges::knows(exchanges, drawn.address, drawn.port) {
                break;
            }
            drawn = pick(self.frontend, &self.key, self.workload.id).ok_or(NoEndpoint)?;
        }
        Ok(drawn)
    }

    /// Begins an exchange with an endpoint.
    #[inline(always)]
    fn begin(
        &self,
        exchanges: &'static mut Exchanges,
        used: u64,
    ) -> Result<&'static mut Exchange, NoEndpoint> {
        let target = self.pick(exchanges)?;
        let entry = exchanges::place(exchanges, self.key.address, self.key.port);
        if entry.service_port.0 != 0 && !exchanges::is_of(entry, self.key.address, self.key.port) {
            count(Event::DatagramForgotten);
        }
        entry.service_address = self.key.address;
        entry.service_port = self.key.port;
        entry.endpoint_address = target.address;
        entry.endpoint_port = target.port;
        entry.group = self.frontend.group;
        entry.used = used;
        count(Event::DatagramDirect);
        Ok(entry)
    }
}

#[inline(always)]
fn try_connect<F: Family>(ctx: &SockAddrContext) -> Result<(), NoEndpoint> {
    // SAFETY: the context and its socket, which is locked, are the program's own.
    unsafe {
        let (address, port, sk) = (
            F::address(ctx.sock_addr),
            PortBe((*ctx.sock_addr).user_port as u16),
            (*ctx.sock_addr).__bindgen_anon_1.sk,
        );
        if let Some(exchanges) = exchanges::of(sk) {
            // What an earlier connect left is not true any more; and who dials an endpoint itself means it.
            exchanges::disconnect(exchanges, address, port);
        }
    }
    let Some(dialled) = Dialled::of::<F>(ctx) else {
        return Ok(());
    };
    let Some(exchanges) = dialled.exchanges(ctx) else {
        return Ok(());
    };
    let entry = dialled.begin(exchanges, CONNECTED)?;
    write::<F>(ctx, entry.endpoint_address, entry.endpoint_port);
    Ok(())
}

#[inline(always)]
fn try_send<F: Family>(ctx: &SockAddrContext) -> Result<(), NoEndpoint> {
    let Some(dialled) = Dialled::of::<F>(ctx) else {
        return Ok(());
    };
    // A socket that was connected before this service was known goes on.
    // SAFETY: the context and its socket are the program's own.
    if unsafe { F::is_peer(ctx.sock_addr, dialled.sk) } {
        return Ok(());
    }
    let Some(exchanges) = dialled.exchanges(ctx) else {
        return Ok(());
    };
    // 64 bits do not come round.
    exchanges.clock += 1;
    let clock = exchanges.clock;
    if let Some(entry) = exchanges::find(exchanges, dialled.key.address, dialled.key.port) {
        if endpoints::stands(entry, dialled.frontend, &dialled.key) {
            if entry.used != CONNECTED {
                entry.used = clock;
            }
            write::<F>(ctx, entry.endpoint_address, entry.endpoint_port);
            return Ok(());
        }
        // What comes from it now would be a stranger's.
        *entry = Exchange::default();
    }
    let entry = dialled.begin(exchanges, clock)?;
    write::<F>(ctx, entry.endpoint_address, entry.endpoint_port);
    Ok(())
}

#[inline(always)]
fn receive<F: Family>(ctx: &SockAddrContext) -> i32 {
    if !dns::give_back::<F>(ctx) {
        give_back::<F>(ctx, false);
    }
    ALLOW
}

/// Gives getpeername(2) the service that was dialled.
#[inline(always)]
pub fn give_back_peer<F: Family>(ctx: &SockAddrContext) {
    give_back::<F>(ctx, true);
}

/// Puts the service in the place of its endpoint.
#[inline(always)]
fn give_back<F: Family>(ctx: &SockAddrContext, connected: bool) {
    // SAFETY: the context and its socket, which is locked or not about to change, are the program's own.
    unsafe {
        let Some(exchanges) = exchanges::of((*ctx.sock_addr).__bindgen_anon_1.sk) else {
            return;
        };
        let address = F::address(ctx.sock_addr);
        let port = PortBe((*ctx.sock_addr).user_port as u16);
        if let Some(entry) = exchanges::by_endpoint(exchanges, address, port)
            && (!connected || entry.used == CONNECTED)
        {
            write::<F>(ctx, entry.service_address, entry.service_port);
        }
    }
}

#[inline(always)]
fn write<F: Family>(ctx: &SockAddrContext, address: IpBe, port: PortBe) {
    // SAFETY: the context is the program's own, and its address was read; the verifier lets the port be
    // written.
    unsafe {
        F::set_address(ctx.sock_addr, address);
        (*ctx.sock_addr).user_port = u32::from(port.0);
    }
}
