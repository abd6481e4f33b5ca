//! What `check` looks at: files below /proc and /sys, read once.

use std::{fs, path::Path};

/// What was read; `None` or empty where a file could not be.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    /// `/proc/sys/kernel/osrelease`.
    pub release: String,
    /// `/sys/kernel/btf/vmlinux` is there.
    pub btf: bool,
    /// `/proc/self/mounts`.
    pub mounts: Vec<Mount>,
    /// `/proc/filesystems` has bpf.
    pub knows_bpffs: bool,
    /// The effective set, from `/proc/self/status`.
    pub capabilities: Option<u64>,
    /// Soft limit on locked memory in bytes, from `/proc/self/limits`.
    pub memlock: Option<Memlock>,
}

/// A mounted file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Where.
    pub point: String,
    /// `cgroup2`, `bpf`…
    pub kind: String,
}

/// The limit on locked memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memlock {
    /// None.
    Unlimited,
    /// So many bytes.
    Bytes(u64),
}

impl Machine {
    /// Reads them.
    pub fn look() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        Self {
            release: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            btf: Path::new("/sys/kernel/btf/vmlinux").exists(),
            mounts: mounts(&read("/proc/self/mounts")),
            knows_bpffs: knows_bpffs(&read("/proc/filesystems")),
            capabilities: capabilities(&read("/proc/self/status")),
            memlock: memlock(&read("/proc/self/limits")),
        }
    }
}

/// `proc_pid_mounts(5)`: device, point, kind, options; blanks in names are octal escapes.
fn mounts(text: &str) -> Vec<Mount> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split(' ');
            let point = unescape(fields.nth(1)?);
            Some(Mount {
                point,
                kind: fields.next()?.to_owned(),
            })
        })
        .collect()
}

fn unescape(text: &str) -> String {
    [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ]
    .iter()
    .fold(text.to_owned(), |text, (escaped, plain)| {
        text.replace(escaped, plain)
    })
}

fn knows_bpffs(text: &str) -> bool {
    text.lines()
        .any(|line| line.split_whitespace().last() == Some("bpf"))
}

fn capabilities(text: &str) -> Option<u64> {
    let mask = text.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

fn memlock(text: &str) -> Option<Memlock> {
    let limits = text
        .lines()
        .find_map(|line| line.strip_prefix("Max locked memory"))?;
    match limits.split_whitespace().next()? {
        "unlimited" => Some(Memlock::Unlimited),
        bytes => bytes.parse().ok().map(Memlock::Bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_below_proc_are_read_as_the_kernel_writes_them() {
        let text = "none /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0\n\
                    bpf /mnt/b\\040c bpf rw 0 0\n";
        assert_eq!(
            mounts(text),
            [
                Mount {
                    point: "/sys/fs/cgroup/unified".into(),
                    kind: "cgroup2".into()
                },
                Mount {
                    point: "/mnt/b c".into(),
                    kind: "bpf".into()
                },
            ]
        );
        assert!(knows_bpffs("nodev\tsysfs\nnodev\tbpf\n\text4\n"));
        assert!(!knows_bpffs("nodev\tsysfs\n"));
        assert_eq!(
            capabilities("Name:\tx\nCapEff:\t000001ffffffffff\n"),
            Some(0x1ff_ffff_ffff)
        );
        let limits = |value: &str| {
            memlock(&format!(
                "Limit    Soft Limit\nMax locked memory         {value}   1 bytes\n"
            ))
        };
        assert_eq!(limits("8388608"), Some(Memlock::Bytes(8_388_608)));
        assert_eq!(limits("unlimited"), Some(Memlock::Unlimited));
        assert_eq!(memlock(""), None);
    }

    #[test]
    fn this_machine_can_be_looked_at() {
        let machine = Machine::look();
        assert!(
            machine.release.starts_with(|c: char| c.is_ascii_digit()),
            "{machine:?}"
        );
        assert!(!machine.mounts.is_empty(), "{machine:?}");
        assert!(
            machine.capabilities.is_some() && machine.memlock.is_some(),
            "{machine:?}"
        );
    }
}
