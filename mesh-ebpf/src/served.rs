//! Ports of this node's pods that were listened on and are no more: nobody is sent there, before any control
//! plane says so.
//!
//! Only what was seen from its beginning to its end counts as closed. The ports of listeners from before the
//! programs are entered by the agent as unseen, for as long as it finds them; so is one that did not fit.
//!
//! Reads workloads; writes served, unseen, listening, local_pods.
//! <https://github.com/torvalds/linux/blob/v6.18/net/ipv4/tcp.c> `tcp_set_state` tells of every listener's end,
//! as the callbacks were asked for; `__inet_listen_sk` tells of its beginning once, when the port is open.

use core::{
    intrinsics::{AtomicOrdering, atomic_xadd},
    ptr,
};

use aya_ebpf::{EbpfContext as _, bindings::BPF_SOCK_OPS_STATE_CB_FLAG, programs::SockOpsContext};
use mesh_common::{
    IpBe, PortBe,
    balance::{Listening, ServedKey, family},
    policy::LocalPod,
};

use crate::{
    kernel::{self, AF_INET, ANY, NOEXIST},
    maps::{LISTENING, LOCAL_PODS, SERVED, UNSEEN, WORKLOADS},
    sock_ops::{Ends, watch},
};

/// Whether a port of this pod was closed.
#[inline(always)]
pub fn is_closed(pod: &LocalPod, address: IpBe, port: PortBe) -> bool {
    if pod.closed == 0 {
        return false;
    }
    let family = if address.is_v4() {
        family::V4
    } else {
        family::V6
    };
    let key = ServedKey::new(pod.netns, port, family);
    // SAFETY: a number, copied out.
    if unsafe { SERVED.get(&key) } != Some(&0) {
        return false;
    }
    // SAFETY: as above.
    unsafe { UNSEEN.get(&key) }.is_none()
}

/// A socket listens.
#[inline(always)]
pub fn opened(ctx: &SockOpsContext, netns: u64) {
    let port = PortBe::new(ctx.local_port() as u16);
    let cookie = kernel::socket_cookie(ctx.as_ptr());
    let wanted = families(ctx);
    let mut counted = 0;
    if wanted & family::V4 != 0 && more(&ServedKey::new(netns, port, family::V4)) {
        counted |= family::V4;
    }
    if wanted & family::V6 != 0 && more(&ServedKey::new(netns, port, family::V6)) {
        counted |= family::V6;
    }
    if counted == 0 {
        return;
    }
    let listening = Listening {
        netns,
        port,
        families: counted,
        reserved: 0,
    };
    if LISTENING.insert(&cookie, &listening, ANY).is_ok() {
        watch(ctx, BPF_SOCK_OPS_STATE_CB_FLAG);
        return;
    }
    // Its end will not be seen.
    each(&listening, |key| {
        let _ = UNSEEN.insert(key, &1, ANY);
    });
}

/// A socket listens no more.
#[inline(always)]
pub fn closed(ctx: &SockOpsContext) {
    let cookie = kernel::socket_cookie(ctx.as_ptr());
    // SAFETY: copied out before it is removed.
    let Some(listening) = (unsafe { LISTENING.get(&cookie) }).copied() else {
        return;
    };
    let _ = LISTENING.remove(&cookie);
    each(&listening, |key| {
        let Some(open) = SERVED.get_ptr_mut(key) else {
            return;
        };
        // SAFETY: points into the map; an aligned u64.
        let left = unsafe {
            atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(open, u64::MAX);
            ptr::read_volatile(open)
        };
        if left == 0 {
            note_closed(key.netns);
        }
    });
}

/// From now on connects to the pod look closer.
#[inline(always)]
fn note_closed(netns: u64) {
    // SAFETY: user space replaces values whole.
    let Some(workload) = (unsafe { WORKLOADS.get(&netns) }) else {
        // The agent looks when it enrols the pod.
        return;
    };
    for address in [workload.address, workload.address6] {
        if let Some(pod) = LOCAL_PODS.get_ptr_mut(&address) {
            // SAFETY: points into the map; an aligned u32 that the programs only ever set.
            unsafe { ptr::write_volatile(&raw mut (*pod).closed, 1) };
        }
    }
}

#[inline(always)]
fn each(listening: &Listening, then: impl Fn(&ServedKey)) {
    for family in [family::V4, family::V6] {
        if listening.families & family != 0 {
            then(&ServedKey::new(listening.netns, listening.port, family));
        }
    }
}

/// One more listens there. False: the map is full, and nothing is known of the port.
#[inline(always)]
fn more(key: &ServedKey) -> bool {
    if SERVED.get_ptr_mut(key).is_none() && SERVED.insert(key, &1, NOEXIST).is_ok() {
        return true;
    }
    let Some(open) = SERVED.get_ptr_mut(key) else {
        return false;
    };
    // SAFETY: points into the map; an aligned u64.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(open, 1) };
    true
}

/// Where clients reach it. `[::]` may be IPv6's alone (`IPV6_V6ONLY`), which cannot be read here: it counts for
/// IPv4 too, at its beginning as at its end.
#[inline(always)]
fn families(ctx: &SockOpsContext) -> u16 {
    let address = Ends::of(ctx).local_address;
    // Not `Ends`'s own judgement: that goes by the other end, and a listener has none.
    if ctx.family() == AF_INET {
        return if address.is_loopback() { 0 } else { family::V4 };
    }
    if address.is_none() {
        return family::V4 | family::V6;
    }
    match (address.is_loopback(), address.is_v4()) {
        (true, _) => 0,
        (false, true) => family::V4,
        (false, false) => family::V6,
    }
}
