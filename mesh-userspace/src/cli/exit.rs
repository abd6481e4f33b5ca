//! Exit statuses: what they mean is in the contract with scripts (`sysexits.h` has the numbers).

use std::{ffi::OsString, process::ExitCode};

use clap::Parser;

/// How a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// It did what was asked; for the agent, a clean stop.
    Ok,
    /// The answer is "no": `check` failed, `analyze` found errors, there is no such object.
    No,
    /// Wrong usage.
    Usage,
    /// `meshctl`: no agent there. `mesh-agent`: the kernel lacks something.
    Unavailable,
    /// A privilege is missing.
    NoPermission,
    /// The initial configuration has no usable part.
    Config,
}

impl ExitStatus {
    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::No => 1,
            Self::Usage => 64,
            Self::Unavailable => 69,
            Self::NoPermission => 77,
            Self::Config => 78,
        }
    }
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        Self::from(status.code())
    }
}

/// Parses a command line; where it cannot, or where help was asked for, the text is already printed
/// and the status is what the process should end with.
pub fn parse<T: Parser>(
    arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>,
) -> Result<T, ExitStatus> {
    T::try_parse_from(arguments).map_err(|error| {
        // Nowhere is left to say that standard error is closed.
        let _ = error.print();
        if error.use_stderr() {
            ExitStatus::Usage
        } else {
            ExitStatus::Ok
        }
    })
}
