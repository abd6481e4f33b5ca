//! Where cgroup v2 is: on hybrid hosts it is one mount among many. Cgroups of pods in the host's namespace.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::sys;

/// The cgroup of a pod in the host's namespace.
#[derive(Debug)]
pub struct PodCgroup {
    path: PathBuf,
    id: u64,
}

/// Why a pod's cgroup cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// It cannot be looked at.
    #[error(
        "cgroup {path}: {source}: check the pod's zerohop.dev/cgroup annotation; enrolment is tried again \
         every second"
    )]
    Open {
        /// As the annotation says.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It is something else.
    #[error("cgroup {path}: not a cgroup v2 folder: check the pod's zerohop.dev/cgroup annotation")]
    NotV2 {
        /// As the annotation says.
        path: PathBuf,
    },
}

impl PodCgroup {
    /// Reads its number.
    pub fn open(path: &Path) -> Result<Self, CgroupError> {
        let failed = |source| CgroupError::Open {
            path: path.to_owned(),
            source,
        };
        if !sys::is_cgroup2(path).map_err(failed)? {
            return Err(CgroupError::NotV2 {
                path: path.to_owned(),
            });
        }
        let id = id_of(path).map_err(failed)?;
        Ok(Self {
            path: path.to_owned(),
            id,
        })
    }

    /// The kernel's number for it: its inode.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// As the annotation says.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the path still leads to it: a pod that restarts gets a new one.
    pub fn is_current(&self) -> bool {
        id_of(&self.path).is_ok_and(|id| id == self.id)
    }
}

fn id_of(path: &Path) -> io::Result<u64> {
    Ok(fs::metadata(path)?.ino())
}

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
