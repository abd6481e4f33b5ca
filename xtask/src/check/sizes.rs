//! No file grows past what one reads in a sitting, unless it was judged.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::shell;

const LIMIT: usize = 500;
/// Tests are read one at a time.
const TESTS_LIMIT: usize = 700;

/// Files that may be longer, and why.
const JUDGED: [(&str, &str); 1] = [(
    "mesh-userspace/src/config/model.rs",
    "the vocabulary of all resources: declarations, no logic",
)];

/// The lengths of all Rust files of the project.
pub fn check() -> Result<()> {
    let mut too_long = Vec::new();
    for path in rust_files(shell::root())? {
        let lines = fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?
            .lines()
            .count();
        let name = path
            .strip_prefix(shell::root())
            .unwrap_or(&path)
            .to_string_lossy()
            .into_owned();
        let limit = if name.contains("/tests/") || name.ends_with("tests.rs") {
            TESTS_LIMIT
        } else {
            LIMIT
        };
        if lines > limit && JUDGED.iter().all(|(judged, _)| *judged != name) {
            too_long.push(format!("{name} ({lines} lines)"));
        }
    }
    if !too_long.is_empty() {
        bail!(
            "longer than {LIMIT} lines (tests: {TESTS_LIMIT}) and not judged in xtask/src/check/sizes.rs: {}",
            too_long.join(", ")
        );
    }
    Ok(())
}

/// Every `.rs` below a folder, build output and hidden folders left out, sorted.
pub fn rust_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let (mut folders, mut files) = (vec![dir.to_path_buf()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in
            fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?
        {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if path.is_dir() {
                if name != "target" && !name.starts_with('.') {
                    folders.push(path);
                }
            } else if name.ends_with(".rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}
