//! One agent takes over from another: nobody notices, whatever the newer one's layout is.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use lab::agent::exit_code;
use lab::stage::{DEADLINE, SUBSETS};
use lab::{
    Agent, AgentOptions, Load, Output, Pod, PodSpec, Process, ServiceSpec, Stage, eventually,
    reaper,
};
use serde_json::Value;

const UNAVAILABLE: i32 = 69;
/// Another layout than that of any version.
const OTHER_LAYOUT: &str = "v900";

fn to(subset: &str) -> String {
    format!(
        "{SUBSETS}---\n\
         apiVersion: networking.istio.io/v1\n\
         kind: VirtualService\n\
         metadata: {{name: echo}}\n\
         spec: {{hosts: [echo], http: [{{route: [{{destination: {{host: echo, subset: {subset}}}}}]}}]}}\n"
    )
}

fn newer() -> AgentOptions {
    AgentOptions::default().argument("--takeover")
}

/// Starts an agent that takes over, and waits until the one before has ended.
fn upgrade(stage: &mut Stage, options: &AgentOptions) -> Result<Output> {
    let next = Agent::start(&stage.lab, options)?;
    let mut old = std::mem::replace(&mut stage.agent, next);
    let output = old.wait()?;
    assert_eq!(exit_code(output.status), 0, "{}", output.stderr);
    assert!(
        output.stderr.contains("has taken over"),
        "{}",
        output.stderr
    );
    Ok(output)
}

fn listeners(agent: &Agent) -> Result<Vec<Value>> {
    let status = agent.get_json("/status")?;
    let pods = status["pods"].as_array().context("no pods")?;
    Ok(pods
        .iter()
        .map(|pod| Value::from(vec![pod["listener"].clone(), pod["dns"].clone()]))
        .collect())
}

fn all_well(loads: Vec<Load>) -> Result<()> {
    for load in loads {
        let answers = load.end(None, DEADLINE)?;
        assert_eq!(answers.wrong, 0, "{answers:#?}");
        assert_eq!(
            answers.by_server.keys().collect::<Vec<_>>(),
            ["v1"],
            "{answers:#?}"
        );
    }
    Ok(())
}

fn loads(stage: &Stage) -> Result<Vec<Load>> {
    let ways: [&[&str]; 4] = [
        &["-c", "2", "http://echo/"],
        &["-c", "2", "--reconnect", "http://echo/"],
        &["-X", "POST", "--body-bytes", "20000", "http://echo/"],
        &["-c", "2", "--http2", "http://echo:82/"],
    ];
    ways.iter()
        .map(|arguments| Load::start(&stage.client, arguments))
        .collect()
}

fn wait_for_all(loads: &[Load]) -> Result<()> {
    loads
        .iter()
        .try_for_each(|load| load.wait_for(30, DEADLINE))
}

#[test]
fn no_request_fails_in_any_of_six_upgrades() -> Result<()> {
    let mut stage = Stage::ruled("upgrades", &["v1"], &to("v1"))?;
    let loads = loads(&stage)?;
    wait_for_all(&loads)?;
    let before = listeners(&stage.agent)?;
    for workers in [2, 1, 3, 1, 1, 2] {
        let options = AgentOptions {
            workers: Some(workers),
            ..newer()
        };
        upgrade(&mut stage, &options)?;
        assert_eq!(listeners(&stage.agent)?, before, "the very sockets");
        wait_for_all(&loads)?;
    }
    all_well(loads)
}

#[test]
fn requests_that_are_under_way_are_finished_by_the_agent_that_began_them() -> Result<()> {
    let mut stage = Stage::ruled("begun", &["v1"], &to("v1"))?;
    let slow = [
        "http",
        "-n",
        "4",
        "-c",
        "4",
        "http://echo/?delay=2500&id=slow",
    ];
    let slow = stage.client.spawn(Pod::peer(slow)?)?;
    let url = format!("http://{}:8080/?id=slow", stage.servers[0].address());
    let arrived = eventually(DEADLINE, || {
        let answers = stage.send(&[&url]).unwrap_or_default();
        answers
            .first()
            .is_some_and(|answer| answer["body"]["tries"].as_u64() > Some(4))
    });
    assert!(arrived);
    let next = Agent::start(&stage.lab, &newer())?;
    let mut old = std::mem::replace(&mut stage.agent, next);
    // The newer one serves while the older one still waits for these.
    assert_eq!(stage.ask(&["http://echo/"])?["status"], 200);
    let report = slow.wait(DEADLINE)?.json()?;
    let answers = report["responses"].as_array().context("no answers")?;
    assert!(
        answers.len() == 4 && answers.iter().all(|answer| answer["status"] == 200),
        "{answers:#?}"
    );
    assert_eq!(exit_code(old.wait()?.status), 0);
    Ok(())
}

#[test]
fn a_new_agent_that_fails_leaves_the_node_to_the_one_that_runs() -> Result<()> {
    let stage = Stage::ruled("failed-upgrade", &["v1", "v2"], &to("v1"))?;
    let load = Load::start(&stage.client, &["-c", "2", "--reconnect", "http://echo/"])?;
    load.wait_for(30, DEADLINE)?;
    // It learns only after it was given everything that the pins are not as it wants them.
    let wrong = newer().argument("--map-capacity=sockets=2");
    let mut failed = Agent::launch(&stage.lab, &wrong)?;
    let output = failed.wait()?;
    assert_eq!(exit_code(output.status), UNAVAILABLE, "{}", output.stderr);
    assert!(output.stderr.contains("/maps/sockets"), "{}", output.stderr);
    load.wait_for(30, DEADLINE)?;
    let answers = load.end(None, DEADLINE)?;
    assert_eq!(answers.wrong, 0, "{answers:#?}");
    // The one that runs has the maps again.
    stage.rules(&to("v2"))?;
    stage.ask_until(&["http://echo/"], |answer| answer["body"]["server"] == "v2")?;
    let status = stage.agent.get_json("/status")?;
    assert_eq!(status["pid"], stage.agent.id());
    Ok(())
}

#[test]
fn without_the_flag_a_second_agent_is_refused_and_the_flag_is_named() -> Result<()> {
    let stage = Stage::ruled("second", &["v1"], &to("v1"))?;
    let mut second = Agent::launch(&stage.lab, &AgentOptions::default())?;
    let output = second.wait()?;
    assert_eq!(exit_code(output.status), UNAVAILABLE, "{}", output.stderr);
    assert!(output.stderr.contains("--takeover"), "{}", output.stderr);
    assert_eq!(stage.ask(&["http://echo/"])?["status"], 200);
    Ok(())
}

#[test]
fn one_that_is_to_wait_waits_until_it_is_stopped_and_the_flag_needs_no_predecessor() -> Result<()> {
    let options = newer().argument("--handed-over=wait");
    let mut stage = Stage::with("wait", &["v1"], &to("v1"), &options)?;
    let next = Agent::start(&stage.lab, &newer())?;
    let mut old = std::mem::replace(&mut stage.agent, next);
    let idle = eventually(DEADLINE, || old.log().contains("waiting for SIGTERM"));
    assert!(idle && old.is_running(), "{}", old.log());
    assert_eq!(stage.ask(&["http://echo/"])?["status"], 200);
    let output = old.stop()?;
    assert_eq!(exit_code(output.status), 0, "{}", output.stderr);
    // Its end has not told the programs that there is no agent.
    assert_eq!(stage.ask(&["http://echo/"])?["status"], 200);
    stage.metric_until("istio_requests_total", &[], 2.0)
}

fn pins(stage: &Stage) -> Vec<String> {
    let mut layouts: Vec<String> = reaper::pins_of(stage.lab.id())
        .iter()
        .filter_map(|folder| Some(folder.parent()?.file_name()?.to_string_lossy().into_owned()))
        .collect();
    layouts.sort();
    layouts
}

/// A stage with requests by the agent, and a service without rules whose connections are direct.
fn mixed(name: &str) -> Result<Stage> {
    let stage = Stage::ruled(name, &["v1"], &to("v1"))?;
    stage.lab.service(
        ServiceSpec::new("plain")
            .selector(&[("app", "echo")])
            .port_to("http", 80, 8080),
    )?;
    stage.ask_until(&["http://plain/"], |answer| answer["status"] == 200)?;
    Ok(stage)
}

const BYTES: u64 = 30_000;

fn direct_loads(stage: &Stage) -> Result<Vec<Load>> {
    let url = format!("http://plain/?bytes={BYTES}");
    [&["-c", "2", &url][..], &["-c", "2", "--reconnect", &url]]
        .iter()
        .map(|arguments| Load::start(&stage.client, arguments))
        .collect()
}

/// An upgrade to another layout, and back, by agents that take over or come after.
fn through_layouts(name: &str, takeover: bool) -> Result<()> {
    let mut stage = mixed(name)?;
    let own = pins(&stage);
    assert_eq!(own.len(), 1);
    let direct = direct_loads(&stage)?;
    wait_for_all(&direct)?;
    let by_agent = if takeover { loads(&stage)? } else { Vec::new() };
    for layout in [OTHER_LAYOUT, &own[0]] {
        let options = newer().argument(format!("--layout={layout}"));
        if takeover {
            upgrade(&mut stage, &options)?;
        } else {
            stage.agent.kill()?;
            stage.agent = Agent::start(&stage.lab, &options)?;
        }
        wait_for_all(&direct)?;
        wait_for_all(&by_agent)?;
        if layout == OTHER_LAYOUT {
            // The connections that were open before are still looked after by what they began with.
            assert_eq!(pins(&stage).len(), 2, "{}", stage.agent.log());
        }
        assert_eq!(stage.ask(&["http://echo/"])?["status"], 200);
        assert_eq!(stage.ask(&["http://plain/"])?["status"], 200);
    }
    all_well(by_agent)?;
    for load in direct {
        let answers = load.end(Some(BYTES), DEADLINE)?;
        assert_eq!(answers.wrong, 0, "{answers:#?}");
    }
    // With its last connection the other layout goes.
    let gone = eventually(DEADLINE, || pins(&stage) == own);
    assert!(gone, "{:?}\n{}", pins(&stage), stage.agent.log());
    assert_eq!(stage.ask(&["http://echo/"])?["status"], 200);
    stage.agent.stop()?;
    stage.agent.uninstall()?;
    assert_eq!(pins(&stage), Vec::<String>::new());
    Ok(())
}

#[test]
fn a_newer_layout_takes_over_while_requests_and_connections_go_on() -> Result<()> {
    through_layouts("layouts", true)
}

#[test]
fn a_newer_layout_adopts_what_a_killed_agent_left() -> Result<()> {
    through_layouts("layouts-killed", false)
}

#[test]
fn uninstall_removes_every_layout() -> Result<()> {
    let mut stage = mixed("uninstall-all")?;
    let loads = direct_loads(&stage)?;
    wait_for_all(&loads)?;
    let options = newer().argument(format!("--layout={OTHER_LAYOUT}"));
    upgrade(&mut stage, &options)?;
    assert_eq!(pins(&stage).len(), 2);
    stage.agent.stop()?;
    stage.agent.uninstall()?;
    assert_eq!(pins(&stage), Vec::<String>::new());
    // What was open goes on: to a pod's own address, as a service's needs the programs.
    let shown = cgroup_programs(&stage)?;
    assert_eq!(shown.trim(), "", "{shown}");
    drop(loads);
    Ok(())
}

/// What bpftool says is attached to the node's cgroup.
fn cgroup_programs(stage: &Stage) -> Result<String> {
    let mut command = std::process::Command::new("bpftool");
    command.args(["cgroup", "show"]).arg(stage.lab.cgroup());
    let output = Process::start(command)?.wait(DEADLINE)?.success()?;
    // The heading is there in any case.
    Ok(output
        .stdout
        .lines()
        .filter(|line| !line.starts_with("ID "))
        .collect())
}

fn deny() -> String {
    "apiVersion: security.istio.io/v1\n\
     kind: AuthorizationPolicy\n\
     metadata: {name: keep-out}\n\
     spec:\n  action: DENY\n  selector: {matchLabels: {app: echo}}\n  \
     rules: [{from: [{source: {principals: [cluster.local/ns/default/sa/outcast]}}]}]\n"
        .to_owned()
}

#[test]
fn nobody_slips_through_while_agents_are_killed_stopped_and_replaced() -> Result<()> {
    let stage = Stage::new("no-gap", &["v1"])?;
    let outcast = stage
        .lab
        .pod(PodSpec::new("outcast").service_account("outcast"))?;
    stage.lab.manifests().write("deny.yaml", &deny())?;
    let url = format!("http://{}:8080/", stage.servers[0].address());
    let ask = || lab::stage::send(&outcast, &["--timeout-ms", "2000", &url]);
    let refused = eventually(DEADLINE, || {
        ask().is_ok_and(|answers| answers[0]["error"].is_string())
    });
    assert!(refused, "{:?}", ask()?);
    let knocking = Load::start(
        &outcast,
        &["-c", "2", "--reconnect", "--timeout-ms", "2000", &url],
    )?;
    knocking.wait_for(20, DEADLINE)?;
    let mut stage = stage;
    for round in 0..12 {
        match round % 3 {
            0 => {
                stage.agent.kill()?;
                stage.agent = Agent::start(&stage.lab, &AgentOptions::default())?;
            }
            1 => {
                stage.agent.stop()?;
                stage.agent = Agent::start(&stage.lab, &AgentOptions::default())?;
            }
            _ => {
                let layout = if round % 2 == 0 { OTHER_LAYOUT } else { "v901" };
                let options = newer().argument(format!("--layout={layout}"));
                upgrade(&mut stage, &options)?;
                stage.agent.kill()?;
                stage.agent = Agent::start(&stage.lab, &AgentOptions::default())?;
            }
        }
        knocking.wait_for(20, DEADLINE)?;
    }
    let answers = knocking.end(None, DEADLINE)?;
    assert_eq!(answers.wrong, answers.all, "{:?}", answers.by_server);
    Ok(())
}

fn pin_something_else(path: &Path, arguments: &[&str]) -> Result<()> {
    let mut command = std::process::Command::new("bpftool");
    command.args(["map", "create"]).arg(path).args(arguments);
    Process::start(command)?.wait(DEADLINE)?.success()?;
    Ok(())
}

/// Puts something else in the place of a pin.
type Spoil<'a> = Box<dyn Fn(&Path) -> Result<()> + 'a>;

#[test]
fn a_pin_that_somebody_else_made_is_refused_with_its_path_and_stays() -> Result<()> {
    let mut stage = Stage::new("foreign", &["v1"])?;
    stage.agent.stop()?;
    let folder = reaper::pins_of(stage.lab.id()).remove(0);
    let array = [
        "type", "array", "key", "4", "value", "8", "entries", "1", "name", "x",
    ];
    let cases: [(&str, Spoil<'_>); 5] = [
        (
            "maps/frontends",
            Box::new(|path| pin_something_else(path, &array)),
        ),
        ("maps/names", Box::new(|path| Ok(fs::create_dir(path)?))),
        (
            "links/connect4",
            Box::new(|path| pin_something_else(path, &array)),
        ),
        (
            "links/connect6",
            // A link, but of another hook.
            Box::new(|path| Ok(fs::rename(folder.join("links/getpeername6"), path)?)),
        ),
        (
            "connections",
            Box::new(|path| pin_something_else(path, &array)),
        ),
    ];
    for (name, spoil) in cases {
        let path: PathBuf = folder.join(name);
        fs::remove_file(&path).with_context(|| path.display().to_string())?;
        spoil(&path)?;
        let mut failing = Agent::launch(&stage.lab, &AgentOptions::default())?;
        let output = failing.wait()?;
        assert_eq!(exit_code(output.status), UNAVAILABLE, "{}", output.stderr);
        let named = output.stderr.contains(&path.display().to_string());
        assert!(
            named && output.stderr.contains("mesh-agent uninstall"),
            "{name}: {}",
            output.stderr
        );
        assert!(path.exists(), "{name}");
        // The mend is what the message says.
        stage.agent.uninstall()?;
        assert!(!folder.exists());
        stage.agent = Agent::start(&stage.lab, &AgentOptions::default())?;
        assert_eq!(stage.ask(&["http://echo/"])?["status"], 200);
        stage.agent.stop()?;
    }
    Ok(())
}
