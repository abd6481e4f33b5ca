//! What a guest's account means, and the table of all of them.

use std::fmt::Write as _;

use serde_json::Value;

use super::guest::Account;
use super::{Expected, Kernel};

/// What the refusal of an old kernel must name.
const MEND: &str = "Linux 6.1 or later";
/// The exit statuses of `meshctl check` for "no", and of an agent whose kernel lacks something.
const CHECK_SAYS_NO: i32 = 1;
const KERNEL_LACKS: i32 = 69;

/// How a kernel did.
pub struct Report {
    /// What it is called here.
    pub name: &'static str,
    release: String,
    programs: (usize, usize),
    largest: Option<(String, u64)>,
    scenarios: (usize, usize),
    skipped: usize,
    acceleration: &'static str,
    /// What the check warns of or fails for.
    differences: Vec<String>,
    refusal: Option<String>,
    /// What is not as it must be.
    pub problems: Vec<String>,
}

impl Report {
    /// Judges what a guest said.
    pub fn new(kernel: &Kernel, account: &Account) -> Self {
        let (findings, status) = match &account.check {
            Some((findings, status)) => (findings.as_slice(), Some(*status)),
            None => (&[][..], None),
        };
        let programs = findings
            .iter()
            .filter(|finding| text(finding, "name").starts_with("program "));
        let loaded = programs.clone().filter(|finding| is_ok(finding)).count();
        let largest = programs
            .clone()
            .filter_map(|program| {
                let name = text(program, "name").trim_start_matches("program ");
                Some((name.to_owned(), program["verifiedInstructions"].as_u64()?))
            })
            .max_by_key(|(_, instructions)| *instructions);
        let differences = findings
            .iter()
            .filter(|finding| !is_ok(finding))
            .map(|finding| format!("{}: {}", text(finding, "name"), text(finding, "detail")))
            .collect();
        let passed = account.scenarios.iter().filter(|one| one.passed).count();
        let mut report = Self {
            name: kernel.name,
            release: account.release.clone(),
            programs: (loaded, programs.count()),
            largest,
            scenarios: (passed, account.scenarios.len()),
            skipped: account.skipped.len(),
            acceleration: match accelerates(findings) {
                Some(true) => "on",
                Some(false) => "off",
                None => "-",
            },
            differences,
            refusal: account
                .agent
                .as_ref()
                .map(|(said, _)| said.trim().to_owned()),
            problems: account.broken.clone(),
        };
        match kernel.expected {
            Expected::Accelerates => report.judge_serving(status, account, "on"),
            Expected::Serves => report.judge_serving(status, account, "off"),
            Expected::Refused => report.judge_refusal(status, account),
        }
        report
    }

    fn judge_serving(&mut self, check: Option<i32>, account: &Account, acceleration: &str) {
        if self.acceleration != acceleration {
            let found = self.acceleration;
            self.problems
                .push(format!("acceleration is {found}, expected {acceleration}"));
        }
        if check != Some(0) {
            self.problems
                .push(format!("meshctl check ended with {check:?}"));
        }
        if self.programs.0 < self.programs.1 || self.programs.1 == 0 {
            self.problems.push("not every program loads".into());
        }
        if account.scenarios.is_empty() {
            self.problems.push("no scenario ran".into());
        }
        for scenario in account.scenarios.iter().filter(|one| !one.passed) {
            self.problems.push(format!("{} failed", scenario.name));
        }
    }

    fn judge_refusal(&mut self, check: Option<i32>, account: &Account) {
        if check != Some(CHECK_SAYS_NO) {
            self.problems.push(format!(
                "meshctl check ended with {check:?}, not {CHECK_SAYS_NO}"
            ));
        }
        let mended = |finding: &Value| text(finding, "mend").contains(MEND);
        let findings = account.check.iter().flat_map(|(findings, _)| findings);
        if !findings.clone().any(mended) {
            self.problems
                .push(format!("meshctl check does not say {MEND:?}"));
        }
        match &account.agent {
            Some((said, KERNEL_LACKS)) if said.contains(MEND) => {}
            other => self
                .problems
                .push(format!("the agent refused it otherwise: {other:?}")),
        }
        if account.pins != Some(0) {
            self.problems
                .push(format!("the agent left pins: {:?}", account.pins));
        }
    }
}

/// The table, in Markdown, then what each kernel said and what is wrong.
pub fn table(reports: &[Report]) -> String {
    let mut lines = String::from(
        "| kernel | release | programs loaded | largest program | acceleration | scenarios | as expected |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for report in reports {
        let largest = report
            .largest
            .as_ref()
            .map_or("-".into(), |(name, size)| format!("{name}: {size}"));
        let scenarios = match report.refusal {
            Some(_) => "refused".into(),
            None if report.skipped > 0 => format!(
                "{} of {} passed; {} need acceleration",
                report.scenarios.0, report.scenarios.1, report.skipped
            ),
            None => format!("{} of {} passed", report.scenarios.0, report.scenarios.1),
        };
        let verdict = if report.problems.is_empty() {
            "yes"
        } else {
            "NO"
        };
        let _ = writeln!(
            lines,
            "| {} | {} | {} of {} | {largest} | {} | {scenarios} | {verdict} |",
            report.name, report.release, report.programs.0, report.programs.1, report.acceleration,
        );
    }
    for report in reports {
        let said = [
            ("differs", report.differences.as_slice()),
            ("agent", report.refusal.as_slice()),
            ("WRONG", report.problems.as_slice()),
        ];
        for (kind, items) in said {
            for item in items {
                let _ = write!(lines, "\n{} {kind}: {item}", report.name);
            }
        }
    }
    lines
}

fn text<'a>(finding: &'a Value, key: &str) -> &'a str {
    finding[key].as_str().unwrap_or_default()
}

/// What the check says of acceleration; `None` where it did not come that far.
fn accelerates(findings: &[Value]) -> Option<bool> {
    let verdict = |finding: &&Value| text(finding, "name") == "acceleration";
    findings.iter().find(verdict).map(is_ok)
}

fn is_ok(finding: &Value) -> bool {
    text(finding, "outcome") == "ok"
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kernels::guest::Scenario;

    fn kernel(expected: Expected) -> Kernel {
        Kernel {
            name: "k",
            suites: &[],
            expected,
        }
    }

    fn program(outcome: &str) -> Value {
        json!({"name": "program a", "outcome": outcome, "detail": "why", "mend": MEND, "verifiedInstructions": 7})
    }

    fn accelerating(outcome: &str) -> Value {
        json!({"name": "acceleration", "outcome": outcome, "detail": "why"})
    }

    #[test]
    fn a_kernel_serves_where_all_loads_and_passes() {
        let mut account = Account {
            check: Some((vec![program("ok"), accelerating("ok")], 0)),
            scenarios: vec![Scenario {
                name: "tcp::a".into(),
                passed: true,
            }],
            ..Account::default()
        };
        let report = Report::new(&kernel(Expected::Accelerates), &account);
        assert!(report.problems.is_empty(), "{:?}", report.problems);
        assert!(table(&[report]).contains("| 1 of 1 | a: 7 | on | 1 of 1 passed | yes |"));
        account.scenarios[0].passed = false;
        let report = Report::new(&kernel(Expected::Accelerates), &account);
        assert_eq!(report.problems, ["tcp::a failed"]);
    }

    #[test]
    fn a_change_of_what_accelerates_is_seen() {
        let account = Account {
            check: Some((vec![program("ok"), accelerating("warn")], 0)),
            scenarios: vec![Scenario {
                name: "tcp::a".into(),
                passed: true,
            }],
            skipped: vec!["streams::b".into()],
            ..Account::default()
        };
        let report = Report::new(&kernel(Expected::Serves), &account);
        assert!(report.problems.is_empty(), "{:?}", report.problems);
        let report = Report::new(&kernel(Expected::Accelerates), &account);
        assert_eq!(report.problems, ["acceleration is off, expected on"]);
    }

    #[test]
    fn nothing_seen_is_not_good() {
        for expected in [Expected::Accelerates, Expected::Serves, Expected::Refused] {
            assert!(
                !Report::new(&kernel(expected), &Account::default())
                    .problems
                    .is_empty()
            );
        }
    }

    #[test]
    fn a_refusal_has_its_status_its_mend_and_leaves_nothing() {
        let refused = |said: &str, pins| Account {
            check: Some((vec![program("fail")], 1)),
            agent: Some((said.into(), 69)),
            pins: Some(pins),
            ..Account::default()
        };
        let problems = |account| {
            Report::new(&kernel(Expected::Refused), &account)
                .problems
                .len()
        };
        assert_eq!(problems(refused("boot Linux 6.1 or later", 0)), 0);
        assert_eq!(problems(refused("no", 0)), 1);
        assert_eq!(problems(refused("boot Linux 6.1 or later", 3)), 1);
    }
}
