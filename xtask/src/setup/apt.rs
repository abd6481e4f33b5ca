//! Debian and Ubuntu packages.

use anyhow::{Context, Result, bail};

use super::installing;
use crate::{privileges, shell};

/// Packages that are services would start when installed: a policy says no while apt runs, and goes
/// again with the shell, whatever ends it.
const INSTALL: &str = r#"
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' INT TERM
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod 755 "$policy"
fi
log=$(mktemp)
if ! { apt-get update -qq && apt-get install -y -qq --no-install-recommends "$@"; } > "$log" 2>&1; then
    tail -n 30 "$log" >&2
    echo "(all of it: $log)" >&2
    exit 1
fi
rm -f "$log"
"#;

/// Installs the packages; where that is not for us to do, the error has the command.
pub fn install(packages: &[&str]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let list = packages.join(" ");
    let by_hand =
        format!("sudo apt-get update && sudo apt-get install -y --no-install-recommends {list}");
    if shell::find("apt-get").is_none() {
        bail!("these Debian packages are missing, and there is no apt-get to install them: {list}");
    }
    if !privileges::is_root() {
        bail!("missing packages, and not root to install them. Run:\n  {by_hand}");
    }
    installing("packages", &list);
    shell::run(
        shell::command("sh")
            .args(["-c", INSTALL, "sh"])
            .args(packages)
            .env("DEBIAN_FRONTEND", "noninteractive"),
    )
    .with_context(|| format!("could not install packages. To see why, run:\n  {by_hand}"))
}

/// Whether apt knows a package that can be installed. A fresh machine has no lists to know it from:
/// they are fetched, by root.
pub fn offers(package: &str) -> bool {
    if shell::find("apt-cache").is_none() {
        return false;
    }
    if !has_candidate(package) && privileges::is_root() {
        installing("package lists", &format!("apt knows no {package} yet"));
        // Without a network the lists stay as they are, and so does the answer.
        let _ = shell::run(shell::command("apt-get").args(["update", "-qq"]));
    }
    has_candidate(package)
}

fn has_candidate(package: &str) -> bool {
    let policy = shell::output(
        shell::command("apt-cache")
            .args(["policy", package])
            .env("LC_ALL", "C"),
    );
    policy.is_ok_and(|text| {
        let candidate = text
            .lines()
            .find_map(|line| line.trim().strip_prefix("Candidate: "));
        candidate.is_some_and(|version| version != "(none)")
    })
}
