//! docs/bpf-maps.md lists every map that the programs declare.

use std::fs;

use anyhow::{Context, Result, bail};

use super::sizes::rust_files;
use crate::shell;

/// Every `#[btf_map]` of the eBPF crate against the page.
pub fn check() -> Result<()> {
    let page = shell::root().join("docs/bpf-maps.md");
    let listed =
        fs::read_to_string(&page).with_context(|| format!("cannot read {}", page.display()))?;
    let mut names = Vec::new();
    for file in rust_files(&shell::root().join("mesh-ebpf/src"))? {
        names.extend(declared(&fs::read_to_string(file)?));
    }
    if names.is_empty() {
        bail!("found no #[btf_map] in mesh-ebpf/src: has the way they are declared changed?");
    }
    let missing: Vec<&String> = names
        .iter()
        .filter(|name| !listed.contains(&format!("`{name}`")))
        .collect();
    if !missing.is_empty() {
        bail!("docs/bpf-maps.md does not mention {missing:?}");
    }
    Ok(())
}

/// The names of the maps in a source: `#[btf_map(name = "X")]`, or the static's own name.
fn declared(source: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut lines = source.lines().map(str::trim);
    while let Some(line) = lines.next() {
        let Some(attribute) = line.strip_prefix("#[btf_map") else {
            continue;
        };
        let named = attribute.split('"').nth(1).map(str::to_owned);
        let name = named.or_else(|| lines.find_map(static_name));
        names.extend(name);
    }
    names
}

fn static_name(line: &str) -> Option<String> {
    let (_, rest) = line.split_once("static ")?;
    let name = rest.trim_start_matches("mut ").split(':').next()?;
    Some(name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_of_naming_are_found() {
        let source = "#[btf_map(name = \"PAIRS\")]\nstatic A: X = 1;\n\n#[btf_map]\n// why\npub static mut LIVE: Y = 2;\n";
        assert_eq!(declared(source), ["PAIRS", "LIVE"]);
    }
}
