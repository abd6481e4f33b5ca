//! The eBPF crate's own checks: it is outside the workspace and has a compiler of its own.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::setup::{self, Route};
use crate::shell;

fn manifest() -> PathBuf {
    shell::root().join("mesh-ebpf/Cargo.toml")
}

pub fn format() -> Result<()> {
    shell::run(
        shell::cargo()
            .args(["fmt", "--check", "--manifest-path"])
            .arg(manifest()),
    )
}

/// Debian's cargo-clippy has not the target's `core`; its driver, as the wrapper of its compiler, has.
pub fn clippy() -> Result<()> {
    let mut cargo = match Route::find().context("no compiler for eBPF: run `cargo xtask setup`")? {
        Route::Debian => {
            let mut cargo = shell::cargo();
            cargo.arg("check").env("RUSTC", setup::DEBIAN_RUSTC);
            cargo
                .env("RUSTC_WORKSPACE_WRAPPER", setup::DEBIAN_CLIPPY)
                .env("RUSTC_BOOTSTRAP", "1");
            cargo
        }
        Route::Nightly => {
            let mut rustup = shell::command("rustup");
            rustup.args(["run", "nightly", "cargo", "clippy", "-Z", "build-std=core"]);
            rustup
        }
    };
    cargo
        .args([
            "--quiet",
            "--locked",
            "--target",
            "bpfel-unknown-none",
            "--manifest-path",
        ])
        .arg(manifest());
    cargo
        .arg("--target-dir")
        .arg(shell::target_dir().join("ebpf-check"));
    let arch = std::env::consts::ARCH;
    cargo.env(
        "RUSTFLAGS",
        format!("-Dwarnings --cfg=bpf_target_arch=\"{arch}\""),
    );
    shell::run(&mut cargo)
}
