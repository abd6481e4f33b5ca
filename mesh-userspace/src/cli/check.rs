//! `meshctl check`: can this machine run the agent? Each line: ok, warn or fail, and the mend.

mod judge;
mod machine;
mod names;
mod programs;

use serde::Serialize;

use super::{
    args::Global,
    error::CliError,
    exit::ExitStatus,
    output::Output,
    table::{Cell, Table, Tone, clean},
};

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What: `cgroup v2`.
    pub name: String,
    /// How it stands.
    pub outcome: Outcome,
    /// What was seen.
    pub detail: String,
    /// What to do; absent where it is ok.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
    /// Instructions that the verifier processed; only of programs that load.
    #[serde(
        rename = "verifiedInstructions",
        skip_serializing_if = "Option::is_none"
    )]
    pub verified_instructions: Option<u32>,
}

/// How a thing stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// As needed.
    Ok,
    /// The agent runs, with less.
    Warn,
    /// The agent cannot run.
    Fail,
}

/// Looks, judges and prints.
pub fn run(global: &Global, out: Output) -> Result<ExitStatus, CliError> {
    let findings = judge::all(&machine::Machine::look(), &global.bpffs, &global.admin);
    let value = serde_json::to_value(&findings)?;
    out.write(&value, |colour| {
        Ok::<_, CliError>(render(&findings, colour))
    })?;
    let failed = findings
        .iter()
        .any(|finding| finding.outcome == Outcome::Fail);
    Ok(if failed {
        ExitStatus::No
    } else {
        ExitStatus::Ok
    })
}

fn render(findings: &[Finding], colour: bool) -> String {
    let mut table = Table::new(["", "CHECK", "FOUND"]);
    for finding in findings {
        let outcome = match finding.outcome {
            Outcome::Ok => Cell::new("ok").tone(Tone::Good),
            Outcome::Warn => Cell::new("warn").tone(Tone::Warning),
            Outcome::Fail => Cell::new("fail").tone(Tone::Bad),
        };
        table.row([
            outcome,
            finding.name.as_str().into(),
            finding.detail.as_str().into(),
        ]);
        if let Some(mend) = &finding.mend {
            table.row([
                "".into(),
                "".into(),
                Cell::new(format!("-> {}", clean(mend))),
            ]);
        }
    }
    table.render(colour, "")
}
