//! Where the project's own binaries lie.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

/// The variable that names the folder of the binaries, for those who built them elsewhere.
pub const BIN_DIR: &str = "ZEROHOP_BIN_DIR";

/// The path of the binary `name`: below `ZEROHOP_BIN_DIR`, else beside the current executable
/// (a test's own folder is `deps`, one further down).
pub fn find(name: &str) -> Result<PathBuf> {
    let folders = if let Some(dir) = std::env::var_os(BIN_DIR) {
        vec![PathBuf::from(dir)]
    } else {
        let current = std::env::current_exe().context("find the current executable")?;
        current
            .ancestors()
            .skip(1)
            .take(2)
            .map(PathBuf::from)
            .collect()
    };
    if let Some(path) = folders
        .iter()
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
    {
        return Ok(path);
    }
    bail!(
        "no binary `{name}` in {folders:?}: build it with `cargo build --workspace --bins` in the \
         same profile, or name its folder in {BIN_DIR}"
    )
}
