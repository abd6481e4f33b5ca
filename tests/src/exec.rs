//! Into a pod of a lab that is up: by the state file that [`crate::Lab::publish`] wrote.

use std::convert::Infallible;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::host::{self, STATE_DIR};
use crate::pod;

/// Replaces this process by `command`, inside the pod `pod` of the lab `lab` (the only one that is
/// up where `None`). The process must have one thread. Returns only if that fails.
pub fn exec(lab: Option<&str>, pod: &str, command: &[String]) -> Result<Infallible> {
    host::require_privileges()?;
    ensure!(!command.is_empty(), "no command");
    let state = find_lab(lab)?;
    let entry = find_pod(&state, pod)?;
    let text = |key: &str| {
        entry[key]
            .as_str()
            .with_context(|| format!("the state of the lab has no {key} for {pod}"))
    };
    pod::open_jail(
        Path::new(text("cgroup")?),
        text("netns")?,
        Path::new(text("hosts")?),
    )?
    .enter()
    .with_context(|| format!("enter the pod {pod}"))?;
    let error = Command::new(&command[0]).args(&command[1..]).exec();
    Err(error).with_context(|| format!("run `{}`", command[0]))
}

/// The state of the lab `lab`, or of the only one there is.
fn find_lab(lab: Option<&str>) -> Result<Value> {
    let entries = fs::read_dir(STATE_DIR).into_iter().flatten().flatten();
    let files: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        })
        .filter(|path| lab.is_none() || path.file_stem().and_then(|stem| stem.to_str()) == lab)
        .collect();
    let [file] = files.as_slice() else {
        if files.is_empty() {
            bail!("no lab is up: `cargo xtask demo --stay` leaves one up");
        }
        bail!("several labs are up, name one with --lab: {files:?}");
    };
    let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("read {}", file.display()))
}

/// The pod by `namespace/name`, by name, or by the app of its first version.
fn find_pod<'a>(state: &'a Value, name: &str) -> Result<&'a Value> {
    let pods = state["pods"]
        .as_object()
        .context("the state of the lab names no pods")?;
    let guesses = [
        name.to_owned(),
        format!("default/{name}"),
        format!("default/{name}-v1"),
    ];
    guesses
        .iter()
        .find_map(|guess| pods.get(guess))
        .with_context(|| {
            let names: Vec<_> = pods.keys().collect();
            format!("the lab has no pod {name}, but {names:?}")
        })
}
