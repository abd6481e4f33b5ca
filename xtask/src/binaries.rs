//! What is built and run: release binaries, the demo, commands in a pod.

use std::ffi::OsString;
use std::process::Command;

use anyhow::{Context, Result};

use crate::{privileges, setup, shell};

/// The profile of what the lab runs: near release speed, a third of its build time.
pub const LAB_PROFILE: &str = "lab";

/// `build`: the binaries that one would install, for this machine's processor or another.
pub fn release(target: Option<&str>) -> Result<()> {
    setup::run()?;
    println!("build: the agent and meshctl (release profile)");
    let mut cargo = shell::cargo();
    cargo.args([
        "build",
        "--release",
        "--package",
        "mesh-userspace",
        "--bins",
    ]);
    let mut folder = shell::target_dir();
    if let Some(target) = target {
        cargo.args(["--target", target]);
        cross(&mut cargo, target);
        folder.push(target);
    }
    shell::run(&mut cargo).with_context(|| {
        target.map_or_else(String::new, |target| {
            format!(
                "for {target}: its standard library is added by `rustup target add {target}`, the linker \
                 is in Debian's package gcc-aarch64-linux-gnu"
            )
        })
    })?;
    for name in ["mesh-agent", "meshctl"] {
        println!("built {}", folder.join("release").join(name).display());
    }
    Ok(())
}

/// Another processor's linker, where nobody has named one.
fn cross(cargo: &mut Command, target: &str) {
    const LINKERS: [(&str, &str); 1] = [("aarch64-unknown-linux-gnu", "aarch64-linux-gnu-gcc")];
    let variable = format!(
        "CARGO_TARGET_{}_LINKER",
        target.to_uppercase().replace('-', "_")
    );
    if std::env::var_os(&variable).is_none()
        && let Some((_, linker)) = LINKERS.iter().find(|(name, _)| *name == target)
    {
        cargo.env(variable, linker);
    }
}

/// `demo`: becomes the lab's demo, so that Ctrl-C reaches it and it cleans up.
pub fn demo(arguments: &[OsString]) -> Result<()> {
    privileges::require()?;
    setup::run()?;
    build_lab()?;
    shell::become_command(lab_binary("lab-demo").args(arguments))
}

/// `exec`: becomes a command in a pod.
pub fn exec(arguments: &[OsString]) -> Result<()> {
    let mut cargo = shell::cargo();
    cargo.args([
        "build",
        "--quiet",
        "--profile",
        LAB_PROFILE,
        "--package",
        "mesh-tests",
        "--bin",
        "lab-exec",
    ]);
    shell::run(&mut cargo)?;
    shell::become_command(lab_binary("lab-exec").args(arguments))
}

/// Builds every binary that the lab runs: agent, CLI, demo, servers of the pods.
pub fn build_lab() -> Result<()> {
    println!("build: the agent, meshctl and the lab (the first time takes some minutes)");
    let mut cargo = shell::cargo();
    cargo.args([
        "build",
        "--profile",
        LAB_PROFILE,
        "--package",
        "mesh-userspace",
        "--package",
        "mesh-tests",
        "--bins",
    ]);
    shell::run(&mut cargo)
}

/// A binary of the lab, told where the others are.
pub fn lab_binary(name: &str) -> Command {
    let dir = shell::target_dir().join(LAB_PROFILE);
    let mut command = shell::command(dir.join(name));
    command.env("ZEROHOP_BIN_DIR", dir);
    command
}
