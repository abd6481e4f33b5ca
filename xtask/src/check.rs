//! `check`: what CI checks besides the tests. Every check runs; the failures are listed at the end.

mod dependencies;
mod ebpf;
mod maps;
mod sizes;

use std::time::Instant;

use anyhow::{Result, bail};

use crate::{setup, shell};

type Check = (&'static str, fn() -> Result<()>);

/// In order of cost: what is cheap says no first.
const CHECKS: [Check; 9] = [
    ("format", format),
    ("format of the eBPF crate", ebpf::format),
    ("file sizes", sizes::check),
    ("BPF maps are documented", maps::check),
    ("unused dependencies", dependencies::unused),
    ("licences, bans, sources (cargo-deny)", dependencies::deny),
    ("clippy", clippy),
    ("clippy of the eBPF crate", ebpf::clippy),
    ("docs", docs),
];

/// Runs all checks.
pub fn run() -> Result<()> {
    setup::run()?;
    setup::cargo_deny()?;
    let mut failed = Vec::new();
    for (name, check) in CHECKS {
        println!("check: {name}");
        let start = Instant::now();
        match check() {
            Ok(()) => println!("  ok in {:.1} s", start.elapsed().as_secs_f64()),
            Err(error) => {
                println!("  FAILED: {error:#}");
                failed.push(name);
            }
        }
    }
    if !failed.is_empty() {
        bail!(
            "{} of {} checks failed: {}",
            failed.len(),
            CHECKS.len(),
            failed.join("; ")
        );
    }
    println!("check: all {} hold", CHECKS.len());
    Ok(())
}

fn format() -> Result<()> {
    shell::run(shell::cargo().args(["fmt", "--all", "--check"]))
}

fn clippy() -> Result<()> {
    let mut cargo = shell::cargo();
    cargo.args([
        "clippy",
        "--quiet",
        "--locked",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]);
    shell::run(&mut cargo)
}

fn docs() -> Result<()> {
    let mut cargo = shell::cargo();
    cargo
        .args([
            "doc",
            "--quiet",
            "--locked",
            "--workspace",
            "--no-deps",
            "--document-private-items",
        ])
        .env(
            "RUSTDOCFLAGS",
            "-D warnings -A rustdoc::private_intra_doc_links",
        );
    shell::run(&mut cargo)
}
