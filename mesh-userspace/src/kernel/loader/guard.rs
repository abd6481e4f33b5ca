//! `judge_syn` is attached only while some pod has a policy: it runs for every packet of the cgroup, which
//! is a twentieth of what a short connection costs.
//!
//! The link's pin says whether it is: a policy is in force with no agent too.

use std::{fs::File, path::PathBuf};

use aya::programs::ProgramFd;
use aya_obj::generated::bpf_attach_type;
use mesh_common::names::programs::JUDGE_SYN;

use super::{
    Attached, LoadError, PinDir,
    on_cgroup::{self, Place},
};

/// The program that judges SYNs, loaded, and where it is to be attached.
#[derive(Debug)]
pub struct Guard {
    program: ProgramFd,
    id: u32,
    pins: PinDir,
    cgroup: PathBuf,
    file: File,
}

/// It cannot be attached or detached. Attaching: connects of this node's pods are judged all the same,
/// those from elsewhere are not.
#[derive(Debug, thiserror::Error)]
#[error("{operation} the program that refuses connections at the SYN: {source}")]
pub struct GuardError {
    operation: &'static str,
    // Large, and rare.
    source: Box<LoadError>,
}

fn failed(operation: &'static str) -> impl FnOnce(LoadError) -> GuardError {
    move |source| GuardError {
        operation,
        source: Box::new(source),
    }
}

impl Guard {
    /// What an earlier agent's policies need stays attached, with this program in the place of its, until the
    /// policies are this agent's own.
    pub(super) fn new(
        program: ProgramFd,
        id: u32,
        pins: &PinDir,
        cgroup: PathBuf,
        file: File,
    ) -> Result<Self, LoadError> {
        let guard = Self {
            program,
            id,
            pins: pins.clone(),
            cgroup,
            file,
        };
        if guard.is_attached() {
            guard.put_in_force()?;
        }
        Ok(guard)
    }

    /// Whether SYNs are judged.
    pub fn is_attached(&self) -> bool {
        self.pins.link(JUDGE_SYN).exists()
    }

    /// For `status`, where it is attached.
    pub fn attached(&self) -> Option<Attached> {
        self.is_attached().then(|| Attached {
            name: JUDGE_SYN.into(),
            hook: "cgroup".into(),
            id: self.id,
        })
    }

    /// From here on SYNs are judged, by this program rather than by another layout's. To be called before the
    /// first policy is written.
    pub fn attach(&self) -> Result<(), GuardError> {
        if self.is_attached() {
            return Ok(());
        }
        self.put_in_force().map_err(failed("attaching"))
    }

    fn put_in_force(&self) -> Result<(), LoadError> {
        let place = Place {
            pins: &self.pins,
            cgroup: &self.cgroup,
            file: &self.file,
        };
        let hook = bpf_attach_type::BPF_CGROUP_INET_INGRESS;
        place.attach(JUDGE_SYN, hook, &self.program)
    }

    /// No SYN is judged any more, by another layout's program neither. To be called when no policy is left.
    pub fn detach(&self) -> Result<(), GuardError> {
        for pins in self.pins.others().iter().chain([&self.pins]) {
            on_cgroup::remove(&pins.link(JUDGE_SYN)).map_err(failed("detaching"))?;
        }
        Ok(())
    }
}
