//! `sockops`: what the programs learn from a socket's life: it listens, is established, sends, closes.
//!
//! Reads workloads, local_pods, excluded_ports, settings, listeners; writes the socket's record, origins,
//! listeners, and what [`pairing`] and [`accounting`] say. Whatever fails leaves the connection on plain
//! TCP. Minimum kernel 5.15: `bpf_get_netns_cookie` for sock_ops.
//!
//! The client's callback comes with the SYN-ACK, the server's with the client's answer to it, so the
//! client's is first unless bytes travel in the SYN; then there is no pair and the connection stays
//! plain. Both callbacks come before the application can be told of the connection.
//! <https://github.com/torvalds/linux/blob/v6.18/net/ipv4/tcp_input.c> `tcp_init_transfer`.

use core::ptr;

use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_HDR_OPT_LEN_CB,
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG,
        BPF_SOCK_OPS_TCP_CONNECT_CB, BPF_SOCK_OPS_TCP_LISTEN_CB, BPF_TCP_CLOSE, BPF_TCP_FIN_WAIT1,
        BPF_TCP_LAST_ACK, BPF_TCP_LISTEN, BPF_TCP_SYN_SENT, bpf_sock,
    },
    helpers::generated::bpf_ktime_get_ns,
    macros::sock_ops,
    programs::SockOpsContext,
};
use mesh_common::{
    IpBe, Ipv4Be, PortBe, caveat,
    connection::{
        Connection, Origin, OriginKey, Plain, Role, Sending, hazard, listener as listener_bits,
    },
    policy::{ExcludedPort, LocalPod, Verdict, Workload, flags},
};

use crate::{
    accounting, caveats, failures, host_pods,
    kernel::{self, AF_INET, ANY, TcpSock},
    listener, load,
    maps::{EXCLUDED_PORTS, LOCAL_PODS, ORIGINS, SETTINGS, WORKLOADS},
    pairing, reuse, served, vouch,
};

/// See the module.
#[sock_ops]
pub fn sock_ops(ctx: SockOpsContext) -> u32 {
    match ctx.op() {
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB => client_established(&ctx),
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => server_established(&ctx),
        BPF_SOCK_OPS_TCP_LISTEN_CB => listening(&ctx),
        BPF_SOCK_OPS_TCP_CONNECT_CB => {
            reuse::connecting(&ctx);
            load::connecting(&ctx);
            vouch::announce(&ctx);
        }
        BPF_SOCK_OPS_HDR_OPT_LEN_CB => pairing::leave_if_plain(&ctx),
        BPF_SOCK_OPS_STATE_CB if ctx.arg(0) == BPF_TCP_LISTEN => served::closed(&ctx),
        BPF_SOCK_OPS_STATE_CB => match ctx.arg(1) {
            BPF_TCP_CLOSE if ctx.arg(0) == BPF_TCP_SYN_SENT => failures::connect_failed(&ctx),
            BPF_TCP_CLOSE => accounting::closed(&ctx),
            BPF_TCP_FIN_WAIT1 | BPF_TCP_LAST_ACK => sending_is_shut(&ctx),
            _ => {}
        },
        _ => {}
    }
    0
}

/// The application has shut its sending down: what it sends all the same is TCP's to refuse (EPIPE), where
/// redirection would deliver it. An end that has not sent yet is left undecided, as its place in the socket
/// map depends on that.
#[inline(always)]
fn sending_is_shut(ctx: &SockOpsContext) {
    let sk = sk(ctx);
    if sk.is_null() {
        return;
    }
    // SAFETY: the context's own socket.
    if let Some(record) = unsafe { kernel::connection(sk) } {
        // SAFETY: points into the socket's storage; the state changes under the socket's lock.
        let record = unsafe { &mut *record.as_ptr() };
        if record.sending != Sending::Undecided as u32 && record.sending != Sending::Plain as u32 {
            plain(record, Plain::ShutDown);
        }
    }
}

/// Asks for more callbacks on this socket.
#[inline(always)]
pub fn watch(ctx: &SockOpsContext, flag: u32) {
    let _ = ctx.set_cb_flags((ctx.cb_flags() | flag) as i32);
}

/// An IPv6 address of the context, word by word: the verifier takes no pointer into it, and no two words at
/// once.
macro_rules! words {
    ($place:expr) => {
        IpBe([
            ptr::read_volatile(&raw const $place[0]),
            ptr::read_volatile(&raw const $place[1]),
            ptr::read_volatile(&raw const $place[2]),
            ptr::read_volatile(&raw const $place[3]),
        ])
    };
}

/// The two ends as a socket sees them.
pub struct Ends {
    /// This end.
    pub local_address: IpBe,
    /// This end.
    pub local_port: PortBe,
    /// The other end.
    pub remote_address: IpBe,
    /// The other end.
    pub remote_port: PortBe,
}

impl Ends {
    #[inline(always)]
    pub fn of(ctx: &SockOpsContext) -> Self {
        let (local_address, remote_address) = if ctx.family() == AF_INET || is_mapped(ctx) {
            (
                IpBe::from_v4(Ipv4Be(ctx.local_ip4())),
                IpBe::from_v4(Ipv4Be(ctx.remote_ip4())),
            )
        } else {
            // SAFETY: the context is the program's own.
            unsafe { (words!((*ctx.ops).local_ip6), words!((*ctx.ops).remote_ip6)) }
        };
        Self {
            local_address,
            // The context has this one in host order …
            local_port: PortBe::new(ctx.local_port() as u16),
            remote_address,
            // … and this one in network order, in the upper half on little-endian machines.
            remote_port: PortBe((ctx.remote_port() >> 16) as u16),
        }
    }
}

#[inline(always)]
pub fn sk(ctx: &SockOpsContext) -> *mut bpf_sock {
    // SAFETY: the context is the program's own.
    unsafe { (*ctx.ops).__bindgen_anon_2.sk }
}

/// The socket's record, filled with what holds for both roles. A client's was made by [`crate::connect`],
/// where the connection is the mesh's business at all; a server's is made here.
#[inline(always)]
pub fn record(
    ctx: &SockOpsContext,
    ends: &Ends,
    netns: u64,
    role: Role,
) -> Option<&'static mut Connection> {
    let sk = sk(ctx);
    if sk.is_null() {
        return None;
    }
    // SAFETY: the context's own socket; its storage lives as long as the program runs, and the socket is
    // locked or not yet visible to anybody.
    let record = unsafe {
        match role {
            Role::Client => kernel::connection(sk)?,
            _ => kernel::connection_or_new(sk)?,
        }
    };
    // SAFETY: as above.
    let record = unsafe { &mut *record.as_ptr() };
    if record.role == Role::Agent as u32 {
        return None;
    }
    // SAFETY: the context's own socket.
    let tcp = unsafe { TcpSock::of(sk.cast()) }?;
    record.cookie = kernel::socket_cookie(ctx.as_ptr());
    record.netns = netns;
    // SAFETY: takes nothing.
    record.opened_ns = unsafe { bpf_ktime_get_ns() };
    record.local_address = ends.local_address;
    record.local_port = ends.local_port;
    record.remote_address = ends.remote_address;
    record.remote_port = ends.remote_port;
    record.role = role as u32;
    record.first_sequence = tcp.write_seq();
    record.sock = tcp.address();
    Some(record)
}

#[inline(always)]
fn client_established(ctx: &SockOpsContext) {
    let netns = kernel::netns_cookie(ctx.as_ptr());
    // SAFETY: user space replaces values whole.
    let Some(workload) = (unsafe { WORKLOADS.get(&netns) }) else {
        return;
    };
    let ends = Ends::of(ctx);
    // Within the pod and not by the agent: nobody's business. Queries for names are such connections.
    if ends.remote_address.is_loopback() && !goes_by_agent(sk(ctx)) {
        return;
    }
    vouch::forget(ctx, &ends);
    if workload.flags & flags::BY_CGROUP != 0 {
        host_pods::client_established(ctx, &ends, netns);
        return;
    }
    let Some(record) = record(ctx, &ends, netns, Role::Client) else {
        return;
    };
    record.source = workload.id;
    watch(ctx, BPF_SOCK_OPS_STATE_CB_FLAG);

    if record.way == Verdict::Agent as u32 {
        note_origin(record, &ends, netns);
    } else {
        let server = pod_at(ends.remote_address, netns, workload);
        if let Some(server) = server {
            record.destination = server.workload;
            if workload.flags & flags::FORCE_ACCELERATION != 0 {
                record.hazards = hazard::FORCED | record.hazards & caveat::OPTIONS;
            }
            let why = refusal(workload, &server, ends.remote_port, record.dialled_port);
            match why {
                Plain::No if caveats::refusal(record.hazards, false) != Plain::No => {
                    plain(record, caveats::refusal(record.hazards, false));
                }
                Plain::No if record.hazards & hazard::BLOCKS != 0 => plain(record, Plain::Blocking),
                Plain::No => {
                    match listener::refusal(server.netns, ends.remote_port, forced(&server)) {
                        Plain::No => pairing::offer(ctx, record, &ends, netns, server.netns),
                        why => {
                            // So that the one record says which.
                            record.hazards |= listener::caveats(server.netns, ends.remote_port);
                            plain(record, why);
                        }
                    }
                }
                why => plain(record, why),
            }
        } else {
            plain(record, Plain::Remote);
        }
    }
    accounting::opened(record);
}

#[inline(always)]
fn goes_by_agent(sk: *mut bpf_sock) -> bool {
    // SAFETY: the context's own socket, or null, which has no record.
    unsafe {
        !sk.is_null()
            && kernel::connection(sk)
                .is_some_and(|record| record.as_ref().way == Verdict::Agent as u32)
    }
}

/// Tells the agent where a connection to its listener wanted to go.
#[inline(always)]
pub fn note_origin(record: &mut Connection, ends: &Ends, netns: u64) {
    let key = OriginKey {
        netns,
        address: ends.local_address,
        port: ends.local_port,
        reserved: [0; 3],
    };
    let origin = Origin {
        address: record.dialled_address,
        port: record.dialled_port,
        reserved: 0,
    };
    // Where it fails, the agent finds no origin and closes the connection.
    let _ = ORIGINS.insert(&key, &origin, ANY);
    plain(record, Plain::Agent);
}

/// Runs inside listen(2), so the current process is the server.
#[inline(always)]
fn listening(ctx: &SockOpsContext) {
    let netns = kernel::netns_cookie(ctx.as_ptr());
    let sk = sk(ctx);
    if sk.is_null() {
        return;
    }
    // SAFETY: the context's own socket.
    let Some(tcp) = (unsafe { TcpSock::of(sk.cast()) }) else {
        return;
    };
    // What it will accept is not known yet. An event loop has its listener non-blocking; a process with one
    // thread may set that later (Redis does), and does one thing at a time.
    let blocks = tcp.blocks() && kernel::current_has_threads();
    let mut bits = if blocks { listener_bits::BLOCKS } else { 0 };
    bits |= caveats::of_process();
    // SAFETY: the context's own socket.
    if let Some(record) = unsafe { kernel::connection(sk) } {
        // SAFETY: points into the socket's storage.
        bits |= unsafe { record.as_ref() }.hazards;
    }
    listener::note(netns, PortBe::new(ctx.local_port() as u16), bits);
    served::opened(ctx, netns);
}

#[inline(always)]
fn server_established(ctx: &SockOpsContext) {
    let ends = Ends::of(ctx);
    if ends.remote_address.is_loopback() {
        return;
    }
    let netns = kernel::netns_cookie(ctx.as_ptr());
    // SAFETY: user space replaces values whole.
    let Some(workload) = (unsafe { WORKLOADS.get(&netns) }) else {
        return;
    };
    // Who of the host's processes serves it is not known.
    if workload.flags & flags::BY_CGROUP != 0 {
        return;
    }
    let Some(client) = pod_at(ends.remote_address, netns, workload) else {
        // Nobody else counts a connection whose client is not enrolled.
        if let Some(record) = record(ctx, &ends, netns, Role::Server) {
            record.destination = workload.id;
            watch(ctx, BPF_SOCK_OPS_STATE_CB_FLAG);
            plain(record, Plain::Remote);
            accounting::opened(record);
        }
        return;
    };
    if refusal(workload, &client, ends.local_port, PortBe(0)) == Plain::No {
        pairing::pair(ctx, &ends, workload.id, &client, netns);
    }
}

/// Whether an AF_INET6 socket talks IPv4, as those do that a listener on `[::]` accepts (Go, Java, Node) and
/// those that dial a mapped address: its peer is ::ffff:a.b.c.d, and the kernel keeps the IPv4 addresses
/// beside.
#[inline(always)]
fn is_mapped(ctx: &SockOpsContext) -> bool {
    // SAFETY: the context is the program's own.
    unsafe { words!((*ctx.ops).remote_ip6) }.is_v4()
}

#[inline(always)]
pub fn plain(record: &mut Connection, why: Plain) {
    record.sending = Sending::Plain as u32;
    record.plain = why as u32;
}

/// The enrolled pod of this node behind an address, as a pod of namespace `netns` sees it.
#[inline(always)]
fn pod_at(address: IpBe, netns: u64, workload: &Workload) -> Option<LocalPod> {
    if address.is(workload.own_address(address)) {
        return Some(LocalPod {
            netns,
            workload: workload.id,
            flags: workload.flags,
            ..LocalPod::default()
        });
    }
    // SAFETY: user space replaces values whole.
    unsafe { LOCAL_PODS.get(&address) }.copied()
}

/// Why the bytes between two pods of this node are to stay plain TCP.
#[inline(always)]
fn refusal(workload: &Workload, other: &LocalPod, port: PortBe, dialled: PortBe) -> Plain {
    if SETTINGS
        .get(0)
        .is_none_or(|settings| settings.acceleration == 0)
    {
        return Plain::SwitchedOff;
    }
    if (workload.flags | other.flags) & flags::NO_ACCELERATION != 0 {
        return Plain::Workload;
    }
    if (workload.flags | other.flags) & flags::EXCLUDES_PORTS != 0 {
        // A service's port may be another than its endpoints'.
        for port in [port, dialled] {
            if excluded(workload.id, port) || excluded(other.workload, port) {
                return Plain::Port;
            }
        }
    }
    Plain::No
}

#[inline(always)]
fn forced(pod: &LocalPod) -> bool {
    pod.flags & flags::FORCE_ACCELERATION != 0
}

#[inline(always)]
fn excluded(workload: u32, port: PortBe) -> bool {
    let key = ExcludedPort {
        workload,
        port,
        reserved: 0,
    };
    // SAFETY: user space replaces values whole.
    unsafe { EXCLUDED_PORTS.get(&key) }.is_some()
}
