//! Builds the eBPF object, so that the agent carries it: one binary to copy.
//!
//! Two toolchains can do it (`cargo xtask setup` sees to one of them): Debian's rustc with its prebuilt
//! `core` for bpfel-unknown-none, or rustup's nightly with `rust-src`.

use std::{
    env,
    error::Error,
    path::{Path, PathBuf},
    process::Command,
};

const TARGET: &str = "bpfel-unknown-none";

fn main() -> Result<(), Box<dyn Error>> {
    let manifest_dir = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let workspace = manifest_dir
        .parent()
        .ok_or("the crate lies in the workspace")?;
    let source = workspace.join("mesh-ebpf");
    for path in [
        "mesh-ebpf/src",
        "mesh-ebpf/Cargo.toml",
        "mesh-ebpf/Cargo.lock",
        "mesh-common/src",
    ] {
        println!("cargo::rerun-if-changed={}", workspace.join(path).display());
    }
    println!("cargo::rerun-if-env-changed=ZEROHOP_BPF_RUSTC");

    // One build for all profiles: the object does not depend on them.
    let out_dir = PathBuf::from(env::var("OUT_DIR")?);
    let target_dir = out_dir
        .ancestors()
        .nth(4)
        .ok_or("OUT_DIR lies in the target folder")?
        .join("ebpf");
    let mut cargo = Command::new(env::var("CARGO")?);
    cargo
        .current_dir(&source)
        .arg("build")
        .arg("--release")
        .arg("--locked")
        .args(["--target", TARGET]);
    for (name, _) in env::vars() {
        let foreign = name.starts_with("CARGO_CFG_") || name.starts_with("CARGO_FEATURE_");
        if foreign || name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(name);
        }
    }
    for name in [
        "RUSTC",
        "RUSTDOC",
        "RUSTFLAGS",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTC_LINKER",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_BUILD_TARGET",
        "CLIPPY_ARGS",
        "CARGO_TARGET_DIR",
        "TARGET",
        "HOST",
        "PROFILE",
        "OPT_LEVEL",
        "DEBUG",
        "NUM_JOBS",
        "OUT_DIR",
    ] {
        cargo.env_remove(name);
    }
    cargo.env("CARGO_TARGET_DIR", &target_dir);
    // The programs read the context's fields as this machine lays them out.
    let arch = env::var("CARGO_CFG_TARGET_ARCH")?;
    cargo.env(
        "CARGO_TARGET_BPFEL_UNKNOWN_NONE_RUSTFLAGS",
        format!("--cfg=bpf_target_arch=\"{arch}\""),
    );
    let toolchain = if let Some(rustc) = prebuilt_core() {
        cargo.env("RUSTC", &rustc).env("RUSTC_BOOTSTRAP", "1");
        rustc.display().to_string()
    } else {
        cargo
            .env("RUSTUP_TOOLCHAIN", "nightly")
            .args(["-Z", "build-std=core"]);
        // rustup's proxy, not the toolchain's own cargo, heeds RUSTUP_TOOLCHAIN.
        let mut proxy = Command::new("cargo");
        proxy.current_dir(&source).args(cargo.get_args());
        for (name, value) in cargo.get_envs() {
            match value {
                Some(value) => proxy.env(name, value),
                None => proxy.env_remove(name),
            };
        }
        proxy.env_remove("CARGO");
        cargo = proxy;
        "nightly".to_owned()
    };
    let status = cargo.status()?;
    if !status.success() {
        return Err(format!(
            "building mesh-ebpf with {toolchain} failed ({status}): `cargo xtask setup` installs the \
             eBPF toolchain"
        )
        .into());
    }
    let object = target_dir.join(TARGET).join("release/zerohop");
    std::fs::copy(&object, out_dir.join("zerohop.o"))?;
    Ok(())
}

/// A rustc that has `core` for the BPF target.
fn prebuilt_core() -> Option<PathBuf> {
    let candidates = [
        env::var_os("ZEROHOP_BPF_RUSTC"),
        Some("/usr/bin/rustc".into()),
    ];
    candidates
        .into_iter()
        .flatten()
        .map(PathBuf::from)
        .find(|rustc| has_core(rustc))
}

fn has_core(rustc: &Path) -> bool {
    let output = Command::new(rustc)
        .args(["--print", "target-libdir", "--target", TARGET])
        .output();
    let Ok(output) = output else { return false };
    let libdir = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    let Ok(entries) = std::fs::read_dir(libdir) else {
        return false;
    };
    entries
        .flatten()
        .any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"))
}
