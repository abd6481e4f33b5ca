//! `mesh-agent` as whoever starts it meets it, before it touches the kernel.

use std::{
    env,
    process::{Command, Output},
};

/// Runs the binary, with an environment that sets none of its flags.
fn agent(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mesh-agent"));
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("MESH_") {
            command.env_remove(name);
        }
    }
    let command = command
        .args(arguments)
        .envs(variables.iter().copied())
        .output();
    command.expect("the binary runs")
}

fn refused(output: &Output, message: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{said}");
    assert!(said.contains(message), "{said}");
}

#[test]
fn without_a_source_it_exits_with_64_and_says_what_to_do() {
    refused(&agent(&["run"], &[]), "--config-dir DIR or MESH_CONFIG_DIR");
}

#[test]
fn kubernetes_as_a_source_is_not_in_this_version() {
    let message = "not in this version; use --config-dir DIR";
    refused(&agent(&["run", "--kubernetes"], &[]), message);
    refused(&agent(&["run"], &[("MESH_KUBERNETES", "true")]), message);
    let no = agent(&["run"], &[("MESH_KUBERNETES", "false")]);
    refused(&no, "--config-dir DIR or MESH_CONFIG_DIR");
}

#[test]
fn wrong_flags_and_variables_exit_with_64() {
    refused(&agent(&[], &[]), "Usage: mesh-agent");
    refused(&agent(&["run", "--no-such-flag"], &[]), "--no-such-flag");
    refused(&agent(&["run", "--workers", "0"], &[]), "--workers");
    refused(&agent(&["run"], &[("MESH_ADMIN", "15000")]), "--admin");
    refused(
        &agent(&["run"], &[("MESH_ACCELERATION", "fast")]),
        "--acceleration",
    );
    refused(
        &agent(&["run"], &[("MESH_LOG_LEVEL", "inof")]),
        "--log-level",
    );
    refused(
        &agent(&["uninstall", "--node-name", "../x"], &[]),
        "--node-name",
    );
}

#[test]
fn help_exits_with_0() {
    for arguments in [&["--help"][..], &["run", "--help"], &["--version"]] {
        let output = agent(arguments, &[]);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(
            output.stderr.is_empty() && !output.stdout.is_empty(),
            "{arguments:?}"
        );
    }
}
