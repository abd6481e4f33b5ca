//! Pods in the host's network namespace: known by the cgroup of the process that connects, since the namespace
//! tells nobody apart there. The host's other processes are left alone.
//!
//! Reads cgroup_pods, local_pods, the socket's record; writes that, origins, and what [`accounting`] says.
//! Asked only where the namespace's entry in workloads says that it has such pods.

use aya_ebpf::{
    bindings::BPF_SOCK_OPS_STATE_CB_FLAG, helpers::generated::bpf_get_current_ancestor_cgroup_id,
    programs::SockOpsContext,
};
use mesh_common::{
    connection::{Plain, Role},
    policy::{Verdict, Workload},
};

use crate::{
    accounting, kernel,
    maps::{CGROUP_PODS, LOCAL_PODS},
    sock_ops::{Ends, note_origin, plain, record, sk, watch},
};

/// How deep a pod's cgroup may lie below the root; Kubernetes puts it on the second or third level.
const LEVELS: i32 = 12;

/// The pod that the current process belongs to: it may have moved to a cgroup below its pod's, not out of it.
/// To be asked in system calls only.
#[inline(always)]
pub fn of_current() -> Option<&'static Workload> {
    for above in 0..LEVELS {
        // SAFETY: takes a number; 0 where the process is not that deep.
        let cgroup = unsafe { bpf_get_current_ancestor_cgroup_id(LEVELS - above) };
        if cgroup == 0 {
            continue;
        }
        // SAFETY: user space replaces values whole.
        if let Some(workload) = unsafe { CGROUP_PODS.get(&cgroup) } {
            return Some(workload);
        }
    }
    None
}

/// A client's end is established, if connect found that a pod asked for it.
#[inline(always)]
pub fn client_established(ctx: &SockOpsContext, ends: &Ends, netns: u64) {
    let sk = sk(ctx);
    if sk.is_null() {
        return;
    }
    // SAFETY: the context's own socket, whose storage lives as long as the program runs.
    let known = unsafe { kernel::connection(sk).map(|record| record.as_ref().source) };
    if known.is_none_or(|source| source == 0) {
        return;
    }
    let Some(record) = record(ctx, ends, netns, Role::Client) else {
        return;
    };
    watch(ctx, BPF_SOCK_OPS_STATE_CB_FLAG);
    if record.way == Verdict::Agent as u32 {
        note_origin(record, ends, netns);
    } else {
        // SAFETY: user space replaces values whole.
        if let Some(server) = unsafe { LOCAL_PODS.get(&ends.remote_address) } {
            record.destination = server.workload;
        }
        plain(record, Plain::Host);
    }
    accounting::opened(record);
}
