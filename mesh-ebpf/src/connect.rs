//! `cgroup/connect4`, `connect6`, `getpeername4` and `getpeername6`: which way a connection goes, and the
//! address that the application believes in. One decision for every [`family`].
//!
//! Reads workloads, frontends, endpoints, local_pods, settings, and what [`crate::access`] reads; writes the
//! socket's record.
//! Fails open towards the application where a record cannot be made (the connect goes on untouched, to
//! a virtual address that nobody answers), closed where policy says so.
//! Minimum kernel 6.1: `bpf_set_retval` in sock_addr programs (commit bed89185af0d).
//! <https://github.com/torvalds/linux/blob/v6.18/net/ipv4/af_inet.c> runs it before routing, with the
//! socket locked.

use aya_ebpf::{
    EbpfContext as _,
    bindings::bpf_sock,
    helpers::generated::{bpf_ktime_get_ns, bpf_set_retval},
    macros::cgroup_sock_addr,
    programs::SockAddrContext,
};
use mesh_common::{
    IpBe, PortBe,
    access::Place,
    connection::{Counted, Role, hazard},
    failure::Cause,
    policy::{Frontend, FrontendKey, LocalPod, Verdict, Workload, flags},
    settings::HEARTBEAT_LIMIT_NS,
    traffic::Event,
};

use self::family::{Family, V4, V6};
use crate::{
    access, caveats, datagram, dns, events, failures, host_pods,
    kernel::{self, TCP},
    maps::{FRONTENDS, SETTINGS, WORKLOADS, count},
    pick::{Target, local_pod, pick_open},
    reuse, vouch,
};

pub mod family;

const ALLOW: i32 = 1;
const REFUSE: i32 = 0;
const SOCK_STREAM: u32 = 1;
const ECONNREFUSED: i32 = 111;

/// Why a connect is refused.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Refusal {
    /// By policy: EPERM, as a local firewall answers (connect(2)). Which server's, in the names map; 0: nobody's.
    Denied(u32),
    /// No endpoint is ready: ECONNREFUSED, as kube-proxy answers.
    NoEndpoint,
    /// It needs the agent, there is none, and the pod fails closed: ECONNREFUSED.
    AgentAbsent,
}

/// See the module.
#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    if dns::catch_connect::<V4>(&ctx) {
        return ALLOW;
    }
    if datagram::is_datagram(&ctx) {
        return datagram::connect::<V4>(&ctx);
    }
    match try_connect::<V4>(&ctx) {
        Ok(()) => ALLOW,
        Err(refusal) => refuse::<V4>(&ctx, refusal),
    }
}

/// See the module.
#[cgroup_sock_addr(connect6)]
// Into the program that the macro makes: as a function of its own it is one more frame on a full stack.
#[inline(always)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    if dns::catch_connect::<V6>(&ctx) {
        return ALLOW;
    }
    if datagram::is_datagram(&ctx) {
        return datagram::connect::<V6>(&ctx);
    }
    match try_connect::<V6>(&ctx) {
        Ok(()) => ALLOW,
        Err(refusal) => refuse::<V6>(&ctx, refusal),
    }
}

#[inline(always)]
fn refuse<F: Family>(ctx: &SockAddrContext, refusal: Refusal) -> i32 {
    let (event, cause, destination) = match refusal {
        Refusal::Denied(server) => (Event::ConnectDenied, Cause::Denied, server),
        Refusal::NoEndpoint => (Event::ConnectNoEndpoint, Cause::NoEndpoint, 0),
        Refusal::AgentAbsent => (Event::AgentAbsentClosed, Cause::AgentAbsent, 0),
    };
    count(event);
    failures::refused::<F>(ctx, cause, destination);
    if cause != Cause::Denied {
        // SAFETY: takes a number only.
        unsafe { bpf_set_retval(-ECONNREFUSED) };
    }
    REFUSE
}

#[inline(always)]
fn try_connect<F: Family>(ctx: &SockAddrContext) -> Result<(), Refusal> {
    // SAFETY: the context is the program's own.
    let (kind, protocol, port, sk) = unsafe {
        let addr = &*ctx.sock_addr;
        (
            addr.type_,
            addr.protocol,
            PortBe(addr.user_port as u16),
            addr.__bindgen_anon_1.sk,
        )
    };
    if kind != SOCK_STREAM || protocol != u32::from(TCP) {
        return Ok(());
    }
    let netns = kernel::netns_cookie(ctx.as_ptr());
    // SAFETY: user space replaces values whole.
    let Some(mut workload) = (unsafe { WORKLOADS.get(&netns) }) else {
        return Ok(());
    };
    if workload.flags & flags::BY_CGROUP != 0 {
        workload = match host_pods::of_current() {
            Some(pod) => pod,
            None => return Ok(()),
        };
    }
    // SAFETY: the context's own socket.
    let known = unsafe { kernel::connection(sk) };
    if let Some(record) = known {
        // SAFETY: points into the socket's storage, and the socket is locked.
        let record = unsafe { &mut *record.as_ptr() };
        if record.role == Role::Agent as u32 {
            return Ok(());
        }
        // A second connect on the socket: what the first one left is not true any more.
        *record = reuse::renewed(record);
    }
    // SAFETY: the context is the program's own.
    let address = unsafe { F::address(ctx.sock_addr) };
    // No service has such an address, and no neighbour.
    if address.is_loopback() {
        return Ok(());
    }
    let key = FrontendKey {
        address,
        port,
        protocol: TCP,
    };
    // SAFETY: user space replaces values whole.
    let Some(frontend) = (unsafe { FRONTENDS.get(&key) }) else {
        return dial_neighbour::<F>(sk, netns, workload, address, port);
    };
    let verdict = verdict(workload.listener_for(address), workload, frontend)?;
    if verdict == Verdict::Pass {
        return dial_neighbour::<F>(sk, netns, workload, address, port);
    }
    let target = if verdict == Verdict::Agent {
        agent(workload, address)
    } else {
        let (target, pod) = pick_open(frontend, &key, workload.id).ok_or(Refusal::NoEndpoint)?;
        if let Some(pod) = pod {
            judge::<F>(sk, netns, workload, pod, (target.address, target.port))?;
        }
        target
    };
    let hazards = hazards(sk);
    // SAFETY: the context's own socket.
    let Some(record) = (unsafe { kernel::connection_or_new(sk) }) else {
        count(Event::RecordLost);
        return Ok(());
    };
    // SAFETY: points into the socket's storage, and the socket is locked.
    let record = unsafe { &mut *record.as_ptr() };
    record.dialled_address = address;
    record.dialled_port = port;
    record.source = workload.id;
    record.destination = target.workload;
    record.service = frontend.service;
    record.way = verdict as u32;
    record.hazards = hazards;
    record.counted = target.counted as u16;
    if verdict == Verdict::Agent {
        keep_source::<F>(ctx, sk, workload.own_address(address));
        count(Event::ConnectAgent);
    } else {
        count(Event::ConnectDirect);
    }
    // SAFETY: the context is the program's own, and its address was read; the verifier lets the port be
    // written.
    unsafe {
        F::set_address(ctx.sock_addr, target.address);
        (*ctx.sock_addr).user_port = u32::from(target.port.0);
    }
    Ok(())
}

/// A pod of this node, dialled by its own address: untouched, but policy may refuse it, and the ends may pair.
#[inline(always)]
fn dial_neighbour<F: Family>(
    sk: *mut bpf_sock,
    netns: u64,
    workload: &Workload,
    address: IpBe,
    port: PortBe,
) -> Result<(), Refusal> {
    let Some(pod) = local_pod(address) else {
        return Ok(());
    };
    judge::<F>(sk, netns, workload, pod, (address, port))?;
    let hazards = hazards(sk);
    // SAFETY: the context's own socket, which is locked.
    if let Some(record) = unsafe { kernel::connection_or_new(sk) } {
        unsafe {
            (*record.as_ptr()).hazards = hazards;
            (*record.as_ptr()).source = workload.id;
        }
    }
    Ok(())
}

/// What the policies of a pod of this node say to this client: refused here, it has an answer at once.
/// What is let through is judged again at the SYN, by the address that it then comes from.
#[inline(always)]
fn judge<F: Family>(
    sk: *mut bpf_sock,
    netns: u64,
    workload: &Workload,
    server: &LocalPod,
    (address, port): (IpBe, PortBe),
) -> Result<(), Refusal> {
    // SAFETY: the context's own socket.
    let bound = unsafe {
        if F::is_bound(sk) {
            F::bound(sk)
        } else {
            IpBe::default()
        }
    };
    let own = workload.own_address(address);
    // No closure: the compiler may make a function of it, whose arguments the kernel's BTF does not take.
    let Err(denial) = vouch::judge_connect(netns, own, bound, server, port) else {
        return Ok(());
    };
    access::count_denial(denial, workload.id, Place::Connect);
    let client = if bound.is_none() { own } else { bound };
    events::denied(denial, workload.id, Place::Connect, client, address, port);
    Err(Refusal::Denied(denial.destination))
}

/// Whether the application could see that it reads from a socket map: its reads block
/// ([`kernel::TcpSock::blocks`]), it has set an option, it is known to. Asked here because connect(2) runs in
/// the application's own process, with its own descriptor.
#[inline(always)]
fn hazards(sk: *mut bpf_sock) -> u32 {
    // SAFETY: the context's own socket.
    let (tcp, options) = unsafe { (kernel::TcpSock::of(sk.cast()), caveats::of_socket(sk)) };
    let blocks = if tcp.is_none_or(kernel::TcpSock::blocks) {
        hazard::BLOCKS
    } else {
        0
    };
    blocks | options | caveats::of_process()
}

/// The verdict in force: the compiled one, unless it needs the agent and there is none.
#[inline(always)]
fn verdict(listener: PortBe, workload: &Workload, frontend: &Frontend) -> Result<Verdict, Refusal> {
    if frontend.verdict == Verdict::Direct as u32 {
        return Ok(Verdict::Direct);
    }
    if frontend.verdict == Verdict::Deny as u32 {
        return Err(Refusal::Denied(0));
    }
    if frontend.verdict != Verdict::Agent as u32 {
        return Ok(Verdict::Pass);
    }
    if listener.0 != 0 && agent_lives() {
        return Ok(Verdict::Agent);
    }
    if workload.flags & flags::FAIL_CLOSED != 0 {
        return Err(Refusal::AgentAbsent);
    }
    count(Event::AgentAbsentOpen);
    Ok(Verdict::Direct)
}

/// Whether its heartbeat is young enough.
#[inline(always)]
pub fn agent_lives() -> bool {
    let Some(settings) = SETTINGS.get(0) else {
        return false;
    };
    // SAFETY: takes nothing.
    let now = unsafe { bpf_ktime_get_ns() };
    now.wrapping_sub(settings.heartbeat_ns) < HEARTBEAT_LIMIT_NS
}

/// The agent's listener in the pod's own namespace.
#[inline(always)]
fn agent(workload: &Workload, dialled: IpBe) -> Target {
    Target {
        address: if dialled.is_v4() {
            IpBe::LOOPBACK_V4
        } else {
            IpBe::LOOPBACK_V6
        },
        port: workload.listener_for(dialled),
        workload: 0,
        counted: Counted::No,
    }
}

/// The agent listens on loopback, where nobody outside the pod reaches it. Without this the
/// application's own address would be loopback's, and `getsockname` would tell.
#[inline(always)]
pub fn keep_source<F: Family>(ctx: &SockAddrContext, sk: *mut bpf_sock, address: IpBe) {
    // SAFETY: the context and its socket are the program's own.
    unsafe {
        if !address.is_none() && !F::is_bound(sk) {
            F::bind(ctx.sock_addr, address);
        }
    }
}

/// Gives back the address that was dialled.
#[cgroup_sock_addr(getpeername4)]
pub fn getpeername4(ctx: SockAddrContext) -> i32 {
    if !dns::give_back::<V4>(&ctx) {
        give_back::<V4>(&ctx);
    }
    ALLOW
}

/// As [`getpeername4`].
#[cgroup_sock_addr(getpeername6)]
pub fn getpeername6(ctx: SockAddrContext) -> i32 {
    if !dns::give_back::<V6>(&ctx) {
        give_back::<V6>(&ctx);
    }
    ALLOW
}

#[inline(always)]
fn give_back<F: Family>(ctx: &SockAddrContext) {
    if datagram::is_datagram(ctx) {
        datagram::give_back_peer::<F>(ctx);
        return;
    }
    // SAFETY: the context and its socket are the program's own.
    unsafe {
        if let Some(record) = kernel::connection((*ctx.sock_addr).__bindgen_anon_1.sk) {
            let record = record.as_ref();
            if record.dialled_port.0 != 0 {
                F::set_address(ctx.sock_addr, record.dialled_address);
                (*ctx.sock_addr).user_port = u32::from(record.dialled_port.0);
            }
        }
    }
}
