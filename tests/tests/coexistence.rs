//! Other tools on the same node: their programs at the same hooks, their hold on the same sockets.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::{Context, Result};
use lab::agent::exit_code;
use lab::foreign::{self, Sharing};
use lab::stage::{DEADLINE, SUBSETS};
use lab::{Agent, AgentOptions, Lab, Load, PodSpec, ServiceSpec, Stage, eventually};
use serde_json::Value;

const KERNEL: i32 = 69;
/// An address that only the other tool knows.
const THEIRS: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 200, 0, 1), 8000);
const BYTES: &str = "http://echo/?bytes=50000";

fn by_agent() -> String {
    format!(
        "{SUBSETS}---\n\
         apiVersion: networking.istio.io/v1\n\
         kind: VirtualService\n\
         metadata: {{name: echo}}\n\
         spec: {{hosts: [echo], http: [{{route: [{{destination: {{host: echo, subset: v1}}}}]}}]}}\n"
    )
}

fn theirs() -> String {
    format!("http://{THEIRS}/")
}

fn refused(stage: &Stage) -> Result<f64> {
    Ok(stage.agent.metrics()?.sum(
        "zerohop_kernel_events_total",
        &[("event", "socket_refused")],
    ))
}

#[test]
fn sockets_that_another_tool_holds_stay_plain_tcp_and_it_is_named() -> Result<()> {
    let mut stage = Stage::new("other-owner", &["v1"])?;
    // Its programs run before this one's, so that it has every socket first.
    stage.agent.stop()?;
    stage.agent.uninstall()?;
    let other = foreign::own_sockets(stage.lab.cgroup())?;
    stage.agent = Agent::start(&stage.lab, &AgentOptions::default())?;
    let load = Load::start(&stage.client, &["-c", "2", BYTES])?;
    load.wait_for(50, DEADLINE)?;
    assert!(refused(&stage)? >= 2.0, "{:?}", stage.agent.metrics()?);

    let connections = stage.agent.connections()?;
    let reasons: Vec<&str> = connections
        .iter()
        .filter(|connection| connection["accelerated"] == false)
        .filter_map(|connection| connection["reason"].as_str())
        .collect();
    let named = |text: &str| text.contains("their_sockets") && text.contains("their_verdict");
    assert!(
        reasons.iter().any(|reason| named(reason)),
        "{connections:#?}"
    );
    let status = stage.agent.meshctl_json(&["status"])?;
    let map = &status["otherSocketMaps"][0];
    assert_eq!(map["name"], "their_sockets", "{status:#}");
    assert_eq!(map["programs"][0]["name"], "their_verdict", "{status:#}");
    // Who holds it: this test does.
    let pid = format!("({})", std::process::id());
    assert!(map["processes"].to_string().contains(&pid), "{status:#}");
    let check = stage.agent.meshctl(&["check"])?;
    assert!(named(&check.stdout), "{}", check.stdout);
    assert!(named(&stage.agent.meshctl(&["status"])?.stdout));

    let answers = load.end(Some(50_000), DEADLINE)?;
    assert_eq!(answers.wrong, 0, "{answers:#?}");
    // Once it is gone, new connections are accelerated.
    drop(other);
    let again = Load::start(&stage.client, &["-c", "2", BYTES])?;
    again.wait_for(50, DEADLINE)?;
    let connections = stage.agent.connections()?;
    let accelerated = connections
        .iter()
        .any(|connection| connection["accelerated"] == true);
    assert!(accelerated, "{connections:#?}");
    let status = stage.agent.meshctl_json(&["status"])?;
    assert_eq!(status["otherSocketMaps"], Value::Null, "{status:#}");
    let answers = again.end(Some(50_000), DEADLINE)?;
    assert_eq!(answers.wrong, 0, "{answers:#?}");
    Ok(())
}

/// A service of the mesh by each way, and a foreign load balancer whose address leads to one of them.
struct Scene {
    stage: Stage,
    by_agent: SocketAddrV4,
    direct: SocketAddrV4,
}

fn scene(name: &str) -> Result<Scene> {
    let stage = Stage::ruled(name, &["v1"], &by_agent())?;
    let plain = stage.lab.service(
        ServiceSpec::new("plain")
            .selector(&[("app", "echo")])
            .port_to("http", 80, 8080),
    )?;
    stage.ask_until(&["http://plain/"], |answer| answer["status"] == 200)?;
    Ok(Scene {
        by_agent: SocketAddrV4::new(stage.service.address, 80),
        direct: SocketAddrV4::new(plain.address, 80),
        stage,
    })
}

#[test]
fn a_connect_hook_before_ours_rewrites_and_the_mesh_serves_what_it_chose() -> Result<()> {
    let mut scene = scene("before")?;
    for target in [scene.by_agent, scene.direct] {
        scene.stage.agent.stop()?;
        scene.stage.agent.uninstall()?;
        let cgroup = scene.stage.lab.cgroup();
        let other = foreign::redirect_connects(cgroup, THEIRS, target, Sharing::Multi)?;
        scene.stage.agent = Agent::start(&scene.stage.lab, &AgentOptions::default())?;
        for url in [&theirs(), "http://echo/", "http://plain/"] {
            let answer = scene.stage.ask(&[url])?;
            assert_eq!(answer["status"], 200, "{url}: {answer:#}");
        }
        // By the agent where its choice is: the mesh saw the address that the other one wrote.
        let way = if target == scene.by_agent { 2.0 } else { 1.0 };
        scene.stage.metric_until("istio_requests_total", &[], way)?;
        drop(other);
    }
    Ok(())
}

#[test]
fn a_connect_hook_after_ours_sees_what_the_mesh_chose() -> Result<()> {
    let scene = scene("after")?;
    let server = SocketAddrV4::new(scene.stage.servers[0].address(), 8080);
    let cgroup = scene.stage.lab.cgroup();
    // Its own address leads to a pod: the mesh took that for a stranger's, and leaves it alone.
    let own = foreign::redirect_connects(cgroup, THEIRS, server, Sharing::Multi)?;
    // And one that would take the mesh's service away comes too late for it.
    let nowhere = SocketAddrV4::new(Ipv4Addr::new(10, 200, 0, 2), 1);
    let late = foreign::redirect_connects(cgroup, scene.direct, nowhere, Sharing::Multi)?;
    for url in [&theirs(), "http://echo/", "http://plain/"] {
        let answer = scene.stage.ask(&[url])?;
        assert_eq!(answer["status"], 200, "{url}: {answer:#}");
    }
    scene.stage.metric_until("istio_requests_total", &[], 1.0)?;
    drop((own, late));
    Ok(())
}

#[test]
fn a_program_that_takes_no_other_beside_it_is_named() -> Result<()> {
    for (name, sharing) in [
        ("exclusive", Sharing::Exclusive),
        ("override", Sharing::Override),
    ] {
        let lab = Lab::new(name)?;
        lab.pod(PodSpec::new("a"))?;
        let nobody = SocketAddrV4::new(Ipv4Addr::new(10, 200, 0, 2), 1);
        let other = foreign::redirect_connects(lab.cgroup(), THEIRS, nobody, sharing)?;
        let mut agent = Agent::launch(&lab, &AgentOptions::default())?;
        let output = agent.wait()?;
        assert_eq!(exit_code(output.status), KERNEL, "{}", output.stderr);
        let cgroup = lab.cgroup().display().to_string();
        for part in ["their_connect", "BPF_F_ALLOW_MULTI", &cgroup] {
            assert!(output.stderr.contains(part), "{part}: {}", output.stderr);
        }
        // A first start that fails leaves nothing.
        assert!(lab::reaper::pins_of(lab.id()).is_empty());
        drop(other);
        Agent::start(&lab, &AgentOptions::default())?;
    }
    Ok(())
}

#[test]
fn other_programs_stay_when_this_one_goes() -> Result<()> {
    let mut scene = scene("stay")?;
    let server = SocketAddrV4::new(scene.stage.servers[0].address(), 8080);
    let other =
        foreign::redirect_connects(scene.stage.lab.cgroup(), THEIRS, server, Sharing::Multi)?;
    scene.stage.agent.stop()?;
    scene.stage.agent.uninstall()?;
    let works = || {
        scene
            .stage
            .ask(&[&theirs()])
            .is_ok_and(|answer| answer["status"] == 200)
    };
    eventually(DEADLINE, works)
        .then_some(())
        .context("the other tool's address leads nowhere")?;
    drop(other);
    Ok(())
}
