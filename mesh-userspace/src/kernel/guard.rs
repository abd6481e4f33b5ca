//! `judge_syn` is attached only while some pod has a policy: it runs for every packet of the cgroup, which
//! is a twentieth of what a short connection costs.
//!
//! The link's pin says whether it is: a policy is in force with no agent too.

use std::{
    fs::{self, File},
    io,
    os::fd::AsFd,
    path::PathBuf,
};

use aya::programs::ProgramFd;
use aya_obj::generated::bpf_attach_type;

use super::sys;

/// The program that judges SYNs, loaded, and where it is to be attached.
#[derive(Debug)]
pub struct Guard {
    program: ProgramFd,
    id: u32,
    cgroup: File,
    pin: PathBuf,
}

/// It cannot be attached or detached. Attaching: connects of this node's pods are judged all the same,
/// those from elsewhere are not.
#[derive(Debug, thiserror::Error)]
#[error("{operation} the program that refuses connections from other nodes: {source}")]
pub struct GuardError {
    operation: &'static str,
    source: io::Error,
}

impl Guard {
    pub(super) fn new(program: ProgramFd, id: u32, cgroup: File, pin: PathBuf) -> Self {
        Self {
            program,
            id,
            cgroup,
            pin,
        }
    }

    pub(super) fn program(&self) -> &ProgramFd {
        &self.program
    }

    pub(super) fn cgroup(&self) -> &File {
        &self.cgroup
    }

    /// The program's number, as bpftool prints it.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Whether SYNs are judged.
    pub fn is_attached(&self) -> bool {
        self.pin.exists()
    }

    /// From here on SYNs are judged. To be called before the first policy is written.
    pub fn attach(&self) -> Result<(), GuardError> {
        if self.is_attached() {
            return Ok(());
        }
        let hook = bpf_attach_type::BPF_CGROUP_INET_INGRESS;
        sys::attach_to_cgroup(self.program.as_fd(), self.cgroup.as_fd(), hook)
            .and_then(|link| sys::pin(link.as_fd(), &self.pin))
            .map_err(|source| GuardError {
                operation: "attaching",
                source,
            })
    }

    /// No SYN is judged any more. To be called when no policy is left.
    pub fn detach(&self) -> Result<(), GuardError> {
        match fs::remove_file(&self.pin) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(GuardError {
                operation: "detaching",
                source,
            }),
            _ => Ok(()),
        }
    }
}
