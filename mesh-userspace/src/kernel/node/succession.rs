//! One agent after another, and beside other tools: whose programs are in force, and what is left of whom.

use std::path::PathBuf;

use mesh_common::names::programs;

use super::{Kernel, locked};
use crate::kernel::{
    access_maps::AccessMaps,
    loader::{GuardError, LoadError},
    owners::{self, SocketMap},
    tables::{PolicyMaps, TableError},
};

/// The programs are not all in force.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The kernel does not take one.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// It takes all but one.
    #[error(transparent)]
    Guard(#[from] GuardError),
}

impl Kernel {
    /// Puts the programs in force that waited for the policy. True: they did.
    pub fn attach(&self) -> Result<bool, AttachError> {
        let Some(loaded) = locked(&self.waiting).take() else {
            return Ok(false);
        };
        let programs = loaded.attach()?;
        if locked(&self.access).guards() == 0 {
            programs.guard.detach()?;
        } else {
            programs.guard.attach()?;
        }
        Ok(self.in_force.set(programs).is_ok())
    }

    /// Removes what agents with other layouts have left, once it is unused; gives the folders that went.
    pub fn tidy(&self) -> Result<Vec<PathBuf>, LoadError> {
        // Until these programs are in force, those are.
        if self.in_force.get().is_none() {
            return Ok(Vec::new());
        }
        locked(&self.leftovers).tidy()
    }

    /// Whether the programs in force are this agent's, rather than those of one that wanted to take over.
    pub fn in_force(&self) -> bool {
        self.pins.link(programs::CONNECT4).exists()
    }

    /// Reads the maps again, which another agent may have written.
    pub fn reread(&self) -> Result<(), TableError> {
        let policy = PolicyMaps::open(&self.pins)?;
        let ids = policy.ids();
        *locked(&self.policy) = (policy, ids);
        *locked(&self.access) = AccessMaps::open(&self.pins)?;
        Ok(())
    }

    /// Other tools' socket maps: their sockets cannot be in this one.
    pub fn other_socket_maps(&self) -> Vec<SocketMap> {
        owners::socket_maps(&self.bpffs)
    }
}
