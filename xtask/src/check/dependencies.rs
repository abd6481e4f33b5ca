//! Dependencies: none unused, and none that deny.toml refuses.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::sizes::rust_files;
use crate::shell;

/// Licences, banned crates and sources, by deny.toml.
pub fn deny() -> Result<()> {
    let mut deny = shell::command("cargo");
    deny.args([
        "deny",
        "--log-level",
        "error",
        "check",
        "licenses",
        "bans",
        "sources",
    ]);
    shell::run(&mut deny)
}

/// Every declared dependency is named somewhere in its crate's sources. A crate that is there for
/// its features alone is listed in `[package.metadata.cargo-machete] ignored`, as cargo-machete
/// has it.
pub fn unused() -> Result<()> {
    let mut unused = Vec::new();
    for manifest in ["Cargo.toml", "mesh-ebpf/Cargo.toml"] {
        let mut cargo = shell::cargo();
        cargo.args([
            "metadata",
            "--no-deps",
            "--format-version",
            "1",
            "--manifest-path",
            manifest,
        ]);
        let metadata: Value =
            serde_json::from_str(&shell::output(&mut cargo)?).context("cargo metadata")?;
        let packages = metadata["packages"]
            .as_array()
            .context("cargo metadata has no packages")?;
        let libraries = packages.iter().filter_map(library_name).collect();
        for package in packages {
            unused.extend(unused_in(package, &libraries)?);
        }
    }
    if !unused.is_empty() {
        bail!("declared and not used: {}", unused.join(", "));
    }
    Ok(())
}

/// A package's name and what its library is called in code.
fn library_name(package: &Value) -> Option<(String, String)> {
    let library = package["targets"]
        .as_array()?
        .iter()
        .find(|target| target["kind"][0] == "lib")?;
    Some((
        package["name"].as_str()?.to_owned(),
        library["name"].as_str()?.to_owned(),
    ))
}

fn unused_in(package: &Value, libraries: &BTreeMap<String, String>) -> Result<Vec<String>> {
    let name = package["name"]
        .as_str()
        .context("a package without a name")?;
    let manifest = PathBuf::from(
        package["manifest_path"]
            .as_str()
            .context("a package without a manifest")?,
    );
    let dir = manifest.parent().context("a manifest without a folder")?;
    let source = sources(dir)?;
    let ignored = &package["metadata"]["cargo-machete"]["ignored"];
    let mut unused = Vec::new();
    for dependency in package["dependencies"].as_array().into_iter().flatten() {
        let crate_name = dependency["name"]
            .as_str()
            .context("a dependency without a name")?;
        let in_code = dependency["rename"]
            .as_str()
            .or(libraries.get(crate_name).map(String::as_str));
        let in_code = in_code.unwrap_or(crate_name).replace('-', "_");
        let is_ignored = ignored
            .as_array()
            .into_iter()
            .flatten()
            .any(|ignored| ignored == crate_name);
        if !is_ignored && !mentions(&source, &in_code) {
            unused.push(format!("{crate_name} in {name}"));
        }
    }
    Ok(unused)
}

/// A crate's code, comments left out.
fn sources(dir: &Path) -> Result<String> {
    let mut all = String::new();
    for file in rust_files(dir)? {
        let text =
            fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        for line in text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
        {
            all.push_str(line);
            all.push('\n');
        }
    }
    Ok(all)
}

/// Whether the code names a crate: the word followed by `::`, or alone in `use` and `extern crate`.
fn mentions(source: &str, crate_name: &str) -> bool {
    source.match_indices(crate_name).any(|(at, _)| {
        let (before, after) = (&source[..at], &source[at + crate_name.len()..]);
        let starts_word = !before.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let imported = before.ends_with("use ") || before.ends_with("extern crate ");
        starts_word && (after.starts_with("::") || imported && after.starts_with([';', ' ']))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_or_an_import_is_a_mention() {
        assert!(mentions("let x = libc::getuid();", "libc"));
        assert!(mentions("use libc as c;", "libc"));
        assert!(!mentions("let mylibc::x;", "libc"));
        assert!(!mentions("let libc = 1;", "libc"));
        assert!(!mentions("use libc_extra::x;", "libc"));
    }
}
