//! Does this kernel take the programs? A line for each.

use super::{Finding, Outcome};
use crate::kernel::{
    loader::LoadError,
    verify::{self, OLDEST_KERNEL, Verified},
};

/// Loads every program and says how it went.
pub fn look() -> Vec<Finding> {
    match verify::programs() {
        Ok(programs) => programs.into_iter().map(program).collect(),
        Err(error) => vec![refused("programs", &error)],
    }
}

fn program(verified: Verified) -> Finding {
    let name = format!("program {}", verified.name);
    match verified.outcome {
        Ok(instructions) => Finding {
            name,
            outcome: Outcome::Ok,
            detail: match instructions {
                Some(count) => format!("loads; the verifier processed {count} instructions"),
                None => "loads".into(),
            },
            mend: None,
            verified_instructions: instructions,
        },
        Err(error) => refused(&name, &error),
    }
}

fn refused(name: &str, error: &LoadError) -> Finding {
    let mend = match error {
        LoadError::Privilege { .. } => "run this as root".to_owned(),
        _ => {
            format!("boot {OLDEST_KERNEL}, with CONFIG_DEBUG_INFO_BTF=y: the agent cannot run here")
        }
    };
    let detail = match error {
        // The release and the mend have lines of their own here.
        LoadError::TooOld { what, reason, .. } => format!("{what}: this kernel {reason}"),
        other => other.to_string(),
    };
    Finding {
        name: name.to_owned(),
        outcome: Outcome::Fail,
        detail,
        mend: Some(mend),
        verified_instructions: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_loads_says_what_it_costs() {
        let finding = program(Verified {
            name: "connect4".into(),
            outcome: Ok(Some(1234)),
        });
        assert_eq!(finding.name, "program connect4");
        assert_eq!(finding.verified_instructions, Some(1234));
        assert!(finding.detail.contains("1234"), "{finding:?}");
    }

    #[test]
    fn a_refusal_fails_with_its_reason_and_the_mend() {
        let finding = program(Verified {
            name: "sock_ops".into(),
            outcome: Err(LoadError::TooOld {
                what: "loading program sock_ops".into(),
                release: "Linux 5.10".into(),
                reason: "unknown func bpf_x#1".into(),
            }),
        });
        assert_eq!(finding.outcome, Outcome::Fail);
        assert!(
            finding.detail.contains("unknown func bpf_x#1"),
            "{finding:?}"
        );
        assert!(
            finding
                .mend
                .is_some_and(|mend| mend.contains(OLDEST_KERNEL))
        );
    }
}
