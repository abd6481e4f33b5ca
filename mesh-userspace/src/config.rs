//! Text to typed objects: documents with file and line, or a clear error. Knows no kernel and no mesh.
//!
//! The way of a manifest: [`folder`] reads the files and sees them change, [`yaml`] makes trees of
//! their text, [`document`] tells which object each tree is about, [`kinds`] reads it through the
//! cursors of [`fields`] into the types of [`model`], and [`store`] keeps the last good version of
//! every object.

pub mod document;
pub mod fields;
pub mod folder;
pub mod kinds;
pub mod model;
pub mod store;
#[cfg(test)]
mod tests;
pub mod yaml;

use std::path::PathBuf;

pub use folder::{FolderError, FolderSource, SourceFile, Watcher, watch};
pub use store::{Outcome, Store};

/// Validates files and folders without an agent: what each document would become on its own.
///
/// What only shows across objects (an unknown host, a dead route) is not found here; that takes
/// the objects of [`load_paths`].
pub fn analyze_files(paths: &[PathBuf]) -> Vec<model::Report> {
    load_paths(paths).reports
}

/// Reads files and folders once. A path that can't be read becomes a rejected report.
pub fn load_paths(paths: &[PathBuf]) -> Outcome {
    let files = paths
        .iter()
        .flat_map(|path| folder::read_path(path))
        .collect();
    Store::default().load(files)
}
