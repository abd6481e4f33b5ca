//! The eBPF toolchain: a compiler that has `core` for bpfel-unknown-none, and a bpf-linker of the
//! same LLVM.
//!
//! Two routes: Debian's compiler with its prebuilt `core`, or rustup's nightly that builds `core`
//! from rust-src. What is there is taken; if neither is, the first that this machine offers.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::{apt, found, installing};
use crate::shell;

/// Debian's compiler, where its package puts it (PATH may find rustup's first).
pub const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
/// Debian's clippy of the same compiler.
pub const DEBIAN_CLIPPY: &str = "/usr/bin/clippy-driver";
const TARGET: &str = "bpfel-unknown-none";
const LINKER_VERSION: &str = "0.13.0";

/// Where the compiler for eBPF comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// `/usr/bin/rustc` with a prebuilt `core`.
    Debian,
    /// `cargo +nightly -Z build-std=core`.
    Nightly,
}

impl Route {
    /// The route that is complete on this machine.
    pub fn find() -> Option<Self> {
        [Self::Debian, Self::Nightly]
            .into_iter()
            .find(|route| route.is_ready())
    }

    fn is_ready(self) -> bool {
        self.sysroot().is_some_and(|sysroot| match self {
            Self::Debian => {
                sysroot
                    .join("lib/rustlib")
                    .join(TARGET)
                    .join("lib")
                    .is_dir()
                    && Path::new(DEBIAN_CLIPPY).is_file()
            }
            Self::Nightly => sysroot.join("lib/rustlib/src/rust/library/core").is_dir(),
        })
    }

    fn sysroot(self) -> Option<PathBuf> {
        let sysroot = shell::output(self.rustc().args(["--print", "sysroot"])).ok()?;
        Some(PathBuf::from(sysroot.trim()))
    }

    fn rustc(self) -> std::process::Command {
        match self {
            Self::Debian => shell::command(DEBIAN_RUSTC),
            Self::Nightly => {
                let mut rustup = shell::command("rustup");
                rustup.args(["run", "nightly", "rustc"]);
                rustup
            }
        }
    }

    /// The compiler's version, and its LLVM's major version.
    fn version(self) -> Result<(String, u32)> {
        let text = shell::output(self.rustc().arg("-vV"))?;
        let version = text.lines().next().unwrap_or_default().to_owned();
        let llvm = llvm_of(&text).with_context(|| format!("{version} does not say its LLVM"))?;
        Ok((version, llvm))
    }
}

/// Makes sure that an object can be built.
pub fn ensure() -> Result<()> {
    let route = match Route::find() {
        Some(route) => route,
        None => install_compiler()?,
    };
    let (version, llvm) = route.version()?;
    let kind = match route {
        Route::Debian => "prebuilt core from Debian",
        Route::Nightly => "nightly with rust-src",
    };
    found("eBPF compiler", &format!("{version}, LLVM {llvm}, {kind}"));
    ensure_linker(llvm)
}

fn install_compiler() -> Result<Route> {
    let debian = ["rustc-web", "libstd-rust-web-dev-bpf", "rust-web-clippy"];
    if apt::offers(debian[1]) {
        apt::install(&debian)?;
    } else if shell::find("rustup").is_some() {
        installing("eBPF compiler", "rustup's nightly with rust-src and clippy");
        let mut rustup = shell::command("rustup");
        rustup.args(["toolchain", "install", "nightly", "--profile", "minimal"]);
        rustup.args(["--component", "rust-src", "--component", "clippy"]);
        shell::run(&mut rustup)?;
    }
    Route::find().with_context(|| {
        format!(
            "no compiler for {TARGET}. On Debian 12 with the security suite:\n  \
             sudo apt-get install {}\nelsewhere, with rustup:\n  \
             rustup toolchain install nightly --component rust-src --component clippy",
            debian.join(" ")
        )
    })
}

fn ensure_linker(llvm: u32) -> Result<()> {
    let there = shell::find("bpf-linker");
    if let Some(path) = &there
        && linker_llvm(path) == Some(llvm)
    {
        found("bpf-linker", &format!("{}, LLVM {llvm}", path.display()));
        return Ok(());
    }
    let why = if there.is_some() {
        "the one here has another LLVM"
    } else {
        "none here"
    };
    let prefix = llvm_libraries(llvm)?;
    installing(
        "bpf-linker",
        &format!("{LINKER_VERSION} for LLVM {llvm} ({why}); takes about a minute"),
    );
    let mut cargo = shell::cargo();
    cargo.args([
        "install",
        "bpf-linker",
        "--version",
        LINKER_VERSION,
        "--locked",
        "--force",
        "--quiet",
    ]);
    cargo.args([
        "--no-default-features",
        "--features",
        &format!("llvm-{llvm}"),
    ]);
    cargo
        .env("LLVM_PREFIX", &prefix)
        .env("PATH", path_with(&prefix.join("bin")));
    // Its own folder: the workspace's would be locked by, and lock, other builds.
    cargo.env_remove("CARGO_TARGET_DIR");
    shell::run(&mut cargo)?;
    match shell::find("bpf-linker").map(|path| (linker_llvm(&path), path)) {
        Some((Some(found), _)) if found == llvm => Ok(()),
        Some((_, path)) => bail!(
            "{} comes first in PATH but has not LLVM {llvm}: remove it",
            path.display()
        ),
        None => bail!(
            "bpf-linker is installed in cargo's bin folder, which is not in PATH: add it (~/.cargo/bin)"
        ),
    }
}

/// The folder of the LLVM that bpf-linker is to be built against, with all that linking it needs.
fn llvm_libraries(llvm: u32) -> Result<PathBuf> {
    let prefix = PathBuf::from(format!("/usr/lib/llvm-{llvm}"));
    let (llvm_dev, polly) = (format!("llvm-{llvm}-dev"), format!("libpolly-{llvm}-dev"));
    let needed = [
        (prefix.join("lib/libLLVM.so"), llvm_dev.as_str()),
        (prefix.join("lib/libPolly.a"), polly.as_str()),
        (PathBuf::from("/usr/include/zlib.h"), "zlib1g-dev"),
        (PathBuf::from("/usr/include/zstd.h"), "libzstd-dev"),
        (PathBuf::from("/usr/bin/c++"), "g++"),
    ];
    let missing: Vec<&str> = needed
        .iter()
        .filter(|(file, _)| !file.exists())
        .map(|(_, package)| *package)
        .collect();
    apt::install(&missing).with_context(|| {
        format!("bpf-linker must be built against LLVM {llvm}, the compiler's (https://apt.llvm.org has every version)")
    })?;
    Ok(prefix)
}

/// The LLVM that a bpf-linker loads, by its shared library; `None` if it has none (a static build
/// cannot be asked, and is replaced).
fn linker_llvm(path: &Path) -> Option<u32> {
    let libraries = shell::output(shell::command("ldd").arg(path)).ok()?;
    shared_llvm(&libraries)
}

fn shared_llvm(ldd: &str) -> Option<u32> {
    // libLLVM.so.22.1 => …, or libLLVM-17.so.1 => … up to LLVM 17.
    let name = ldd
        .split_whitespace()
        .find_map(|word| word.strip_prefix("libLLVM"))?;
    leading_number(name.trim_start_matches(".so.").trim_start_matches('-'))
}

fn llvm_of(rustc_verbose: &str) -> Option<u32> {
    rustc_verbose
        .lines()
        .find_map(|line| leading_number(line.strip_prefix("LLVM version: ")?))
}

fn leading_number(text: &str) -> Option<u32> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text[..digits].parse().ok()
}

fn path_with(first: &Path) -> std::ffi::OsString {
    let rest = std::env::var_os("PATH").unwrap_or_default();
    let all = std::iter::once(first.to_path_buf()).chain(std::env::split_paths(&rest));
    std::env::join_paths(all).unwrap_or(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compilers_llvm_is_read() {
        let text = "rustc 1.96.0 (x 2026-05-25)\nbinary: rustc\nLLVM version: 22.1.8\n";
        assert_eq!(llvm_of(text), Some(22));
        assert_eq!(llvm_of("rustc 1.96.0\n"), None);
    }

    #[test]
    fn the_linkers_llvm_is_read_in_both_spellings() {
        assert_eq!(
            shared_llvm("\tlibLLVM.so.22.1 => /usr/lib/llvm-22/lib/libLLVM.so.22.1 (0x0)\n"),
            Some(22)
        );
        assert_eq!(
            shared_llvm("\tlibc.so.6 => /x (0x0)\n\tlibLLVM-17.so.1 => /y (0x0)\n"),
            Some(17)
        );
        assert_eq!(shared_llvm("\tlibc.so.6 => /x (0x0)\n"), None);
    }
}
