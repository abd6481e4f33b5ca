//! Maps that are full: what does not fit costs acceleration, counting, or the mesh's part, and says so. A policy
//! that does not fit refuses.

use anyhow::{Context, Result};
use lab::stage::{DEADLINE, server_of};
use lab::{AgentOptions, Pod, PodSpec, ServiceSpec, Stage, eventually};

const REFUSED: &str = "Operation not permitted";

fn stage(name: &str, capacities: &str) -> Result<Stage> {
    let options = AgentOptions::default().argument(format!("--map-capacity={capacities}"));
    Stage::with(name, &["v1"], "", &options)
}

fn ask(pod: &Pod, url: &str) -> String {
    let answers = lab::stage::send(pod, &["--timeout-ms", "1500", url]);
    let answer = answers.map(|answers| answers.first().map(server_of).unwrap_or_default());
    answer.unwrap_or_else(|error| format!("{error:#}"))
}

fn ask_until(pod: &Pod, url: &str, wanted: &str) -> Result<()> {
    let mut last = String::new();
    eventually(DEADLINE, || {
        last = ask(pod, url);
        last.contains(wanted)
    })
    .then_some(())
    .with_context(|| format!("{url} from {pod} never was {wanted:?}, but {last:?}"))
}

/// `meshctl status` and the metrics name the map.
fn says(stage: &Stage, map: &str) -> Result<()> {
    let mut last = String::new();
    eventually(DEADLINE, || {
        let status = stage.agent.meshctl(&["status", "-o", "json"]);
        last = status.map_or_else(|error| format!("{error:#}"), |output| output.stdout);
        last.contains(&format!("map {map}: writing")) && last.contains("the map is full")
    })
    .then_some(())
    .with_context(|| format!("status never named {map}: {last}"))?;
    stage.metric_until("zerohop_maps_incomplete", &[], 1.0)
}

fn guard(name: &str, app: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}}}\n\
         spec: {{selector: {{matchLabels: {{app: {app}}}}}, {spec}}}\n"
    )
}

/// A further server, of another application.
fn another(stage: &Stage, name: &str) -> Result<Pod> {
    let pod = stage.lab.pod(PodSpec::new(name).app(name, "v1"))?;
    pod.serve(Pod::peer(["echo", "--port", "8080", "--name", name])?, 8080)?;
    Ok(pod)
}

fn at(pod: &Pod) -> String {
    format!("http://{}:8080/", pod.address())
}

#[test]
fn a_guarded_pod_that_finds_no_room_refuses_everybody() -> Result<()> {
    let stage = stage("full-access", "access=1")?;
    let other = another(&stage, "other")?;
    let stranger = stage.lab.stranger(PodSpec::new("stranger"))?;
    let servers = [&stage.servers[0], &other];
    for server in servers {
        ask_until(&stage.client, &at(server), server_name(server))?;
    }
    // Both let the client in, and there is room for one of them.
    let allow = format!(
        "rules: [{{from: [{{source: {{ipBlocks: ['{}', '{}']}}}}]}}]",
        stage.client.address(),
        stranger.address()
    );
    stage.rules(&(guard("one", "echo", &allow) + &guard("two", "other", &allow)))?;
    says(&stage, "access")?;
    let let_in = |pod: &Pod| {
        let ins = servers.map(|server| ask(pod, &at(server)) == server_name(server));
        ins.iter().filter(|one| **one).count()
    };
    assert_eq!(let_in(&stage.client), 1);
    assert_eq!(let_in(&stranger), 1);
    // Pods that nobody guards are as they were.
    stage.lab.manifests().remove("rules.yaml")?;
    for server in servers {
        ask_until(&stage.client, &at(server), server_name(server))?;
    }
    stage.metric_until("zerohop_maps_incomplete", &[], 0.0)
}

fn server_name(pod: &Pod) -> &str {
    match pod.name() {
        "echo-v1" => "v1",
        name => name,
    }
}

#[test]
fn a_policy_that_is_too_large_refuses_and_one_that_fits_comes_back() -> Result<()> {
    for (map, spec) in [
        ("access_sources", blocks(5000)),
        ("access_ports", ports(3000)),
    ] {
        let name = format!("full-{}", map.replace('_', "-"));
        let stage = stage(&name, &format!("{map}=1000"))?;
        let (client, server) = (&stage.client, &stage.servers[0]);
        ask_until(client, &at(server), "v1")?;
        stage.rules(&guard("large", "echo", &spec))?;
        says(&stage, map)?;
        ask_until(client, &at(server), REFUSED)?;
        assert!(ask(client, "http://echo/").contains(REFUSED));
        let small = if map == "access_sources" {
            blocks(500)
        } else {
            ports(300)
        };
        stage.rules(&guard("large", "echo", &small))?;
        ask_until(client, &at(server), "v1")?;
        stage.metric_until("zerohop_maps_incomplete", &[], 0.0)?;
    }
    Ok(())
}

/// Denies so many blocks, none of them the client's.
fn blocks(count: u32) -> String {
    let block = |n: u32| format!("'172.{}.{}.0/24'", 16 + n / 256, n % 256);
    let list: Vec<String> = (0..count).map(block).collect();
    format!(
        "action: DENY, rules: [{{from: [{{source: {{ipBlocks: [{}]}}}}]}}]",
        list.join(", ")
    )
}

/// Denies so many ports, none of them the server's.
fn ports(count: u32) -> String {
    let list: Vec<String> = (20_000..20_000 + count)
        .map(|port| format!("'{port}'"))
        .collect();
    format!(
        "action: DENY, rules: [{{to: [{{operation: {{ports: [{}]}}}}]}}]",
        list.join(", ")
    )
}

#[test]
fn thousands_of_blocks_are_judged_one_by_one() -> Result<()> {
    let stage = Stage::new("many-blocks", &["v1"])?;
    let stranger = stage.lab.stranger(PodSpec::new("stranger"))?;
    let server = &stage.servers[0];
    ask_until(&stage.client, &at(server), "v1")?;
    let with = blocks(9000).replace(
        "ipBlocks: [",
        &format!("ipBlocks: ['{}', ", stage.client.address()),
    );
    stage.rules(&guard("many", "echo", &with))?;
    ask_until(&stage.client, &at(server), REFUSED)?;
    assert_eq!(ask(&stranger, &at(server)), "v1");
    Ok(())
}

#[test]
fn pods_and_services_that_find_no_room_leave_the_others_as_they_were() -> Result<()> {
    // Five ports before one pod; the client and the server are two pods with two addresses each.
    for (map, capacity) in [
        ("workloads", 2),
        ("local_pods", 4),
        ("frontends", 5),
        ("endpoints", 5),
    ] {
        let name = format!("full-{}", map.replace('_', "-"));
        let stage = stage(&name, &format!("{map}={capacity}"))?;
        ask_until(&stage.client, "http://echo/", "v1")?;
        let third = another(&stage, "third")?;
        if map == "frontends" || map == "endpoints" {
            stage
                .lab
                .service(ServiceSpec::new("third").port_to("http", 80, 8080))?;
        }
        says(&stage, map).with_context(|| stage.agent.log())?;
        // What was good stays, and the pod itself is reached by plain TCP, by whomever.
        assert_eq!(ask(&stage.client, "http://echo/"), "v1", "{map}");
        assert_eq!(ask(&stage.client, &at(&third)), "third", "{map}");
        assert_eq!(ask(&third, &at(&stage.servers[0])), "v1", "{map}");
        // Room again: in force again.
        stage.lab.manifests().remove_pod(&third)?;
        if map == "frontends" || map == "endpoints" {
            stage.lab.manifests().remove("service-default-third.yaml")?;
        }
        stage.metric_until("zerohop_maps_incomplete", &[], 0.0)?;
    }
    Ok(())
}

#[test]
fn what_only_counts_or_only_speeds_up_costs_no_connection() -> Result<()> {
    let friends =
        "rules: [{from: [{source: {principals: ['cluster.local/ns/default/sa/default']}}]}]";
    for capacity in [
        "denials=1",
        "names=4",
        "excluded_ports=1",
        "announced=1",
        "handshakes=1",
        "origins=1",
        "nameservers=1",
    ] {
        let name = format!("full-{}", capacity.replace(['=', '_'], "-"));
        let options = AgentOptions::default().argument(format!("--map-capacity={capacity}"));
        let stage = Stage::with(&name, &["v1"], "", &options);
        let stage = match stage {
            Ok(stage) => stage,
            // Names that do not fit are told at the start, too.
            Err(error) if capacity.starts_with("names") => {
                assert!(format!("{error:#}").contains("map names"), "{error:#}");
                continue;
            }
            Err(error) => return Err(error.context(capacity)),
        };
        stage.rules(&guard("friends", "echo", friends))?;
        for _ in 0..30 {
            ask_until(&stage.client, "http://echo/", "v1").context(capacity)?;
        }
    }
    Ok(())
}
