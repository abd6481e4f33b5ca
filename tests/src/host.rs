//! What the machine must have, and where its parts are: cgroup v2, bpffs, /run/netns.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::sys;

/// Where named network namespaces are mounted.
pub const NETNS_DIR: &str = "/run/netns";
/// The lab's own folders and locks.
pub const STATE_DIR: &str = "/run/zerohop-lab";
/// The BPF file system that the agents pin to.
pub const BPFFS: &str = "/sys/fs/bpf";

/// The one lock that labs of several processes take while they change what they share.
#[derive(Debug)]
pub struct HostLock {
    _file: File,
}

impl HostLock {
    /// Waits for the lock; it is given up on drop.
    pub fn take() -> Result<Self> {
        fs::create_dir_all(STATE_DIR).with_context(|| format!("create {STATE_DIR}"))?;
        let path = Path::new(STATE_DIR).join("lock");
        let file = File::create(&path).with_context(|| format!("open {}", path.display()))?;
        sys::lock(&file).with_context(|| format!("lock {}", path.display()))?;
        Ok(Self { _file: file })
    }
}

/// Fails with what is missing where this process can't make namespaces and cgroups.
pub fn require_privileges() -> Result<()> {
    ensure!(
        sys::effective_user() == 0,
        "the lab makes network namespaces, mounts and cgroups: run it as root (it is user {})",
        sys::effective_user()
    );
    let status = fs::read_to_string("/proc/self/status").context("read /proc/self/status")?;
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .context("find CapEff in /proc/self/status")?;
    for (bit, name) in [(12, "CAP_NET_ADMIN"), (21, "CAP_SYS_ADMIN")] {
        ensure!(
            effective & (1 << bit) != 0,
            "the lab needs {name}, which this process lacks (CapEff {effective:x}): run it outside \
             of an unprivileged container"
        );
    }
    Ok(())
}

/// The root of cgroup v2: on a hybrid host it lies beside the v1 controllers.
pub fn cgroup_root() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").context("read /proc/mounts")?;
    mounts
        .lines()
        .find_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (path, kind) = (fields.next()?, fields.next()?);
            (kind == "cgroup2").then(|| PathBuf::from(path))
        })
        .context("no cgroup2 in /proc/mounts: mount it, `mount -t cgroup2 none /sys/fs/cgroup`")
}

/// Mounts bpffs where it is not mounted yet. Call under the [`HostLock`]: two mounts on top of one
/// another would hide the pins below the first.
pub fn ensure_bpffs(_lock: &HostLock) -> Result<()> {
    let dir = Path::new(BPFFS);
    if sys::is_bpffs(dir).with_context(|| format!("statfs {BPFFS}"))? {
        return Ok(());
    }
    sys::mount_bpffs(dir).with_context(|| format!("mount bpffs on {BPFFS}"))
}

/// Runs `ip` with `arguments`, feeding it `batch` (one command a line).
pub fn ip_batch(arguments: &[&str], batch: &str) -> Result<()> {
    let mut child = Command::new("ip")
        .args(arguments)
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("run `ip`: install iproute2")?;
    let mut stdin = child.stdin.take().expect("invariant: stdin is piped");
    std::io::Write::write_all(&mut stdin, batch.as_bytes()).context("write to `ip -batch`")?;
    drop(stdin);
    let output = child.wait_with_output().context("wait for `ip`")?;
    if !output.status.success() {
        bail!(
            "`ip {} -batch` failed: {}\non:\n{batch}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

/// The start time of the process `pid` in clock ticks, `None` where there is no such process.
/// With the pid it names a process for ever: pids are used again.
pub fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold spaces; field 22 is the 20th after it.
    stat.rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(19)?
        .parse()
        .ok()
}
