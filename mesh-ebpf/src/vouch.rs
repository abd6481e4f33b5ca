//! Whether a client is who its address says.
//!
//! A pod may take another's address (it is root in its own namespace), write packets by hand, or make a
//! namespace inside of its own that nobody enrolled. So a guarded pod believes an enrolled pod's address only
//! where a socket in that pod's own namespace has announced the connection: `sock_ops` does so before the SYN
//! leaves. Who is not announced (a forger, but an own connection by way of address translation too) is let in
//! only where both the address and a stranger in its place would be.
//!
//! Reads local_pods, access*, settings; reads and writes announced. Costs nothing while no pod is guarded.

use aya_ebpf::{EbpfContext as _, helpers::generated::bpf_ktime_get_ns, programs::SockOpsContext};
use mesh_common::{
    IpBe, PortBe,
    access::{ANNOUNCED_NS, AnnouncedKey},
    policy::LocalPod,
    settings::guards,
};

use crate::{
    access::{self, Denial},
    kernel::{self, ANY},
    maps::{ACCESS, ANNOUNCED, LOCAL_PODS},
    sock_ops::Ends,
};

/// A SYN, as far as it is judged.
pub struct Syn {
    /// Where it says that it comes from.
    pub source: IpBe,
    /// Where it goes to.
    pub destination: IpBe,
    /// Where it says that it comes from.
    pub source_port: PortBe,
    /// Where it goes to; 0 where it hides behind more headers than are walked.
    pub port: PortBe,
}

/// Before the SYN leaves: lets the server's end know whose it is.
#[inline(always)]
pub fn announce(ctx: &SockOpsContext) {
    if !access::has(guards::ANY) {
        return;
    }
    let ends = Ends::of(ctx);
    // SAFETY: user space replaces values whole.
    let Some(server) = (unsafe { LOCAL_PODS.get(&ends.remote_address) }) else {
        return;
    };
    // SAFETY: as above.
    if unsafe { ACCESS.get(&server.netns) }.is_none() {
        return;
    }
    // SAFETY: takes nothing.
    let now = unsafe { bpf_ktime_get_ns() };
    // Where it fails, the client is judged as a stranger.
    let _ = ANNOUNCED.insert(&key(ctx, &ends), &now, ANY);
}

/// The connection is established: its announcement is of no more use, to nobody.
#[inline(always)]
pub fn forget(ctx: &SockOpsContext, ends: &Ends) {
    if access::has(guards::ANY) {
        let _ = ANNOUNCED.remove(&key(ctx, ends));
    }
}

#[inline(always)]
fn key(ctx: &SockOpsContext, ends: &Ends) -> AnnouncedKey {
    AnnouncedKey {
        netns: kernel::netns_cookie(ctx.as_ptr()),
        client_address: ends.local_address,
        server_address: ends.remote_address,
        client_port: ends.local_port,
        server_port: ends.remote_port,
        reserved: 0,
    }
}

/// Judges a connect of the pod in `netns`, whose own address is `own`, to `port` of `server`. `bound`: the
/// address that the application chose, none where it chose none. A pod may talk to itself.
#[inline(always)]
pub fn judge_connect(
    netns: u64,
    own: IpBe,
    bound: IpBe,
    server: &LocalPod,
    port: PortBe,
) -> Result<(), Denial> {
    if server.netns == netns {
        return Ok(());
    }
    let mut source = own;
    if !bound.is_none() && !bound.is(own) {
        // SAFETY: user space replaces values whole.
        match unsafe { LOCAL_PODS.get(&bound) } {
            // Another of its own.
            Some(pod) if pod.netns == netns => source = bound,
            Some(_) => return access::refuse(server.netns),
            // Nobody tells of this one: it must not be a way around what holds for the pod.
            None => access::judge(server.netns, bound, port)?,
        }
    }
    // Which address it will come from is not known before it does.
    if source.is_none() {
        return Ok(());
    }
    access::judge(server.netns, source, port)
}

/// Judges a SYN that reached the pod in `netns`.
#[inline(always)]
pub fn judge_syn(netns: u64, syn: &Syn) -> Result<(), Denial> {
    if syn.port.0 == 0 {
        return access::refuse(netns);
    }
    access::judge(netns, syn.source, syn.port)?;
    if !access::has(guards::ANY) {
        return Ok(());
    }
    // No pod is known by such an address, and each has one: it would be a way around what holds for it.
    if syn.source.is_link_local_v6() {
        return access::refuse(netns);
    }
    // SAFETY: user space replaces values whole.
    let Some(client) = (unsafe { LOCAL_PODS.get(&syn.source) }) else {
        return Ok(());
    };
    let key = AnnouncedKey {
        netns: client.netns,
        client_address: syn.source,
        server_address: syn.destination,
        client_port: syn.source_port,
        server_port: syn.port,
        reserved: 0,
    };
    // SAFETY: a number, copied out.
    let announced = unsafe { ANNOUNCED.get(&key) }.copied();
    // SAFETY: takes nothing.
    let now = unsafe { bpf_ktime_get_ns() };
    match announced {
        Some(at) if now.wrapping_sub(at) < ANNOUNCED_NS => Ok(()),
        _ => access::judge_claim(netns, syn.source, syn.port),
    }
}
