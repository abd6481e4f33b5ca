//! Whether this kernel takes the programs: each is loaded for its own sake and let go again, nothing is
//! pinned or attached.
//!
//! What a program cannot do without is probed, never guessed from the kernel's version.

use std::fs;

use aya::{
    EbpfLoader,
    programs::{ProgramError, ProgramType},
    sys::{BpfHelper, is_helper_supported},
};

use super::{
    btf,
    loader::{self, LoadError, OBJECT},
};

/// The oldest kernel that this is tested on, as a mend says it. Others may do.
pub const OLDEST_KERNEL: &str = "Linux 6.1 or later";

/// What every path needs: without the namespace's cookie two pods with equal addresses can't be told
/// apart. In sock_ops since 5.15.
const REQUIRED: [(ProgramType, &str, BpfHelper, &str); 1] = [(
    ProgramType::SockOps,
    "sock_ops",
    BpfHelper::BPF_FUNC_get_netns_cookie,
    "bpf_get_netns_cookie",
)];

/// A program that the kernel was asked to take.
#[derive(Debug)]
pub struct Verified {
    /// The program.
    pub name: String,
    /// How many instructions the verifier processed (absent before Linux 5.16), or why it refuses it.
    pub outcome: Result<Option<u32>, LoadError>,
}

/// Loads every program of the object, in the order of their names. An error: it came to none.
pub fn programs() -> Result<Vec<Verified>, LoadError> {
    required_helpers()?;
    let offsets =
        btf::offsets().map_err(|error| too_old("reading the kernel's types", error.to_string()))?;
    let mut loader = EbpfLoader::new();
    loader.override_global("OFFSETS", &offsets, true);
    let mut ebpf = loader
        .load(OBJECT)
        .map_err(|error| loader::classify("creating the maps", &error))?;
    let mut names: Vec<String> = ebpf.programs().map(|(name, _)| name.to_owned()).collect();
    names.sort();
    let verified = names.into_iter().map(|name| {
        let outcome = loader::load_program(&mut ebpf, &name).and_then(|(program, _)| {
            let info = program.info();
            let info = info.map_err(|error| loader::classify("reading the program", &error))?;
            Ok(info.verified_instruction_count())
        });
        Verified { name, outcome }
    });
    Ok(verified.collect())
}

/// An error where the kernel lacks a helper that everything depends on.
pub(super) fn required_helpers() -> Result<(), LoadError> {
    for (kind, kind_name, helper, name) in REQUIRED {
        let what = format!("looking for {name} in {kind_name} programs");
        match is_helper_supported(kind, helper) {
            Ok(true) => {}
            Ok(false) => {
                let reason = "does not have it, and without it pods with equal addresses cannot be told apart";
                return Err(too_old(&what, reason.into()));
            }
            Err(error) => return Err(loader::classify(&what, &error)),
        }
    }
    Ok(())
}

/// What a failure to load a program means: the verifier's own words where it spoke.
pub(super) fn refused(what: &str, error: &ProgramError) -> LoadError {
    match error {
        ProgramError::LoadError {
            io_error,
            verifier_log,
        } if io_error.raw_os_error() != Some(libc::EPERM) => {
            let reason = match last_words(&verifier_log.to_string()) {
                Some(words) => format!("refuses it: {words} ({io_error})"),
                None => format!("refuses it: {io_error}"),
            };
            too_old(what, reason)
        }
        _ => loader::classify(what, error),
    }
}

fn too_old(what: &str, reason: String) -> LoadError {
    LoadError::TooOld {
        what: what.to_owned(),
        release: release(),
        reason,
    }
}

/// The verifier's verdict: the last line before its statistics.
fn last_words(log: &str) -> Option<&str> {
    log.lines()
        .map(str::trim)
        .rfind(|line| !line.is_empty() && !is_statistics(line))
}

fn is_statistics(line: &str) -> bool {
    ["processed ", "verification time ", "stack depth "]
        .iter()
        .any(|start| line.starts_with(start))
}

fn release() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("Linux {}", release.trim())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn this_kernel_takes_every_program() {
        let verified = programs().expect("privilege: run as root");
        assert!(verified.len() >= 6, "{verified:?}");
        for program in verified {
            let instructions = program.outcome.expect("it loads");
            assert!(
                instructions.is_some_and(|count| count > 0),
                "{}",
                program.name
            );
        }
    }

    #[test]
    fn the_verifiers_verdict_is_its_last_line() {
        let log = "0: (b7) r0 = 0\n12: (85) call unknown#122\ninvalid func unknown#122\n\
                   processed 4 insns (limit 1000000) max_states_per_insn 0\n\n";
        assert_eq!(last_words(log), Some("invalid func unknown#122"));
        assert_eq!(last_words("processed 4 insns\n"), None);
    }

    #[test]
    fn a_refusal_says_what_why_and_what_to_do() {
        let error = too_old("loading program x", "unknown func y".into()).to_string();
        for part in [
            "loading program x",
            "Linux ",
            "unknown func y",
            OLDEST_KERNEL,
        ] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_first_load_that_fails_leaves_no_pin() {
        let name = format!("zerohop-fail-test-{}", std::process::id());
        let pins = loader::PinDir::new(Path::new("/sys/fs/bpf"), &name);
        // A folder, but no cgroup: everything but attaching works.
        let failed = loader::load(&pins, Path::new("/proc"), &[]);
        assert!(failed.is_err(), "{failed:?}");
        assert!(!pins.path().exists());
    }
}
