//! `verify`: what each program costs the verifier, against a budget that is kept in a file.
//!
//! The kernel gives up on a program after a million instructions; one that grows towards that is seen
//! here first. The figures are this kernel's: others explore more or fewer paths.

use std::collections::BTreeMap;
use std::fs;
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::{binaries, privileges, setup, shell};

/// `PROGRAM INSTRUCTIONS` a line, below the workspace's root.
const BUDGET: &str = "mesh-ebpf/verifier-budget.txt";

/// Loads every program and compares.
pub fn run() -> Result<()> {
    privileges::require()?;
    setup::run()?;
    println!("build: meshctl (the first time takes some minutes)");
    let mut cargo = shell::cargo();
    cargo.args(["build", "--workspace", "--profile", binaries::LAB_PROFILE]);
    shell::run(cargo.args(["--bin", "meshctl"]))?;
    let mut check = binaries::lab_binary("meshctl");
    check.args(["check", "-o", "json"]).stderr(Stdio::inherit());
    // Its status is about all of this machine; whether programs load is said below.
    let output = check.output().context("cannot start meshctl")?;
    let findings: Vec<Value> = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("`{}` printed no JSON", shell::line(&check)))?;
    let file = shell::root().join(BUDGET);
    let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    let verified = verified(&findings)?;
    let over = judge(&budgets(&text)?, &verified)?;
    if !over.is_empty() {
        bail!(
            "over budget: {}. Make it smaller, or raise the budget in {BUDGET} and say why in the commit",
            over.join(", ")
        );
    }
    Ok(())
}

/// Instructions per program, from what `meshctl check` found.
fn verified(findings: &[Value]) -> Result<BTreeMap<String, u64>> {
    let mut verified = BTreeMap::new();
    for finding in findings {
        let Some(name) = finding["name"]
            .as_str()
            .and_then(|name| name.strip_prefix("program "))
        else {
            continue;
        };
        let instructions = finding["verifiedInstructions"]
            .as_u64()
            .with_context(|| format!("{name}: {}", finding["detail"].as_str().unwrap_or("?")))?;
        verified.insert(name.to_owned(), instructions);
    }
    ensure!(
        !verified.is_empty(),
        "no program was loaded: `meshctl check` says why"
    );
    Ok(verified)
}

fn budgets(text: &str) -> Result<BTreeMap<String, u64>> {
    text.lines()
        .filter(|line| !line.trim().is_empty() && !line.starts_with('#'))
        .map(|line| {
            let (name, instructions) = line.split_once(' ').unwrap_or((line, ""));
            let instructions = instructions.trim().parse();
            Ok((
                name.to_owned(),
                instructions.with_context(|| format!("{BUDGET}: no number in {line:?}"))?,
            ))
        })
        .collect()
}

/// Prints every program; answers with those that are over their budget.
fn judge(budgets: &BTreeMap<String, u64>, verified: &BTreeMap<String, u64>) -> Result<Vec<String>> {
    let without = verified.keys().find(|name| !budgets.contains_key(*name));
    if let Some(name) = without {
        let instructions = verified[name];
        bail!("program {name} ({instructions} instructions) has no budget in {BUDGET}");
    }
    if let Some(name) = budgets.keys().find(|name| !verified.contains_key(*name)) {
        bail!("{BUDGET} has a budget for {name}, and there is no such program");
    }
    println!("{:<24} {:>12} {:>12}", "program", "instructions", "budget");
    let mut over = Vec::new();
    for (name, instructions) in verified {
        let budget = budgets[name];
        let verdict = if *instructions > budget { "  OVER" } else { "" };
        println!("{name:<24} {instructions:>12} {budget:>12}{verdict}");
        if *instructions > budget {
            over.push(format!("{name} by {}", instructions - budget));
        }
    }
    Ok(over)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_program_over_its_budget_is_named() {
        let budgets = budgets("# why\na 10\n\nb   20\n").expect("budgets");
        let verified = |a: u64| {
            verified(&[
                json!({"name": "kernel", "outcome": "ok"}),
                json!({"name": "program a", "verifiedInstructions": a}),
                json!({"name": "program b", "verifiedInstructions": 20}),
            ])
            .expect("figures")
        };
        assert_eq!(
            judge(&budgets, &verified(10)).expect("known"),
            Vec::<String>::new()
        );
        assert_eq!(judge(&budgets, &verified(13)).expect("known"), ["a by 3"]);
    }

    #[test]
    fn programs_and_budgets_are_the_same() {
        let one = |name: &str| BTreeMap::from([(name.to_owned(), 1)]);
        assert!(judge(&one("a"), &one("b")).is_err());
        assert!(judge(&BTreeMap::new(), &one("a")).is_err());
        assert!(judge(&one("a"), &BTreeMap::new()).is_err());
        assert!(verified(&[json!({"name": "program a", "detail": "refused"})]).is_err());
        assert!(budgets("a many").is_err());
    }
}
