//! `bench`: builds the release agent and the benchmark (crate `bench/`), and becomes the latter.

use std::ffi::OsString;

use anyhow::Result;

use crate::{privileges, setup, shell};

const NAMES: [&str; 5] = ["l4", "l7", "start", "apps", "scale"];

/// Runs the benchmarks that are named, or the first three; `arguments` go to the benchmark.
pub fn run(arguments: &[OsString]) -> Result<()> {
    let asks = |word: &str| arguments.iter().any(|argument| argument == word);
    let asks_help = asks("--help") || asks("-h");
    if !asks_help {
        privileges::require()?;
    }
    setup::run()?;
    let release = shell::target_dir().join("release");
    let mut bench = shell::command(release.join("mesh-bench"));
    if !asks_help && (asks("l7") || NAMES.iter().all(|name| !asks(name))) {
        bench.env("ZEROHOP_BENCH_ENVOY", setup::for_l7()?);
    }
    if !asks_help && asks("apps") {
        setup::for_apps()?;
    }
    println!("build: the agent, the lab and the benchmark (release profile)");
    let mut cargo = shell::cargo();
    cargo.args(["build", "--release", "--bins"]);
    cargo.args([
        "--package",
        "mesh-userspace",
        "--package",
        "mesh-tests",
        "--package",
        "mesh-bench",
    ]);
    shell::run(&mut cargo)?;
    shell::become_command(bench.env("ZEROHOP_BIN_DIR", release).args(arguments))
}
