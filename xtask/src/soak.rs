//! `soak`: builds the lab and becomes a long run of it.

use std::ffi::OsString;

use anyhow::Result;

use crate::{binaries, privileges, setup, shell};

/// Runs the soak that `arguments` name.
pub fn run(arguments: &[OsString]) -> Result<()> {
    privileges::require()?;
    setup::run()?;
    binaries::build_lab()?;
    shell::become_command(binaries::lab_binary("lab-soak").args(arguments))
}
