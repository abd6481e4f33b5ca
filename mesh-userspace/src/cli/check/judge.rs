//! What `check` makes of what it saw.

use std::{io, path::Path};

use serde_json::Value;

use super::{
    Finding, Outcome,
    machine::{Machine, Memlock},
    names, programs,
};
use crate::{
    cli::client::{Client, ClientError},
    kernel::{
        owners::{self, SocketMap},
        selftest,
    },
};

/// What the agent needs, by number (linux/capability.h): loading and attaching; sockets' and cgroups'
/// programs; entering the pods' namespaces, mounting bpffs.
const CAPABILITIES: [(&str, u32); 3] = [
    ("CAP_BPF", 39),
    ("CAP_NET_ADMIN", 12),
    ("CAP_SYS_ADMIN", 21),
];
const CAP_SYS_ADMIN: u32 = 21;
/// The oldest kernel that `cargo xtask kernels` runs the scenarios on.
const TESTED_KERNEL: (u32, u32) = (6, 1);
/// Maps are charged to the memory cgroup since then, not to `RLIMIT_MEMLOCK`.
const MEMCG_KERNEL: (u32, u32) = (5, 11);

/// Everything, in the order in which one would mend it.
pub fn all(machine: &Machine, bpffs: &Path, admin: &str) -> Vec<Finding> {
    let mut findings = vec![
        kernel(machine),
        btf(machine),
        cgroup(machine),
        self::bpffs(machine, bpffs),
        privileges(machine),
        memlock(machine),
    ];
    findings.extend(self_test(machine));
    findings.push(socket_maps(&owners::socket_maps(bpffs)));
    let status = Client::new(admin).get("/status");
    findings.push(names::judge(&status));
    findings.push(admin_port(admin, status));
    findings
}

pub(super) fn finding(
    name: &str,
    outcome: Outcome,
    detail: impl Into<String>,
    mend: Option<&str>,
) -> Finding {
    Finding {
        name: name.into(),
        outcome,
        detail: detail.into(),
        mend: mend.map(str::to_owned),
        verified_instructions: None,
    }
}

/// The release only warns: what counts is which programs load, and what the self-test finds.
fn kernel(machine: &Machine) -> Finding {
    let release = format!("Linux {}", machine.release);
    match version(&machine.release) {
        Some(version) if version >= TESTED_KERNEL => finding("kernel", Outcome::Ok, release, None),
        Some(_) => finding(
            "kernel",
            Outcome::Warn,
            release,
            Some(
                "boot Linux 6.1 or later, the oldest that is tested; what works here is told below",
            ),
        ),
        None => finding(
            "kernel",
            Outcome::Warn,
            format!("cannot tell the release from {:?}", machine.release),
            Some("mount /proc; the self-test tells what works here"),
        ),
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn btf(machine: &Machine) -> Finding {
    if machine.btf {
        finding("BTF", Outcome::Ok, "/sys/kernel/btf/vmlinux", None)
    } else {
        finding(
            "BTF",
            Outcome::Warn,
            "no /sys/kernel/btf/vmlinux",
            Some("connections are accelerated on a kernel with CONFIG_DEBUG_INFO_BTF=y"),
        )
    }
}

fn cgroup(machine: &Machine) -> Finding {
    match machine.mounts.iter().find(|mount| mount.kind == "cgroup2") {
        Some(mount) => finding(
            "cgroup v2",
            Outcome::Ok,
            format!("mounted at {}", mount.point),
            None,
        ),
        None => finding(
            "cgroup v2",
            Outcome::Fail,
            "not mounted",
            Some("mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified"),
        ),
    }
}

fn bpffs(machine: &Machine, bpffs: &Path) -> Finding {
    let place = bpffs.display();
    // The last of the deepest mounts is the one that is seen.
    let under = machine
        .mounts
        .iter()
        .filter(|mount| bpffs.starts_with(&mount.point))
        .max_by_key(|mount| Path::new(&mount.point).components().count());
    if under.is_some_and(|mount| mount.kind == "bpf") {
        return finding("bpffs", Outcome::Ok, format!("mounted at {place}"), None);
    }
    if !machine.knows_bpffs {
        return finding(
            "bpffs",
            Outcome::Fail,
            "this kernel has no bpf file system",
            Some("boot a kernel with CONFIG_BPF_SYSCALL=y"),
        );
    }
    if !bpffs.is_dir() {
        let mend = format!("mkdir -p {place}, or name another folder with --bpffs or MESH_BPFFS");
        return finding(
            "bpffs",
            Outcome::Fail,
            format!("{place} is no folder"),
            Some(&mend),
        );
    }
    finding(
        "bpffs",
        Outcome::Ok,
        format!("not mounted at {place}; the agent mounts it"),
        None,
    )
}

fn privileges(machine: &Machine) -> Finding {
    let Some(effective) = machine.capabilities else {
        return finding(
            "privileges",
            Outcome::Warn,
            "cannot read /proc/self/status",
            Some("mount /proc"),
        );
    };
    let missing = missing_capabilities(effective);
    if missing.is_empty() {
        let names = CAPABILITIES.map(|(name, _)| name).join(", ");
        return finding("privileges", Outcome::Ok, names, None);
    }
    finding(
        "privileges",
        Outcome::Fail,
        format!("missing: {}", missing.join(", ")),
        Some("run it as root, or add these to the container's securityContext.capabilities"),
    )
}

fn missing_capabilities(effective: u64) -> Vec<&'static str> {
    let has = |bit: u32| effective >> bit & 1 == 1;
    // Before CAP_BPF was split off (5.8), and still, CAP_SYS_ADMIN includes it.
    let covered = |name: &str| name == "CAP_BPF" && has(CAP_SYS_ADMIN);
    let missing = CAPABILITIES
        .iter()
        .filter(|(name, bit)| !has(*bit) && !covered(name));
    missing.map(|(name, _)| *name).collect()
}

fn memlock(machine: &Machine) -> Finding {
    let limit = match machine.memlock {
        None => "limit unknown".to_owned(),
        Some(Memlock::Unlimited) => "unlimited".to_owned(),
        Some(Memlock::Bytes(bytes)) => format!("limit {bytes} bytes"),
    };
    if version(&machine.release).is_some_and(|version| version >= MEMCG_KERNEL) {
        let detail = format!("{limit}; this kernel charges maps to the memory cgroup instead");
        return finding("memlock", Outcome::Ok, detail, None);
    }
    match machine.memlock {
        Some(Memlock::Unlimited) => finding("memlock", Outcome::Ok, limit, None),
        _ => finding(
            "memlock",
            Outcome::Warn,
            limit,
            Some("ulimit -l unlimited, or LimitMEMLOCK=infinity in the service's unit"),
        ),
    }
}

/// A socket can be in one socket map only.
fn socket_maps(others: &[SocketMap]) -> Finding {
    if others.is_empty() {
        return finding("other socket maps", Outcome::Ok, "none with programs", None);
    }
    let others: Vec<String> = others.iter().map(SocketMap::to_string).collect();
    finding(
        "other socket maps",
        Outcome::Warn,
        others.join("; "),
        Some(
            "connections whose sockets they hold stay plain TCP; switch the other tool's acceleration off",
        ),
    )
}

/// The programs, then what the kernel does with sockets that they redirect.
fn self_test(machine: &Machine) -> Vec<Finding> {
    let missing = machine
        .capabilities
        .map(missing_capabilities)
        .unwrap_or_default();
    if !missing.is_empty() {
        let detail = format!("not run: it needs {}", missing.join(", "));
        return vec![finding(
            "self-test",
            Outcome::Warn,
            detail,
            Some("run this as root"),
        )];
    }
    let programs = programs::look();
    // Where the agent cannot run, there is nothing to accelerate.
    if programs
        .iter()
        .any(|program| program.outcome == Outcome::Fail)
    {
        return programs;
    }
    let probes = selftest::run();
    let verdict = acceleration(&probes);
    let probes = probes.into_iter().map(probed);
    programs
        .into_iter()
        .chain(probes)
        .chain([verdict])
        .collect()
}

fn probed(probe: selftest::Probe) -> Finding {
    let (outcome, mend) = match probe.outcome {
        selftest::Outcome::Ok => (Outcome::Ok, None),
        selftest::Outcome::Warn => (
            Outcome::Warn,
            Some("nothing here depends on it; a newer kernel may have it"),
        ),
        // The agent serves without acceleration as well.
        selftest::Outcome::Fail => (
            Outcome::Warn,
            Some("bytes go by plain TCP on this kernel: boot a newer one to accelerate"),
        ),
    };
    finding(
        &format!("self-test: {}", probe.name),
        outcome,
        probe.detail,
        mend,
    )
}

/// What follows from the self-test.
fn acceleration(probes: &[selftest::Probe]) -> Finding {
    match selftest::obstacle(probes) {
        None => finding(
            "acceleration",
            Outcome::Ok,
            "works: the self-test passed",
            None,
        ),
        Some(probe) => finding(
            "acceleration",
            Outcome::Warn,
            format!("stays off: {}", probe.name),
            Some("everything else works; boot a newer kernel to accelerate"),
        ),
    }
}

fn admin_port(admin: &str, answer: Result<Value, ClientError>) -> Finding {
    match answer {
        Err(ClientError::NoAgent { source, .. })
            if source.kind() == io::ErrorKind::ConnectionRefused =>
        {
            finding("admin port", Outcome::Ok, format!("{admin} is free"), None)
        }
        Err(ClientError::NoAgent { source, .. }) => finding(
            "admin port",
            Outcome::Warn,
            format!("{admin}: {source}"),
            Some("name an address of this machine with --admin or MESH_ADMIN"),
        ),
        Ok(status) => {
            let text = |key| status.get(key).and_then(Value::as_str).unwrap_or("unknown");
            finding(
                "admin port",
                Outcome::Warn,
                format!(
                    "the agent of node {}, version {}, answers at {admin}",
                    text("node"),
                    text("version")
                ),
                Some(
                    "another agent here needs a --node-name, a --cgroup and an --admin of its own",
                ),
            )
        }
        Err(ClientError::NotAnAgent { .. } | ClientError::Refused { .. }) => finding(
            "admin port",
            Outcome::Fail,
            format!("something that is no agent answers at {admin}"),
            Some("choose another address with --admin or MESH_ADMIN"),
        ),
    }
}

#[cfg(test)]
mod tests;
