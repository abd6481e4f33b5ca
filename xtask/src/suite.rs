//! `test`: every test of the workspace, and one line at the end that counts them.

use std::ffi::OsString;
use std::fmt;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::binaries::{self, LAB_PROFILE};
use crate::{privileges, setup, shell};

/// How many tests ended how, over all test binaries.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
    skipped: u64,
}

impl Tally {
    /// Adds what one test binary reports at its end:
    /// `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.1s`.
    fn add(&mut self, line: &str) {
        let Some(result) = line.strip_prefix("test result: ") else {
            return;
        };
        let counts = result.split_once(". ").map_or(result, |(_, counts)| counts);
        for part in counts.split(';') {
            let mut words = part.split_whitespace();
            let (Some(Ok(count)), Some(what)) = (words.next().map(str::parse::<u64>), words.next())
            else {
                continue;
            };
            match what {
                "passed" => self.passed += count,
                "failed" => self.failed += count,
                "ignored" => self.skipped += count,
                _ => {}
            }
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 {
            write!(f, ", {} skipped", self.skipped)?;
        }
        Ok(())
    }
}

/// Runs the tests; `arguments` go to `cargo test`.
pub fn run(arguments: &[OsString]) -> Result<()> {
    privileges::require()?;
    setup::run()?;
    binaries::build_lab()?;
    let mut cargo = shell::cargo();
    cargo
        .args([
            "test",
            "--workspace",
            "--profile",
            LAB_PROFILE,
            "--no-fail-fast",
        ])
        .args(arguments);
    cargo.env("ZEROHOP_BIN_DIR", shell::target_dir().join(LAB_PROFILE));
    println!("test: {}", shell::line(&cargo));
    let mut child = cargo
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start cargo")?;
    let mut tally = Tally::default();
    let output = child.stdout.take().expect("invariant: stdout is a pipe");
    for line in BufReader::new(output).split(b'\n') {
        let line = line.context("cannot read what cargo prints")?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        tally.add(&line);
    }
    let status = child.wait().context("cannot wait for cargo")?;
    if !status.success() && tally.failed == 0 {
        eprintln!("cargo test ended with {status} though no test failed: see above");
        tally.failed = 1;
    }
    if tally.failed > 0 {
        println!("{tally}");
        std::process::exit(1);
    }
    if tally.passed == 0 {
        bail!("no test ran");
    }
    println!("{tally}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_all_binaries_are_summed() {
        let mut tally = Tally::default();
        tally.add("running 4 tests");
        tally.add("test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.10s");
        tally.add("test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s");
        assert_eq!(
            tally,
            Tally {
                passed: 4,
                failed: 2,
                skipped: 1
            }
        );
        assert_eq!(tally.to_string(), "4 passed, 2 failed, 1 skipped");
    }

    #[test]
    fn nothing_skipped_is_not_mentioned() {
        let mut tally = Tally::default();
        tally.add("test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s");
        assert_eq!(tally.to_string(), "3 passed, 0 failed");
    }
}
