//! The flags are those of the contract.

use clap::CommandFactory;

use super::*;

fn run(arguments: &[&str]) -> Result<RunArgs, ExitStatus> {
    let arguments = ["mesh-agent", "run"].iter().chain(arguments);
    match parse(arguments)? {
        AgentCommand::Run(run) => Ok(*run),
        AgentCommand::Uninstall(_) => panic!("parsed as uninstall"),
    }
}

#[test]
fn the_definition_is_sound() {
    AgentCli::command().debug_assert();
}

#[test]
fn every_flag_of_run_has_its_variable() {
    let command = AgentCli::command();
    let run = command.find_subcommand("run").expect("run");
    for flag in run.get_arguments() {
        let Some(name) = flag
            .get_long()
            .filter(|name| *name != "help" && *name != "version")
        else {
            continue;
        };
        let variable = format!("MESH_{}", name.to_uppercase().replace('-', "_"));
        let read = flag
            .get_env()
            .map(|name| name.to_string_lossy().into_owned());
        assert_eq!(read.as_deref(), Some(variable.as_str()), "--{name}");
    }
}

#[test]
fn defaults_are_those_of_the_contract() {
    let run = run(&["--config-dir", "/rules"]).expect("valid");
    assert_eq!(
        run.source().expect("a source"),
        Source::Folder("/rules".into())
    );
    assert_eq!(run.admin.to_string(), "127.0.0.1:15000");
    assert_eq!(run.bpffs, PathBuf::from("/sys/fs/bpf"));
    assert_eq!(run.acceleration, Acceleration::Auto);
    assert_eq!(run.dns, Switch::On);
    assert_eq!(run.log_format, LogFormat::Text);
    assert_eq!(run.log_level, "info");
    assert!(run.workers.is_none() && run.cgroup.is_none() && !run.kubernetes);
    assert!(!run.node_name().expect("a host name").is_empty());
}

#[test]
fn what_is_given_is_taken() {
    let run = run(&[
        "--config-dir=/r",
        "--node-name=n1",
        "--admin=[::1]:9",
        "--workers=2",
        "--acceleration=off",
        "--log-format=json",
        "--log-level=debug",
        "--cgroup=/c",
    ])
    .expect("valid");
    assert_eq!(run.node_name().expect("a name"), "n1");
    assert_eq!(run.acceleration, Acceleration::Off);
    assert_eq!(run.workers.map(NonZeroUsize::get), Some(2));
    assert_eq!(run.log_format, LogFormat::Json);
}

#[test]
fn nonsense_is_wrong_usage() {
    for bad in [
        &["--workers", "0"][..],
        &["--admin", "15000"],
        &["--acceleration", "maybe"],
        &["--log-level", "inof"],
        &["--node-name", "a/b"],
        &["--no-such-flag"],
    ] {
        assert_eq!(run(bad).expect_err("refused"), ExitStatus::Usage, "{bad:?}");
    }
    assert_eq!(
        parse(["mesh-agent"]).expect_err("refused"),
        ExitStatus::Usage
    );
    assert_eq!(
        parse(["mesh-agent", "--help"]).expect_err("help"),
        ExitStatus::Ok
    );
}

#[test]
fn without_a_source_it_says_what_to_do() {
    let error = run(&[]).expect("parses").source().expect_err("no source");
    assert!(error.to_string().contains("--config-dir DIR"), "{error}");
}

#[test]
fn kubernetes_is_not_in_this_version() {
    for flags in [
        &["--kubernetes"][..],
        &["--kubernetes", "--config-dir", "/r"],
        &["--kubeconfig", "f"],
    ] {
        let error = run(flags).expect("parses").source().expect_err("not built");
        assert!(
            error
                .to_string()
                .contains("not in this version; use --config-dir"),
            "{error}"
        );
    }
}
