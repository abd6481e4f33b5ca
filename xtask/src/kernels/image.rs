//! An unpacked kernel package: the image to boot, and the modules that the lab needs.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::shell;

/// What the lab's wires are made of; they depend on others, which come first.
const NEEDED: [&str; 2] = ["veth", "bridge"];

/// What is booted.
pub struct Image {
    /// The kernel.
    pub vmlinuz: PathBuf,
    /// The modules' names and contents, in the order in which they are to be loaded.
    pub modules: Vec<(String, Vec<u8>)>,
}

impl Image {
    /// Finds them below the root of an unpacked package.
    pub fn find(root: &Path) -> Result<Self> {
        let files = files_below(root)?;
        let vmlinuz = files
            .iter()
            .find(|path| file_name(path).starts_with("vmlinuz"))
            .with_context(|| format!("no vmlinuz below {}", root.display()))?
            .clone();
        let mut modules = Vec::new();
        for name in NEEDED {
            add(&files, name, &mut modules)?;
        }
        Ok(Self { vmlinuz, modules })
    }
}

/// Adds a module after those that it depends on.
fn add(files: &[PathBuf], name: &str, modules: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
    if modules.iter().any(|(added, _)| added == name) {
        return Ok(());
    }
    // File names have dashes where modules' names have underscores.
    let is_it = |path: &&PathBuf| {
        file_name(path)
            .split_once(".ko")
            .is_some_and(|(stem, _)| stem.replace('-', "_") == name)
    };
    let Some(path) = files.iter().find(is_it) else {
        ensure!(
            is_built_in(files, name)?,
            "this kernel has no module {name}, nor is it built in"
        );
        return Ok(());
    };
    let bytes = read(path)?;
    for dependency in dependencies(&bytes) {
        add(files, &dependency, modules)?;
    }
    modules.push((name.to_owned(), bytes));
    Ok(())
}

fn is_built_in(files: &[PathBuf], name: &str) -> Result<bool> {
    let Some(list) = files
        .iter()
        .find(|path| file_name(path) == "modules.builtin")
    else {
        return Ok(false);
    };
    let list = fs::read_to_string(list).with_context(|| format!("read {}", list.display()))?;
    let ending = format!("/{name}.ko");
    Ok(list
        .lines()
        .any(|line| line.replace('-', "_").ends_with(&ending)))
}

/// `depends=a,b` in the section .modinfo: strings that end with a zero byte.
fn dependencies(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|bytes| bytes == KEY) else {
        return Vec::new();
    };
    let value = module[at + KEY.len()..]
        .split(|&byte| byte == 0)
        .next()
        .unwrap_or_default();
    let value = String::from_utf8_lossy(value);
    value
        .split(',')
        .filter(|name| !name.is_empty())
        .map(|name| name.replace('-', "_"))
        .collect()
}

fn read(path: &Path) -> Result<Vec<u8>> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("ko") => fs::read(path).with_context(|| format!("read {}", path.display())),
        Some("xz") => {
            let output = shell::command("xz")
                .args(["--decompress", "--stdout"])
                .arg(path)
                .output()
                .context("cannot start `xz`: install xz-utils")?;
            ensure!(output.status.success(), "cannot unpack {}", path.display());
            Ok(output.stdout)
        }
        _ => bail!("{} is compressed in a way not known here", path.display()),
    }
}

fn file_name(path: &Path) -> &str {
    path.file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default()
}

fn files_below(root: &Path) -> Result<Vec<PathBuf>> {
    let mut folders = vec![root.to_path_buf()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        let entries =
            fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))?;
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_module_depends_on_is_read_from_it() {
        let module = b"\x7fELF..\0license=GPL\0depends=stp,nf-llc\0name=bridge\0";
        assert_eq!(dependencies(module), ["stp", "nf_llc"]);
        assert_eq!(dependencies(b"\0depends=\0name=x\0"), Vec::<String>::new());
    }
}
