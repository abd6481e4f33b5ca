//! What can keep the programs from running, and how it is told from what the kernel says.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::kernel::verify::OLDEST_KERNEL;

/// What can keep the programs from running.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A privilege is missing.
    #[error(
        "{operation}: {source}: run as root, or with CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON and CAP_SYS_ADMIN"
    )]
    Privilege {
        /// What was tried.
        operation: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel lacks something.
    #[error("{what}: {reason}: `meshctl check` shows what this kernel can do")]
    Kernel {
        /// What was tried.
        what: String,
        /// What the kernel said.
        reason: String,
    },
    /// The kernel is too old for the programs.
    #[error(
        "{what}: {release} {reason}: boot {OLDEST_KERNEL}; `meshctl check` shows what this kernel can do"
    )]
    TooOld {
        /// What was tried.
        what: String,
        /// `uname -r`.
        release: String,
        /// What the kernel does: `refuses it: …`.
        reason: String,
    },
    /// A pin that is not what this version would have made.
    #[error("{path}: {problem}: made by something else; remove it, or run `mesh-agent uninstall`")]
    ForeignPin {
        /// The pin.
        path: PathBuf,
        /// How it differs.
        problem: String,
    },
    /// Somebody else's program is attached so that it takes no other beside it.
    #[error(
        "{what}: {owner} is attached to {cgroup} without BPF_F_ALLOW_MULTI, so that no other program can be: \
         attach it in multi mode, or detach it (`bpftool cgroup show {cgroup}` lists what is attached)"
    )]
    Occupied {
        /// What was tried.
        what: String,
        /// Where it is attached.
        cgroup: String,
        /// Whose it is.
        owner: String,
    },
    /// A file or folder.
    #[error("{operation} {path}: {source}")]
    File {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

impl LoadError {
    pub(super) fn file(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| match source.kind() {
            io::ErrorKind::PermissionDenied => Self::Privilege {
                operation: format!("{operation} {}", path.display()),
                source,
            },
            _ => Self::File {
                operation,
                path,
                source,
            },
        }
    }
}

/// Whether an error is a missing privilege or a missing feature, with every cause spelled out.
pub fn classify(what: &str, error: &(dyn std::error::Error + 'static)) -> LoadError {
    let mut reason = error.to_string();
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(source) = error.downcast_ref::<io::Error>()
            // bpf(2) says EACCES where the verifier refuses a program, EPERM where the caller may not.
            && source.raw_os_error() == Some(libc::EPERM)
        {
            let source = io::Error::from_raw_os_error(libc::EPERM);
            return LoadError::Privilege {
                operation: what.to_owned(),
                source,
            };
        }
        cause = error.source();
        if let Some(cause) = cause
            && !reason.contains(&cause.to_string())
        {
            reason = format!("{reason}: {cause}");
        }
    }
    LoadError::Kernel {
        what: what.to_owned(),
        reason,
    }
}
