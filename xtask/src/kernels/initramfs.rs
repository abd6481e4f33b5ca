//! What the guest is made of: this machine's own tools and libraries, the project's binaries, its tests.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::cpio::Cpio;
use super::image::Image;
use super::scenarios::{self, SCENARIOS};
use crate::binaries::LAB_PROFILE;
use crate::shell;

/// The guest's first process.
const INIT: &str = include_str!("init.sh");
/// What the lab calls and busybox has in another form.
const HOST_TOOLS: [&str; 5] = ["ip", "getent", "setpriv", "unshare", "mount"];
const OWN_BINARIES: [&str; 3] = ["mesh-agent", "meshctl", "lab-peer"];

/// The part of the guest that is the same for every kernel.
pub struct Userland {
    busybox: PathBuf,
    binaries: Vec<(String, PathBuf)>,
}

impl Userland {
    /// Builds the project's binaries and tests.
    pub fn build(busybox: PathBuf) -> Result<Self> {
        println!(
            "build: the agent, meshctl, the lab and its tests (the first time takes some minutes)"
        );
        let mut cargo = shell::cargo();
        // All of the workspace, as `test` does: what either has built serves the other.
        cargo.args(["build", "--workspace", "--profile", LAB_PROFILE]);
        for name in OWN_BINARIES {
            cargo.args(["--bin", name]);
        }
        shell::run(&mut cargo)?;
        let lab = shell::target_dir().join(LAB_PROFILE);
        let mut binaries: Vec<(String, PathBuf)> = OWN_BINARIES
            .iter()
            .map(|name| (format!("/zerohop/bin/{name}"), lab.join(name)))
            .collect();
        for (name, path) in test_binaries()? {
            binaries.push((format!("/zerohop/tests/{name}"), path));
        }
        for tool in HOST_TOOLS {
            let path = shell::find(tool).with_context(|| format!("no `{tool}` in PATH"))?;
            binaries.push((format!("/usr/bin/{tool}"), path));
        }
        Ok(Self { busybox, binaries })
    }

    /// The guest's file system, with a kernel's modules and the scenarios whose name holds `filter`.
    pub fn archive(&self, image: &Image, filter: &str) -> Result<Vec<u8>> {
        let mut cpio = Cpio::default();
        for folder in ["dev", "proc", "sys", "run", "tmp", "root", "var"] {
            cpio.folder(folder);
        }
        cpio.program("/init", INIT.as_bytes());
        cpio.program("/bin/busybox", &read(&self.busybox)?);
        cpio.link("/bin/sh", "busybox");
        cpio.file(
            "/etc/passwd",
            b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n",
        );
        cpio.file("/etc/group", b"root:x:0:\nnogroup:x:65534:\n");
        cpio.file("/etc/nsswitch.conf", b"hosts: files\n");
        cpio.file("/etc/hosts", b"127.0.0.1 localhost\n");
        cpio.file("/etc/resolv.conf", b"");
        for (name, path) in &self.binaries {
            cpio.program(name, &stripped(path)?);
            for library in libraries(path)? {
                if !cpio.has(&library) {
                    cpio.program(&library, &read(Path::new(&library))?);
                }
            }
        }
        let mut order = String::new();
        for (name, bytes) in &image.modules {
            cpio.file(&format!("/zerohop/modules/{name}.ko"), bytes);
            order.push_str(name);
            order.push('\n');
        }
        cpio.file("/zerohop/modules/order", order.as_bytes());
        cpio.file("/zerohop/scenarios", scenarios::list(filter).as_bytes());
        Ok(cpio.finish())
    }
}

/// The tests' executables, as cargo names them.
fn test_binaries() -> Result<Vec<(String, PathBuf)>> {
    let mut names: Vec<&str> = SCENARIOS.iter().map(|one| one.binary).collect();
    names.dedup();
    let mut cargo = shell::cargo();
    cargo.args(["test", "--no-run", "--workspace", "--profile", LAB_PROFILE]);
    cargo.args(["--message-format", "json"]);
    for name in &names {
        cargo.args(["--test", name]);
    }
    let messages = shell::output(&mut cargo)?;
    let mut found = Vec::new();
    for line in messages.lines() {
        let Ok(message) = serde_json::from_str::<Value>(line) else {
            continue;
        };
        let name = message["target"]["name"].as_str().unwrap_or_default();
        if let Some(executable) = message["executable"].as_str()
            && message["target"]["kind"][0] == "test"
            && names.contains(&name)
        {
            found.push((name.to_owned(), PathBuf::from(executable)));
        }
    }
    ensure!(
        found.len() == names.len(),
        "cargo named the tests {found:?}, not all of {names:?}"
    );
    Ok(found)
}

/// The libraries of a program and its loader, by `ldd`.
fn libraries(program: &Path) -> Result<Vec<String>> {
    let output = shell::command("ldd")
        .arg(program)
        .output()
        .context("cannot start `ldd`")?;
    if !output.status.success() {
        bail!("`ldd {}` failed", program.display());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().filter_map(library).collect())
}

/// `NAME => PATH (ADDRESS)` or `PATH (ADDRESS)`; the kernel's own has no path.
fn library(line: &str) -> Option<String> {
    let path = line.split_once(" => ").map_or(line, |(_, path)| path);
    let path = path.split_whitespace().next()?;
    path.starts_with('/').then(|| path.to_owned())
}

/// A program without its debugging information, which is most of it.
fn stripped(path: &Path) -> Result<Vec<u8>> {
    let Some(strip) = shell::find("strip") else {
        return read(path);
    };
    let copy = shell::target_dir().join("kernels").join("stripped");
    shell::run(shell::command(strip).arg("-o").arg(&copy).arg(path))?;
    read(&copy)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_what_ldd_prints() {
        assert_eq!(library("\tlinux-vdso.so.1 (0x00007ffd)"), None);
        assert_eq!(
            library("\tlibc.so.6 => /lib/libc.so.6 (0x00007f)").as_deref(),
            Some("/lib/libc.so.6")
        );
        assert_eq!(
            library("\t/lib64/ld.so.2 (0x00007f)").as_deref(),
            Some("/lib64/ld.so.2")
        );
    }
}
