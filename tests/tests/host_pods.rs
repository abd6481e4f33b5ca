//! Pods in the host's network namespace: known by their cgroup, beside processes that are no pods.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use lab::stage::{DEADLINE, SUBSETS, send, server_of};
use lab::{Pod, PodSpec, Stage, eventually};

const REFUSED: &str = "Operation not permitted";

/// A stage with a pod in the node's namespace, enrolled, and a process there that is no pod.
struct Scene {
    pod: Pod,
    process: Pod,
    stage: Stage,
}

impl Scene {
    fn new(name: &str) -> Result<Self> {
        let stage = Stage::new(name, &["v1", "v2"])?;
        let spec = PodSpec::new("host-client").service_account("host");
        let pod = stage.lab.host_pod(spec)?;
        let process = stage.lab.host_processes(PodSpec::new("daemon"))?;
        let scene = Self {
            pod,
            process,
            stage,
        };
        until(&scene.pod, "http://echo/", &["v1", "v2"])?;
        Ok(scene)
    }

    fn at(&self, server: usize) -> String {
        format!("http://{}:8080/", self.stage.servers[server].address())
    }
}

fn until(pod: &Pod, url: &str, wanted: &[&str]) -> Result<()> {
    let mut last = String::new();
    eventually(DEADLINE, || {
        last = ask(pod, url).unwrap_or_else(|error| format!("{error:#}"));
        wanted.iter().any(|one| last.contains(one))
    })
    .then_some(())
    .with_context(|| format!("{url} from {pod} never was {wanted:?}, but {last:?}"))
}

fn ask(pod: &Pod, url: &str) -> Result<String> {
    let answers = send(pod, &["--timeout-ms", "2000", url])?;
    Ok(server_of(answers.first().context("no answer")?))
}

#[test]
fn a_services_address_leads_a_pod_of_the_host_to_an_endpoint_and_nobody_else() -> Result<()> {
    let scene = Scene::new("host-direct")?;
    let labels = [
        ("source_workload", "host-client"),
        ("destination_service_name", "echo"),
    ];
    assert!(eventually(DEADLINE, || {
        let metrics = scene.stage.agent.metrics();
        metrics.is_ok_and(|one| one.sum("istio_tcp_connections_opened_total", &labels) >= 1.0)
    }));
    let answer = ask(&scene.process, "http://echo/")?;
    assert!(answer != "v1" && answer != "v2", "{answer}");
    // What it is told of its peer is what it dialled; and the process's own connections are nobody's.
    assert_eq!(ask(&scene.process, &scene.at(0))?, "v1");
    let text = scene.stage.agent.get("/metrics")?.1;
    assert!(!text.contains("daemon"), "{text}");
    // Below its cgroup it is the same pod.
    let below = scene.pod.cgroup().join("below");
    let peer = lab::binaries::find("lab-peer")?;
    let to = SocketAddr::new(scene.stage.service.address.into(), 80);
    let script = format!(
        "mkdir -p {0}; echo $$ > {0}/cgroup.procs; exec {1} intruder dial --to {to}",
        below.display(),
        peer.display()
    );
    let output = scene.pod.exec("sh", ["-ec", &script], DEADLINE)?;
    assert!(output.stdout.contains("connected"), "{}", output.stdout);
    Ok(())
}

#[test]
fn its_requests_follow_rules_and_other_processes_are_not_caught() -> Result<()> {
    let scene = Scene::new("host-agent")?;
    let rules = format!(
        "{SUBSETS}---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: echo}}\n\
         spec: {{hosts: [echo], http: [{{match: [{{headers: {{who: {{exact: me}}}}}}], \
         route: [{{destination: {{host: echo, subset: v2}}}}]}}, \
         {{route: [{{destination: {{host: echo, subset: v1}}}}]}}]}}\n"
    );
    scene.stage.rules(&rules)?;
    let by_rule = |header: &str| -> Result<String> {
        let answers = send(&scene.pod, &["-H", header, "-n", "8", "http://echo/"])?;
        let servers: Vec<String> = answers.iter().map(server_of).collect();
        Ok(servers.join(" "))
    };
    let all = |one: &str| [one; 8].join(" ");
    let labels = [
        ("source_workload", "host-client"),
        ("destination_workload", "echo-v2"),
    ];
    // Before the rule is in force a connection may lead to v2 by chance, past the agent.
    assert!(eventually(DEADLINE, || {
        let said = by_rule("who: me");
        let metrics = scene.stage.agent.metrics();
        said.is_ok_and(|said| said == all("v2"))
            && metrics.is_ok_and(|one| one.sum("istio_requests_total", &labels) >= 8.0)
    }));
    assert_eq!(by_rule("who: you")?, all("v1"));
    // The listener is in the namespace that they share; who dials it without having been sent is closed.
    let answer = ask(&scene.process, "http://127.0.0.1:15001/")?;
    assert!(answer != "v1" && answer != "v2", "{answer}");
    let answer = ask(&scene.process, "http://echo/")?;
    assert!(answer != "v1" && answer != "v2", "{answer}");
    assert_eq!(ask(&scene.process, &scene.at(1))?, "v2");
    Ok(())
}

#[test]
fn policies_know_it_by_the_nodes_address_alone() -> Result<()> {
    let scene = Scene::new("host-policy")?;
    let guard = |spec: &str| {
        scene.stage.rules(&format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: guard}}\n\
             spec: {{selector: {{matchLabels: {{app: echo}}}}, {spec}}}\n"
        ))
    };
    guard("rules: [{from: [{source: {principals: ['cluster.local/ns/default/sa/host']}}]}]")?;
    until(&scene.pod, &scene.at(0), &[REFUSED])?;
    until(&scene.pod, "http://echo/", &[REFUSED])?;
    let answer = scene
        .stage
        .agent
        .explain("default/host-client", &[], "http://echo/")?;
    assert_eq!(answer["action"], "denied", "{answer:#}");
    guard(&format!(
        "rules: [{{from: [{{source: {{ipBlocks: ['{}']}}}}]}}]",
        scene.pod.address()
    ))?;
    until(&scene.pod, &scene.at(0), &["v1"])?;
    until(&scene.pod, "http://echo/", &["v1", "v2"])?;
    // Whoever shares the address shares what it may.
    until(&scene.process, &scene.at(0), &["v1"])
}
