//! Which privileges this process has, read from /proc/self/status.

use std::fs;

use anyhow::{Context, Result, bail};

/// The capabilities that the lab and the agent need: number (linux/capability.h), name, for what.
const NEEDED: [(u32, &str, &str); 5] = [
    (
        12,
        "CAP_NET_ADMIN",
        "network namespaces and attaching programs",
    ),
    (21, "CAP_SYS_ADMIN", "making namespaces and mounting"),
    (5, "CAP_KILL", "stopping what runs in a pod"),
    (38, "CAP_PERFMON", "reading kernel memory in programs"),
    (39, "CAP_BPF", "loading programs and maps"),
];

/// Whether this process runs as root.
pub fn is_root() -> bool {
    // "Uid:" real, effective, saved, file system.
    status_field("Uid").is_ok_and(|ids| ids.split_whitespace().nth(1) == Some("0"))
}

/// An error that names what is missing for the lab.
pub fn require() -> Result<()> {
    let held = u64::from_str_radix(&status_field("CapEff")?, 16)
        .context("CapEff in /proc/self/status is not a hexadecimal number")?;
    let missing = missing(held);
    if !missing.is_empty() {
        bail!(
            "the lab makes real namespaces, cgroups and BPF programs; this process lacks {}: run it as root \
             (in a container: --privileged)",
            missing.join(", ")
        );
    }
    Ok(())
}

fn missing(held: u64) -> Vec<String> {
    let lacking = NEEDED
        .iter()
        .filter(|(number, ..)| held & (1 << number) == 0);
    lacking
        .map(|(_, name, purpose)| format!("{name} ({purpose})"))
        .collect()
}

fn status_field(name: &str) -> Result<String> {
    let status =
        fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
    let field = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    Ok(field
        .with_context(|| format!("no {name} in /proc/self/status"))?
        .trim()
        .to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_capabilities_lack_nothing() {
        assert!(missing(u64::MAX).is_empty());
    }

    #[test]
    fn a_missing_capability_is_named() {
        let without_bpf = !(1 << 39);
        assert_eq!(
            missing(without_bpf),
            ["CAP_BPF (loading programs and maps)"]
        );
    }
}
