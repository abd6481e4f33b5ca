//! What boots another kernel: qemu and Debian's kernels, by the private copy of [`super::archive`].

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::archive::{Archive, Unpacked, Wanted};
use super::found;
use crate::shell;

const QEMU: &str = "qemu-system-x86_64";
/// The oldest qemu that will do. 7.2 gets the flags of an emulated cmpxchg16b wrong, and the guest dies of
/// it; without that instruction sockets get no storage on Linux 7.2.
const OLDEST_QEMU: u32 = 10;
/// The suite that this project is built on, and the one with a newer qemu.
const HOME: &str = "bookworm";
const NEWER: &str = "bookworm-backports";

/// How to start qemu: the machine's own, or the private copy with its own libraries.
pub struct Qemu {
    program: PathBuf,
    leading: Vec<String>,
    /// Where the private copy's parts are.
    modules: Option<PathBuf>,
}

impl Qemu {
    /// Finds it or gets it.
    ///
    /// It is not installed: apt refuses to where another suite's `qemu-utils` are installed already, and
    /// nothing else here needs root.
    pub fn ensure(archive: &mut Archive) -> Result<Self> {
        if let Some(program) = shell::find(QEMU).filter(|program| is_new_enough(program)) {
            found(QEMU, &program.display().to_string());
            return Ok(Self {
                program,
                leading: Vec::new(),
                modules: None,
            });
        }
        let root = archive
            .unpack(&Wanted {
                name: "qemu",
                suites: &[HOME, NEWER],
                package: "qemu-system-x86",
                with: |_| true,
            })?
            .root;
        let at = |below: &str| root.join(below).display().to_string();
        let libraries = [
            "lib/x86_64-linux-gnu",
            "usr/lib/x86_64-linux-gnu",
            "usr/lib/x86_64-linux-gnu/pulseaudio",
        ];
        Ok(Self {
            modules: Some(root.join("usr/lib/x86_64-linux-gnu/qemu")),
            program: root.join("lib64/ld-linux-x86-64.so.2"),
            leading: vec![
                "--library-path".into(),
                libraries.map(at).join(":"),
                at("usr/bin/qemu-system-x86_64"),
                "-L".into(),
                at("usr/share/qemu"),
                "-L".into(),
                at("usr/share/seabios"),
            ],
        })
    }

    /// A command that dies with this process, whatever ends it.
    pub fn command(&self) -> Command {
        let mut command = shell::command("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]);
        command.arg(&self.program).args(&self.leading);
        if let Some(modules) = &self.modules {
            command.env("QEMU_MODULE_DIR", modules);
        }
        command
    }
}

/// By the first number of `QEMU emulator version 10.0.2 (…)`.
fn is_new_enough(qemu: &Path) -> bool {
    let version = shell::output(shell::command(qemu).arg("--version")).unwrap_or_default();
    version
        .split_once("version ")
        .and_then(|(_, rest)| rest.split('.').next()?.parse::<u32>().ok())
        .is_some_and(|major| major >= OLDEST_QEMU)
}

/// A shell and its tools in one file without libraries.
pub fn busybox(archive: &mut Archive) -> Result<PathBuf> {
    let unpacked = archive.unpack(&Wanted {
        name: "busybox",
        suites: &[HOME],
        package: "busybox-static",
        with: |_| false,
    })?;
    Ok(unpacked.root.join("bin/busybox"))
}

/// A suite's kernel for virtual machines: its image and its modules.
pub fn kernel(archive: &mut Archive, name: &str, suites: &[&str]) -> Result<Unpacked> {
    // The package of that name is empty and depends on the real ones.
    let with = |package: &str| {
        ["linux-image-", "linux-binary-", "linux-modules-"]
            .iter()
            .any(|part| package.starts_with(part))
    };
    archive
        .unpack(&Wanted {
            name,
            suites,
            package: "linux-image-cloud-amd64",
            with,
        })
        .with_context(|| format!("Linux {name}"))
}
