//! Why a command of `meshctl` has no answer, and the exit status that says so.

use std::{io, path::PathBuf};

use super::{client::ClientError, exit::ExitStatus};
use crate::{
    kernel::maps::{MapsError, MapsFailure},
    mesh::explain::ExplainError,
};

/// Why a command has no answer.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The question makes no sense, or is about a pod that is not there.
    #[error(transparent)]
    Explain(#[from] ExplainError),
    /// A file or folder could not be read.
    #[error("{}: {source}: name one that is there and can be read", .path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is nothing of that name.
    #[error("{0}")]
    NotFound(String),
    /// The agent did not answer, or said no.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The agent answered in a form that this version does not know.
    #[error(
        "the agent's answer is not of this version ({0}): use -o json, or the agent's own meshctl"
    )]
    OtherVersion(#[from] serde_json::Error),
    /// The maps could not be read.
    #[error(transparent)]
    Maps(#[from] MapsError),
    /// The answer could not be written.
    #[error("writing the answer: {0}")]
    Output(#[from] io::Error),
}

impl CliError {
    /// How the process ends.
    pub fn status(&self) -> ExitStatus {
        match self {
            // The agent did not understand the question.
            Self::Client(ClientError::Refused { status: 400, .. }) => ExitStatus::Usage,
            Self::Explain(ExplainError::UnknownPod { .. })
            | Self::Folder { .. }
            | Self::NotFound(_)
            | Self::OtherVersion(_)
            | Self::Output(_)
            | Self::Client(ClientError::Refused { .. }) => ExitStatus::No,
            Self::Explain(_) => ExitStatus::Usage,
            Self::Client(ClientError::NoAgent { .. } | ClientError::NotAnAgent { .. }) => {
                ExitStatus::Unavailable
            }
            Self::Maps(error) => match error.failure() {
                MapsFailure::NothingPinned => ExitStatus::Unavailable,
                MapsFailure::WrongUsage => ExitStatus::Usage,
                MapsFailure::NoPermission => ExitStatus::NoPermission,
                MapsFailure::Other => ExitStatus::No,
            },
        }
    }

    /// Whether whoever read the answer has read enough of it (`meshctl … | head`).
    pub fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Output(e) if e.kind() == io::ErrorKind::BrokenPipe)
    }
}
