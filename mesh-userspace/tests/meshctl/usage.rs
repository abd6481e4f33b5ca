//! Exit statuses and messages before anything is asked.

use std::net::TcpListener;

use crate::support::{Folder, meshctl, stderr, stdout};

#[test]
fn wrong_usage_exits_with_64() {
    for arguments in [
        &[][..],
        &["no-such-command"],
        &["status", "--no-such-flag"],
        &["status", "-o", "xml"],
        &["status", "--admin", "15000"],
        &["analyze"],
        &["explain", "--from", "no-slash", "http://a/"],
        &["explain", "--from", "default/a"],
        &[
            "explain",
            "--from",
            "default/a",
            "-H",
            "no colon",
            "http://a/",
        ],
        &["maps", "dump"],
        &["acceleration", "maybe"],
        &["completion", "tcsh"],
        &["status", "--node-name", "../x"],
    ] {
        let output = meshctl(arguments);
        assert_eq!(
            output.status.code(),
            Some(64),
            "{arguments:?}: {}",
            stderr(&output)
        );
        assert!(
            !output.stderr.is_empty() && output.stdout.is_empty(),
            "{arguments:?}"
        );
    }
}

#[test]
fn help_and_version_exit_with_0() {
    for arguments in [
        &["--help"][..],
        &["help", "explain"],
        &["maps", "--help"],
        &["--version"],
    ] {
        let output = meshctl(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(
            output.stderr.is_empty() && !output.stdout.is_empty(),
            "{arguments:?}"
        );
    }
}

#[test]
fn without_an_agent_it_exits_with_69_and_says_what_to_do() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = listener.local_addr().expect("bound").to_string();
    drop(listener);
    for command in [
        &["status"][..],
        &["config"],
        &["services"],
        &["workloads"],
        &["routes"],
        &["connections"],
        &["acceleration", "off"],
        &["acceleration", "status"],
        &["explain", "--from", "default/a", "http://b/"],
    ] {
        let output = meshctl(command.iter().chain(&["--admin", &address]));
        assert_eq!(output.status.code(), Some(69), "{command:?}");
        let message = stderr(&output);
        assert!(
            message.contains(&address) && message.contains("mesh-agent run"),
            "{message}"
        );
        assert!(output.stdout.is_empty(), "{command:?}");
    }
}

#[test]
fn maps_that_nobody_pinned_exit_with_69() {
    let bpffs = Folder::new("bpffs");
    let path = bpffs.path().to_str().expect("UTF-8");
    let output = meshctl(["maps", "list", "--bpffs", path]);
    assert_eq!(output.status.code(), Some(69), "{}", stderr(&output));
    assert!(stderr(&output).contains(path), "{}", stderr(&output));
}

#[test]
fn completion_knows_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let output = meshctl(["completion", shell]);
        assert_eq!(output.status.code(), Some(0), "{shell}");
        let script = stdout(&output);
        for word in ["explain", "connections", "acceleration", "config-dir"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
}

#[test]
fn check_names_a_mend_for_all_that_is_not_ok() {
    // A folder that is there, and an address that is free: what else there is depends on the machine.
    let output = meshctl([
        "check",
        "-o",
        "json",
        "--bpffs",
        "/nonexistent",
        "--admin",
        "127.0.0.1:1",
    ]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let findings: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).expect("JSON");
    let names: Vec<_> = findings
        .iter()
        .filter_map(|finding| finding["name"].as_str())
        .collect();
    for name in [
        "kernel",
        "BTF",
        "cgroup v2",
        "bpffs",
        "privileges",
        "memlock",
        "admin port",
    ] {
        assert!(names.contains(&name), "{name}: {names:?}");
    }
    for finding in &findings {
        let ok = finding["outcome"] == "ok";
        assert_eq!(ok, finding["mend"].is_null(), "{finding}");
    }
    let bpffs = findings
        .iter()
        .find(|finding| finding["name"] == "bpffs")
        .expect("bpffs");
    assert_eq!(bpffs["outcome"], "fail");
    assert!(
        bpffs["mend"]
            .as_str()
            .expect("a mend")
            .contains("/nonexistent"),
        "{bpffs}"
    );
}
