//! Connects that came to nothing: refused here, or given up by TCP.
//!
//! Reads the socket's record, workloads, frontends, local_pods; writes failures. All of it runs after the
//! failure. A connect that fails before its SYN (no route, no free port) has no callback, and one that no
//! record was made for (to an address that is neither a service nor a pod of this node) is not looked at.
//! <https://github.com/torvalds/linux/blob/v6.18/net/ipv4/tcp_input.c> `tcp_reset`,
//! <https://github.com/torvalds/linux/blob/v6.18/net/ipv4/tcp_timer.c> `tcp_write_err`: the error is set
//! before the state.

use aya_ebpf::{
    EbpfContext as _,
    programs::{SockAddrContext, SockOpsContext},
};
use mesh_common::{
    IpBe, PortBe,
    connection::Role,
    failure::{Cause, FailureKey},
    policy::{FrontendKey, Verdict},
};

use crate::{
    connect::family::Family,
    events,
    kernel::{self, TCP, TcpSock},
    load,
    maps::{FAILURES, FRONTENDS, LOCAL_PODS, WORKLOADS, add_one},
    sock_ops::{Ends, sk},
};

/// Counts a connect that is refused inside connect(2). `destination`: the server where one was picked.
#[inline(always)]
pub fn refused<F: Family>(ctx: &SockAddrContext, cause: Cause, destination: u32) {
    let netns = kernel::netns_cookie(ctx.as_ptr());
    // SAFETY: user space replaces values whole.
    let source = unsafe { WORKLOADS.get(&netns) }.map_or(0, |workload| workload.id);
    // SAFETY: the context is the program's own.
    let (address, port) = unsafe {
        (
            F::address(ctx.sock_addr),
            PortBe((*ctx.sock_addr).user_port as u16),
        )
    };
    let dialled = FrontendKey {
        address,
        port,
        protocol: TCP,
    };
    // SAFETY: user space replaces values whole.
    let service = unsafe { FRONTENDS.get(&dialled) }.map_or(0, |frontend| frontend.service);
    let key = FailureKey {
        source,
        destination,
        service,
        cause: cause as u32,
    };
    add_one(&FAILURES, &key);
    // Of a policy's refusal there is an event already, with the policy.
    if cause != Cause::Denied {
        events::failed(&key, 0, IpBe::default(), PortBe(0), address, port);
    }
}

/// Counts a socket that goes from connecting to closed.
#[inline(always)]
pub fn connect_failed(ctx: &SockOpsContext) {
    let sk = sk(ctx);
    if sk.is_null() {
        return;
    }
    // SAFETY: the context's own socket.
    let (record, tcp) = unsafe { (kernel::connection(sk), TcpSock::of(sk.cast())) };
    let (Some(record), Some(tcp)) = (record, tcp) else {
        return;
    };
    // SAFETY: points into the socket's storage; the state changes under the socket's lock.
    let record = unsafe { &mut *record.as_ptr() };
    load::ended(record);
    if record.role == Role::Agent as u32 {
        return;
    }
    let netns = kernel::netns_cookie(ctx.as_ptr());
    // SAFETY: user space replaces values whole.
    let Some(workload) = (unsafe { WORKLOADS.get(&netns) }) else {
        return;
    };
    let ends = Ends::of(ctx);
    let cause = match Cause::of_error(tcp.error()) {
        // Nobody but the agent listens there.
        Cause::Refused if record.way == Verdict::Agent as u32 => Cause::AgentAbsent,
        cause => cause,
    };
    let destination = match record.destination {
        // SAFETY: user space replaces values whole.
        0 => unsafe { LOCAL_PODS.get(&ends.remote_address) }.map_or(0, |pod| pod.workload),
        known => known,
    };
    let key = FailureKey {
        // A pod of the host's namespace is known by its connect only.
        source: if record.source == 0 {
            workload.id
        } else {
            record.source
        },
        destination,
        service: record.service,
        cause: cause as u32,
    };
    add_one(&FAILURES, &key);
    events::failed(
        &key,
        record.way,
        ends.local_address,
        ends.local_port,
        ends.remote_address,
        ends.remote_port,
    );
}
