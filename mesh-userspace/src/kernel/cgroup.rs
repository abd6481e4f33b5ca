//! Where cgroup v2 is: on hybrid hosts it is one mount among many.

use std::{fs, io, path::PathBuf};

/// The cgroup v2 mount point, from /proc/mounts.
pub fn mounted() -> io::Result<PathBuf> {
    find(&fs::read_to_string("/proc/mounts")?).ok_or_else(|| {
        let reason = "no cgroup2 in /proc/mounts: mount -t cgroup2 none /sys/fs/cgroup/unified";
        io::Error::new(io::ErrorKind::NotFound, reason)
    })
}

fn find(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let point = fields.nth(1)?;
        (fields.next()? == "cgroup2").then(|| PathBuf::from(point.replace("\\040", " ")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hybrid_host_has_it_among_v1_mounts() {
        let mounts = "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0\n";
        assert_eq!(find(mounts), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(find("proc /proc proc rw 0 0\n"), None);
    }
}
