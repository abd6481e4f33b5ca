//! The agent as a process: exit statuses, two on one machine, and its comings and goings.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use lab::agent::{exit_code, free_port};
use lab::stage::{DEADLINE, SUBSETS, by_server};
use lab::{Agent, AgentOptions, Lab, Output, Pod, Process, Stage, binaries, eventually, reaper};

const USAGE: i32 = 64;
const KERNEL_LACKS: i32 = 69;
const NO_PRIVILEGE: i32 = 77;
const NO_CONFIGURATION: i32 = 78;

fn by_agent() -> String {
    format!(
        "{SUBSETS}---\n\
         apiVersion: networking.istio.io/v1\n\
         kind: VirtualService\n\
         metadata: {{name: echo}}\n\
         spec: {{hosts: [echo], http: [{{route: [{{destination: {{host: echo, subset: v1}}}}]}}]}}\n"
    )
}

/// Runs an agent that is expected not to get anywhere.
fn failing(lab: &Lab, options: &AgentOptions) -> Result<Output> {
    let mut agent = Agent::launch(lab, options)?;
    let output = agent.wait()?;
    assert!(!output.stderr.is_empty(), "it ended without a word");
    Ok(output)
}

#[test]
fn wrong_usage_is_64() -> Result<()> {
    for arguments in [
        &["run", "--no-such-flag"][..],
        &["run", "--workers", "none"],
        &["dance"],
    ] {
        let mut command = Command::new(binaries::find("mesh-agent")?);
        command.args(arguments);
        let output = Process::start(command)?.wait(DEADLINE)?;
        assert_eq!(
            exit_code(output.status),
            USAGE,
            "{arguments:?}: {}",
            output.stderr
        );
        assert!(!output.stderr.is_empty());
    }
    Ok(())
}

#[test]
fn a_missing_privilege_is_77_and_is_named() -> Result<()> {
    let lab = Lab::new("unprivileged")?;
    lab.pod(lab::PodSpec::new("a"))?;
    // A copy that another user may run, wherever the build's folder lies.
    let folder = lab.manifests().dir().with_file_name("bin");
    std::fs::create_dir(&folder)?;
    let copy = folder.join("mesh-agent");
    std::fs::copy(binaries::find("mesh-agent")?, &copy)?;
    let mut command = Agent::command(&lab, &AgentOptions::default(), free_port()?)?;
    let arguments: Vec<_> = command.get_args().map(std::ffi::OsStr::to_owned).collect();
    command = Command::new("setpriv");
    command
        .args([
            "--reuid",
            "65534",
            "--regid",
            "65534",
            "--clear-groups",
            "--inh-caps=-all",
            "--",
        ])
        .arg(&copy)
        .args(arguments);
    let output = Process::start(command)?.wait(DEADLINE)?;
    assert_eq!(exit_code(output.status), NO_PRIVILEGE, "{}", output.stderr);
    assert!(
        output.stderr.contains("CAP_"),
        "no capability is named: {}",
        output.stderr
    );
    Ok(())
}

#[test]
fn a_kernel_without_its_type_information_is_69_and_that_is_named() -> Result<()> {
    let lab = Lab::new("no-btf")?;
    lab.pod(lab::PodSpec::new("a"))?;
    let hide = "mount --bind /dev/null /sys/kernel/btf/vmlinux && exec \"$@\"";
    let options = AgentOptions {
        under: ["unshare", "--mount", "sh", "-c", hide, "sh"]
            .map(str::to_owned)
            .to_vec(),
        ..AgentOptions::default()
    };
    let output = failing(&lab, &options)?;
    assert_eq!(exit_code(output.status), KERNEL_LACKS, "{}", output.stderr);
    assert!(output.stderr.contains("BTF"), "{}", output.stderr);
    Ok(())
}

#[test]
fn a_configuration_without_a_usable_part_is_78() -> Result<()> {
    let lab = Lab::new("unconfigured")?;
    let options = AgentOptions {
        config_dir: Some(PathBuf::from("/run/zerohop-lab/there-is-no-such-folder")),
        ..AgentOptions::default()
    };
    let output = failing(&lab, &options)?;
    assert_eq!(
        exit_code(output.status),
        NO_CONFIGURATION,
        "{}",
        output.stderr
    );
    assert!(
        output.stderr.contains("there-is-no-such-folder"),
        "{}",
        output.stderr
    );
    lab.manifests().write("broken.yaml", "kind: [\n")?;
    let output = failing(&lab, &AgentOptions::default())?;
    assert_eq!(
        exit_code(output.status),
        NO_CONFIGURATION,
        "{}",
        output.stderr
    );
    assert!(output.stderr.contains("broken.yaml"), "{}", output.stderr);
    Ok(())
}

#[test]
fn an_admin_port_in_use_is_named() -> Result<()> {
    let lab = Lab::new("port")?;
    lab.pod(lab::PodSpec::new("a"))?;
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?;
    let options = AgentOptions {
        admin: Some(address),
        ..AgentOptions::default()
    };
    let output = failing(&lab, &options)?;
    assert_ne!(exit_code(output.status), 0);
    assert!(
        output.stderr.contains(&address.to_string()),
        "{}",
        output.stderr
    );
    assert!(output.stderr.contains("in use"), "{}", output.stderr);
    Ok(())
}

#[test]
fn sigterm_is_a_clean_stop_and_uninstall_leaves_no_pin() -> Result<()> {
    let mut stage = Stage::ruled("stop", &["v1"], &by_agent())?;
    assert_eq!(stage.ask(&["http://echo/"])?["status"], 200);
    assert_ne!(reaper::pins_of(stage.lab.id()), Vec::<PathBuf>::new());
    let output = stage.agent.stop()?;
    assert_eq!(exit_code(output.status), 0, "{}", output.stderr);
    stage.agent.uninstall()?;
    assert_eq!(reaper::pins_of(stage.lab.id()), Vec::<PathBuf>::new());
    Ok(())
}

#[test]
fn health_is_told_from_the_first_moment_and_readiness_when_all_is_in_effect() -> Result<()> {
    let stage = Stage::ruled("health", &["v1"], &by_agent())?;
    assert_eq!(stage.agent.get("/healthz")?.0, 200);
    assert_eq!(stage.agent.get("/readyz")?.0, 200);
    let dump = stage.agent.get_json("/config_dump")?;
    assert!(
        dump.to_string().contains("echo.default.svc.cluster.local"),
        "{dump:#}"
    );
    let status = stage.agent.meshctl_json(&["status"])?;
    assert!(status.to_string().contains(stage.lab.id()), "{status:#}");
    let check = stage.agent.meshctl(&["check"])?;
    assert_eq!(check.status.code(), Some(0), "{check:?}");
    Ok(())
}

#[test]
fn two_agents_serve_two_nodes_of_one_machine_with_equal_addresses() -> Result<()> {
    let one = Stage::ruled("twin-a", &["v1", "v2"], &by_agent())?;
    let other_rules = by_agent().replace("subset: v1", "subset: v2");
    let other = Stage::ruled("twin-b", &["v1", "v2"], &other_rules)?;
    assert_eq!(one.service.address, other.service.address);
    assert_eq!(one.client.address(), other.client.address());
    for _ in 0..3 {
        for (stage, version) in [(&one, "v1"), (&other, "v2")] {
            let answers = stage.send(&["-n", "30", "-c", "3", "http://echo/"])?;
            assert_eq!(by_server(&answers), [(version.to_owned(), 30)].into());
        }
    }
    // What one node counts the other does not.
    one.metric_until("istio_requests_total", &[], 90.0)?;
    other.metric_until("istio_requests_total", &[], 90.0)?;
    drop(other);
    let answers = one.send(&["-n", "30", "http://echo/"])?;
    assert_eq!(by_server(&answers), [("v1".to_owned(), 30)].into());
    Ok(())
}

/// What a load that was told to end had seen: how many answers of each kind.
fn end_load(mut load: Process) -> Result<std::collections::BTreeMap<String, usize>> {
    drop(load.take_stdin());
    let output = load.wait(DEADLINE)?.success()?;
    let answers: Vec<serde_json::Value> = output
        .stdout
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()
        .context("the load's lines")?;
    Ok(by_server(&answers))
}

fn wait_for_answers(load: &Process, more: usize) -> Result<()> {
    let before = load.stdout().lines().count();
    eventually(DEADLINE, || load.stdout().lines().count() >= before + more)
        .then_some(())
        .with_context(|| format!("the load stalls: {}", load.stderr()))
}

#[test]
fn direct_traffic_does_not_notice_an_agent_that_stops_dies_and_starts() -> Result<()> {
    let mut stage = Stage::new("direct-life", &["v1"])?;
    let keep = stage.client.spawn(Pod::peer([
        "http",
        "-c",
        "2",
        "--until-eof",
        "http://echo/",
    ])?)?;
    let fresh = stage.client.spawn(Pod::peer([
        "http",
        "--reconnect",
        "--until-eof",
        "http://echo/",
    ])?)?;
    for end in ["stop", "kill"] {
        wait_for_answers(&keep, 100)?;
        match end {
            "stop" => drop(stage.agent.stop()?),
            _ => stage.agent.kill()?,
        }
        // Without an agent: old connections go on, new ones are made.
        wait_for_answers(&keep, 100)?;
        wait_for_answers(&fresh, 50)?;
        stage.agent = Agent::start(&stage.lab, &AgentOptions::default())?;
        wait_for_answers(&keep, 100)?;
        wait_for_answers(&fresh, 50)?;
    }
    for load in [keep, fresh] {
        let seen = end_load(load)?;
        assert_eq!(seen.keys().collect::<Vec<_>>(), ["v1"], "{seen:?}");
    }
    Ok(())
}

#[test]
fn without_an_agent_what_needs_it_goes_on_directly_by_default() -> Result<()> {
    let mut stage = Stage::ruled("open", &["v1"], &by_agent())?;
    assert_eq!(stage.ask(&["http://echo/"])?["status"], 200);
    stage.agent.kill()?;
    stage.ask_until(&["http://echo/"], |answer| answer["status"] == 200)?;
    stage.agent = Agent::start(&stage.lab, &AgentOptions::default())?;
    assert_eq!(stage.ask(&["http://echo/"])?["status"], 200);
    stage.metric_until("istio_requests_total", &[], 1.0)
}

#[test]
fn without_an_agent_what_needs_it_is_refused_where_the_pod_says_so() -> Result<()> {
    let mut stage = Stage::ruled("closed", &["v1"], &by_agent())?;
    let careful = stage
        .lab
        .pod(lab::PodSpec::new("careful").annotation("zerohop.dev/failure-policy", "closed"))?;
    let ask = |pod: &Pod| lab::stage::send(pod, &["--timeout-ms", "3000", "http://echo/"]);
    let works = || ask(&careful).is_ok_and(|answers| answers[0]["status"] == 200);
    assert!(eventually(DEADLINE, works), "{}", stage.agent.log());
    stage.agent.kill()?;
    let refused = || ask(&careful).is_ok_and(|answers| answers[0]["error"].is_string());
    assert!(eventually(DEADLINE, refused), "{:?}", ask(&careful)?);
    // And stays so.
    assert!((0..5).all(|_| refused()));
    Ok(())
}

#[test]
fn without_an_agent_a_pod_that_somebody_guards_fails_closed_unless_it_says_otherwise() -> Result<()>
{
    const GUARD: &str = "---\n\
        apiVersion: security.istio.io/v1\n\
        kind: AuthorizationPolicy\n\
        metadata: {name: guard}\n\
        spec: {selector: {matchLabels: {app: guarded}}, rules: [{}]}\n";
    let mut stage = Stage::ruled("guarded", &["v1"], &format!("{}{GUARD}", by_agent()))?;
    let closed = stage
        .lab
        .pod(lab::PodSpec::new("closed").app("guarded", "v1"))?;
    let open = lab::PodSpec::new("open").app("guarded", "v1");
    let open = stage
        .lab
        .pod(open.annotation("zerohop.dev/failure-policy", "open"))?;
    let ask = |pod: &Pod| lab::stage::send(pod, &["--timeout-ms", "3000", "http://echo/"]);
    let works = |pod: &Pod| ask(pod).is_ok_and(|answers| answers[0]["status"] == 200);
    assert!(eventually(DEADLINE, || works(&closed) && works(&open)));
    stage.agent.kill()?;
    // By then the heartbeat is stale, and each pod's own policy holds.
    assert!(eventually(DEADLINE, || works(&open)), "{:?}", ask(&open)?);
    assert!(
        (0..5).all(|_| works(&open) && !works(&closed)),
        "{:?}",
        ask(&closed)?
    );
    stage.agent = Agent::start(&stage.lab, &AgentOptions::default())?;
    assert!(works(&closed));
    Ok(())
}

#[test]
fn an_agent_that_stops_finishes_what_it_has_begun() -> Result<()> {
    let mut stage = Stage::ruled("drain", &["v1"], &by_agent())?;
    let slow = Pod::peer([
        "http",
        "-n",
        "4",
        "-c",
        "4",
        "http://echo/?delay=1500&id=slow",
    ])?;
    let slow = stage.client.spawn(slow)?;
    // They are on their way once the server has them; it counts before it waits.
    let arrived = eventually(DEADLINE, || {
        let url = format!("http://{}:8080/?id=slow", stage.servers[0].address());
        let answers = stage.send(&[&url]).unwrap_or_default();
        answers
            .first()
            .is_some_and(|answer| answer["body"]["tries"].as_u64() > Some(4))
    });
    assert!(arrived);
    let output = stage.agent.stop()?;
    assert_eq!(exit_code(output.status), 0, "{}", output.stderr);
    let report = slow.wait(DEADLINE)?.json()?;
    let answers = report["responses"].as_array().context("no answers")?;
    assert_eq!(
        by_server(answers),
        [("v1".to_owned(), 4)].into(),
        "{answers:#?}"
    );
    Ok(())
}

#[test]
fn an_agent_adopts_what_the_last_one_pinned() -> Result<()> {
    let mut stage = Stage::ruled("adopt", &["v1"], &by_agent())?;
    let opened = |stage: &Stage| -> Result<u64> {
        let rows = stage.agent.traffic()?;
        Ok(lab::traffic::total(&rows, |_| true).opened)
    };
    stage.send(&["-n", "10", "--reconnect", "http://echo/"])?;
    let before = opened(&stage)?;
    assert!(before >= 10, "{before}");
    stage.agent.kill()?;
    // The maps are there without it, and can be read.
    assert!(opened(&stage)? >= before);
    stage.agent = Agent::start(&stage.lab, &AgentOptions::default())?;
    let after = opened(&stage)?;
    assert!(
        after >= before,
        "{after} connections after, {before} before the restart"
    );
    Ok(())
}

#[test]
fn no_request_by_the_agent_fails_while_one_stops_and_the_next_starts() -> Result<()> {
    let mut stage = Stage::ruled("handover", &["v1"], &by_agent())?;
    let load = Pod::peer([
        "http",
        "-c",
        "2",
        "--reconnect",
        "--until-eof",
        "http://echo/",
    ])?;
    let load = stage.client.spawn(load)?;
    for _ in 0..3 {
        wait_for_answers(&load, 50)?;
        let output = stage.agent.stop()?;
        assert_eq!(exit_code(output.status), 0, "{}", output.stderr);
        wait_for_answers(&load, 50)?;
        stage.agent = Agent::start(&stage.lab, &AgentOptions::default())?;
    }
    wait_for_answers(&load, 50)?;
    let seen = end_load(load)?;
    assert_eq!(seen.keys().collect::<Vec<_>>(), ["v1"], "{seen:?}");
    Ok(())
}
