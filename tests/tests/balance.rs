//! Which endpoint the kernel picks: by the service's policies, for the same client again, never one that is
//! known not to answer; and what becomes of connections to one that is gone.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use lab::duel::Puppet;
use lab::stage::{DEADLINE, by_server, send};
use lab::{Agent, AgentOptions, Pod, PodSpec, Service, ServiceSpec, Stage, eventually};
use serde_json::{Value, json};

/// Where puppets listen, which nothing did before the agent.
const PORT: u16 = 8081;

fn rule(policy: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: echo}}\n\
         spec: {{host: echo, trafficPolicy: {{loadBalancer: {{simple: {policy}}}}}}}\n"
    )
}

/// How many of `count` connections from `pod` each server got.
fn spread(pod: &Pod, count: usize) -> Result<BTreeMap<String, usize>> {
    let count = count.to_string();
    let answers = send(pod, &["--reconnect", "-n", &count, "http://echo/"])?;
    Ok(by_server(&answers))
}

fn of_all(server: &str, count: usize) -> BTreeMap<String, usize> {
    [(server.to_owned(), count)].into()
}

/// The one server of these.
fn only(spread: &BTreeMap<String, usize>) -> Result<String> {
    let mut servers = spread.keys();
    let server = servers.next().cloned().context("no answer")?;
    anyhow::ensure!(servers.next().is_none(), "several: {spread:?}");
    Ok(server)
}

/// The entries of a map.
fn dump(agent: &Agent, map: &str) -> Result<Vec<Value>> {
    let list = agent.meshctl_json(&["maps", "dump", map])?;
    serde_json::from_value(list).with_context(|| format!("map {map} is no list"))
}

fn connect(client: &Puppet, name: &str, to: &str) -> Result<Value> {
    client.order(json!({"op": "connect", "on": name, "to": to}))
}

fn close(client: &Puppet, name: &str) -> Result<Value> {
    client.order(json!({"op": "close", "on": name}))
}

fn at(service: &Service, port: u16) -> String {
    format!("{}:{port}", service.address)
}

/// The open connections of the client, by the server's pod.
fn open(stage: &Stage) -> Result<BTreeMap<String, usize>> {
    servers_of(stage, |_| true)
}

fn servers_of(stage: &Stage, which: impl Fn(&Value) -> bool) -> Result<BTreeMap<String, usize>> {
    let mut open = BTreeMap::new();
    for row in stage.agent.connections()? {
        if row["source"] == "default/client" && which(&row) {
            let server = row["destination"].as_str().unwrap_or_default().to_owned();
            *open.entry(server).or_default() += 1;
        }
    }
    Ok(open)
}

/// The open connections that the kernel counts, by endpoint.
fn loads(agent: &Agent) -> Result<BTreeMap<String, u64>> {
    let entries = dump(agent, "loads")?.into_iter();
    entries
        .map(|entry| {
            let key = entry["key"].as_str().context("no key")?.to_owned();
            Ok((key, entry["value"].as_u64().context("no count")?))
        })
        .collect()
}

#[test]
fn a_service_says_by_which_policy_the_kernel_picks() -> Result<()> {
    let stage = Stage::ruled("policies", &["v1", "v2", "v3"], &rule("ROUND_ROBIN"))?;
    let each = |count| BTreeMap::from(["v1", "v2", "v3"].map(|name| (name.to_owned(), count)));
    assert_eq!(spread(&stage.client, 30)?, each(10));
    let answer = stage.agent.explain("default/client", &[], "http://echo/")?;
    assert_eq!(answer["destinations"][0]["loadBalancer"], "ROUND_ROBIN");
    assert_eq!(answer["way"], "direct");
    let dumped = dump(&stage.agent, "frontends")?;
    assert!(
        dumped
            .iter()
            .all(|one| one["value"]["loadBalancer"] == "ROUND_ROBIN"),
        "{dumped:#?}"
    );
    // Whoever asks for nothing gets any.
    stage.lab.manifests().remove("rules.yaml")?;
    let explained = eventually(DEADLINE, || {
        let answer = stage.agent.explain("default/client", &[], "http://echo/");
        answer.is_ok_and(|answer| answer["destinations"][0]["loadBalancer"] == "RANDOM")
    });
    assert!(explained);
    assert_eq!(spread(&stage.client, 60)?.len(), 3);
    Ok(())
}

#[test]
fn least_connections_are_counted_until_they_end_however_they_end() -> Result<()> {
    let mut stage = Stage::ruled("least", &["v1", "v2"], &rule("LEAST_REQUEST"))?;
    let client = Puppet::new(&stage.client)?;
    let service = at(&stage.service, 80);
    for number in 0..20 {
        connect(&client, &format!("c{number}"), &service)?;
    }
    let even =
        BTreeMap::from(["default/echo-v1", "default/echo-v2"].map(|pod| (pod.to_owned(), 10)));
    assert_eq!(open(&stage)?, even);
    // One of the two loses all of its connections, and gets all that come until they are even again.
    let of_v1: Vec<String> = {
        let first = stage.servers[0].address().to_string();
        let rows = stage.agent.connections()?;
        let to_first = |row: &&Value| {
            row["remote"]
                .as_str()
                .is_some_and(|server| server.starts_with(&first))
        };
        let local = |row: &Value| row["local"].as_str().unwrap_or_default().to_owned();
        rows.iter().filter(to_first).map(local).collect()
    };
    assert_eq!(of_v1.len(), 10, "{of_v1:?}");
    for number in 0..20 {
        let name = format!("c{number}");
        let names = client.order(json!({"op": "names", "on": name}))?;
        if of_v1.iter().any(|local| names["own"] == json!(local)) {
            close(&client, &name)?;
        }
    }
    let endpoint = |index: usize| format!("{}:8080", stage.servers[index].address());
    assert_eq!(loads(&stage.agent)?[&endpoint(0)], 0);
    // The counts outlive the agent, and an endpoint that comes: there is another group of slots then.
    stage.agent.kill()?;
    stage.agent = Agent::start(&stage.lab, &AgentOptions::default())?;
    for number in 0..10 {
        connect(&client, &format!("d{number}"), &service)?;
    }
    assert_eq!(open(&stage)?, even);
    // Nobody answers: what was counted for the SYN is taken back.
    stage.servers.iter().for_each(Pod::stop_servers);
    drop(client);
    let refused = spread(&stage.client, 5)?;
    assert!(only(&refused)?.contains("refused"), "{refused:?}");
    let gone = || loads(&stage.agent).is_ok_and(|loads| loads.values().all(|count| *count == 0));
    assert!(eventually(DEADLINE, gone), "{:?}", loads(&stage.agent)?);
    Ok(())
}

/// The service echo, with more in its spec.
fn write_service(stage: &Stage, more: &str) -> Result<()> {
    let text = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: echo, namespace: default}}\n\
         spec: {{clusterIP: {}, selector: {{app: echo}}, {more}, ports: [{{name: http, port: 80, \
         targetPort: 8080}}]}}\n",
        stage.service.address
    );
    stage
        .lab
        .manifests()
        .write("service-default-echo.yaml", &text)?;
    Ok(())
}

fn wait_for_affinity(stage: &Stage, seconds: u64) -> Result<()> {
    let written = || {
        dump(&stage.agent, "frontends").is_ok_and(|entries| {
            !entries.is_empty()
                && entries
                    .iter()
                    .all(|one| one["value"]["affinitySeconds"] == seconds)
        })
    };
    eventually(DEADLINE, written)
        .then_some(())
        .context("the service's affinity never was in force")
}

#[test]
fn a_client_keeps_its_endpoint_while_that_is_ready() -> Result<()> {
    let stage = Stage::new("affinity", &["v1", "v2", "v3"])?;
    write_service(&stage, "sessionAffinity: ClientIP")?;
    wait_for_affinity(&stage, 10_800)?;
    let mine = only(&spread(&stage.client, 30)?)?;
    let services = stage.agent.meshctl_json(&["services"])?;
    assert!(
        services
            .to_string()
            .contains("\"sessionAffinitySeconds\":10800"),
        "{services:#}"
    );
    // Twenty other pods do not all have the same one.
    let mut others = BTreeMap::new();
    for number in 0..20 {
        let pod = stage.lab.pod(PodSpec::new(format!("other-{number}")))?;
        let enrolled = || {
            let workloads = dump(&stage.agent, "local_pods").unwrap_or_default();
            workloads
                .iter()
                .any(|one| one["value"]["workload"] == pod.full_name())
        };
        assert!(eventually(DEADLINE, enrolled), "{}", stage.agent.log());
        *others.entry(only(&spread(&pod, 2)?)?).or_insert(0) += 1;
    }
    assert!(others.len() > 1, "{others:?}");
    // Another endpoint comes: nothing changes for who had one.
    let fourth = stage.lab.pod(PodSpec::new("echo-v4").app("echo", "v4"))?;
    fourth.serve(Pod::peer(["echo", "--port", "8080", "--name", "v4"])?, 8080)?;
    let slots = |count: u64| {
        eventually(DEADLINE, || {
            let entries = dump(&stage.agent, "frontends").unwrap_or_default();
            entries.iter().any(|one| one["value"]["slots"] == count)
        })
    };
    assert!(slots(4));
    assert_eq!(spread(&stage.client, 10)?, of_all(&mine, 10));
    // Its own goes: another one, and that one from then on.
    let own = stage
        .servers
        .iter()
        .find(|pod| pod.name().ends_with(&mine))
        .context("no such server")?;
    stage.lab.manifests().remove_pod(own)?;
    assert!(slots(3));
    let next = only(&spread(&stage.client, 30)?)?;
    assert_ne!(next, mine);
    assert_eq!(spread(&stage.client, 10)?, of_all(&next, 10));
    Ok(())
}

#[test]
fn an_endpoint_is_forgotten_when_the_client_stays_away_for_long() -> Result<()> {
    let stage = Stage::new("forgets", &["v1", "v2", "v3"])?;
    let config = "sessionAffinityConfig: {clientIP: {timeoutSeconds: 1}}";
    write_service(&stage, &format!("sessionAffinity: ClientIP, {config}"))?;
    wait_for_affinity(&stage, 1)?;
    let last_used = || -> Option<u64> {
        let entries = dump(&stage.agent, "affinity").ok()?;
        entries
            .iter()
            .filter_map(|one| one["value"]["usedNs"].as_u64())
            .max()
    };
    let mine = only(&spread(&stage.client, 10)?)?;
    // Each time it may get the same again, one time in three.
    let moved = eventually(DEADLINE, || {
        let Some(used) = last_used() else {
            return false;
        };
        // The heartbeat is of the same clock.
        let over = eventually(DEADLINE, || {
            let settings = dump(&stage.agent, "settings").unwrap_or_default();
            let beat = settings
                .first()
                .map(|one| one["value"]["heartbeatNs"].as_u64());
            beat.flatten() > Some(used + 1_000_000_000)
        });
        over && spread(&stage.client, 1).is_ok_and(|spread| !spread.contains_key(&mine))
    });
    assert!(moved);
    Ok(())
}

#[test]
fn a_connection_to_a_pod_of_a_headless_service_is_the_services() -> Result<()> {
    let stage = Stage::new("headless", &["v1"])?;
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: pods, namespace: default}\n\
                spec: {clusterIP: None, selector: {app: echo}, ports: [{name: http, port: 8080}]}\n";
    stage.lab.manifests().write("service-pods.yaml", text)?;
    let server = format!("{}:8080", stage.servers[0].address());
    let known = || {
        let entries = dump(&stage.agent, "frontends").unwrap_or_default();
        entries.iter().any(|one| one["key"] == server.as_str())
    };
    assert!(eventually(DEADLINE, known));
    let client = Puppet::new(&stage.client)?;
    connect(&client, "c", &server)?;
    let rows = stage.agent.connections()?;
    let row = rows
        .iter()
        .find(|row| row["source"] == "default/client")
        .with_context(|| format!("not there: {rows:#?}"))?;
    assert_eq!(row["service"], "pods.default.svc.cluster.local", "{row:#}");
    assert_eq!(row["way"], "direct", "{row:#}");
    assert_eq!(row["destination"], "default/echo-v1", "{row:#}");
    let answer = stage
        .agent
        .explain("default/client", &[], &format!("http://{server}/"))?;
    assert_eq!(answer["way"], "direct", "{answer:#}");
    assert_eq!(
        answer["service"], "pods.default.svc.cluster.local",
        "{answer:#}"
    );
    Ok(())
}

/// A service `late` before puppets of the servers, on a port that nothing listened on before the agent.
fn late(stage: &Stage) -> Result<(Service, Vec<Puppet>)> {
    let service = stage.lab.service(
        ServiceSpec::new("late")
            .port_to("tcp", 81, PORT)
            .selector(&[("app", "echo")]),
    )?;
    let address = service.address.to_string();
    let known = || {
        let entries = dump(&stage.agent, "frontends").unwrap_or_default();
        entries.iter().any(|one| {
            one["key"]
                .as_str()
                .is_some_and(|key| key.starts_with(&address))
        })
    };
    anyhow::ensure!(eventually(DEADLINE, known), "{}", stage.agent.log());
    let puppets = stage
        .servers
        .iter()
        .map(Puppet::new)
        .collect::<Result<_>>()?;
    Ok((service, puppets))
}

fn listen(server: &Puppet, name: &str, address: &str) -> Result<()> {
    let address = format!("{address}:{PORT}");
    let order = json!({"op": "listen at", "on": name, "address": address, "reuse port": true});
    assert_eq!(server.order(order)?, "listening");
    Ok(())
}

/// How many of 30 connections each server got; each is closed again.
fn taken_by(stage: &Stage, client: &Puppet, service: &Service) -> Result<BTreeMap<String, usize>> {
    const COUNT: usize = 30;
    let to = at(service, 81);
    let mut locals = Vec::new();
    for number in 0..COUNT {
        locals.push(connect(client, &format!("t{number}"), &to)?["local"].take());
    }
    // Those of earlier rounds may still wait for the server to close.
    let taken = servers_of(stage, |row| locals.contains(&row["local"]))?;
    for number in 0..COUNT {
        close(client, &format!("t{number}"))?;
    }
    assert_eq!(taken.values().sum::<usize>(), COUNT, "{taken:?}");
    Ok(taken)
}

#[test]
fn a_pod_whose_listener_closes_gets_no_new_connection() -> Result<()> {
    let stage = Stage::new("closed", &["v1", "v2"])?;
    let (service, servers) = late(&stage)?;
    let client = Puppet::new(&stage.client)?;
    let taken = || taken_by(&stage, &client, &service);
    let [first, second] = ["default/echo-v1", "default/echo-v2"];
    for server in &servers {
        listen(server, "any", "0.0.0.0")?;
    }
    assert_eq!(taken()?.len(), 2);
    close(&servers[0], "any")?;
    assert_eq!(taken()?, of_all(second, 30));
    // It comes back, in whatever way, and goes again.
    for address in ["0.0.0.0", "[::]", &stage.servers[0].address().to_string()] {
        listen(&servers[0], "back", address)?;
        assert_eq!(taken()?.len(), 2, "{address}");
        close(&servers[0], "back")?;
        assert_eq!(taken()?, of_all(second, 30), "{address}");
    }
    // Clients do not come to loopback.
    listen(&servers[0], "loopback", "127.0.0.1")?;
    assert_eq!(taken()?, of_all(second, 30));
    // Of two on one port the other goes on.
    listen(&servers[0], "one", "0.0.0.0")?;
    listen(&servers[0], "other", "0.0.0.0")?;
    close(&servers[0], "one")?;
    assert_eq!(taken()?.len(), 2);
    close(&servers[1], "any")?;
    assert_eq!(taken()?, of_all(first, 30));
    Ok(())
}

#[test]
fn where_every_listener_closed_tcp_says_so_and_an_older_one_is_left_alone() -> Result<()> {
    let mut stage = Stage::new("all-closed", &["v1", "v2"])?;
    // These were there before the agent: whether there are others nobody knows.
    stage.servers[0].stop_servers();
    let spread = spread(&stage.client, 40)?;
    assert!(
        spread.keys().any(|answer| answer.contains("refused")),
        "{spread:?}"
    );
    let (service, servers) = late(&stage)?;
    for server in &servers {
        listen(server, "any", "0.0.0.0")?;
        close(server, "any")?;
    }
    let url = format!("http://{}/", at(&service, 81));
    let answers = send(&stage.client, &["--reconnect", "-n", "4", &url])?;
    assert!(
        only(&by_server(&answers))?.contains("refused"),
        "{answers:?}"
    );
    // Another agent knows what the last one's programs saw.
    listen(&servers[1], "any", "0.0.0.0")?;
    stage.agent.kill()?;
    stage.agent = Agent::start(&stage.lab, &AgentOptions::default())?;
    let client = Puppet::new(&stage.client)?;
    assert_eq!(
        taken_by(&stage, &client, &service)?,
        of_all("default/echo-v2", 30)
    );
    Ok(())
}

fn endpoint_dies(name: &str, acceleration: &str, redirected: bool) -> Result<()> {
    let options = AgentOptions {
        arguments: vec![format!("--acceleration={acceleration}")],
        ..AgentOptions::default()
    };
    let stage = Stage::with(name, &["v1"], "", &options)?;
    let (service, servers) = late(&stage)?;
    let (server, client) = (&servers[0], Puppet::new(&stage.client)?);
    let nonblocking =
        json!({"op": "connect", "on": "c", "to": at(&service, 81), "nonblocking": true});
    listen(server, "any", "0.0.0.0")?;
    client.order(nonblocking)?;
    server.order(json!({"op": "accept", "on": "s", "from": "any", "nonblocking": true}))?;
    client.order(json!({"op": "send", "on": "c", "text": "hello"}))?;
    let rows = stage.agent.connections()?;
    let row = rows.iter().find(|row| row["source"] == "default/client");
    let row = row.with_context(|| format!("not there: {rows:#?}"))?;
    assert_eq!(row["bytesRedirected"] == 5, redirected, "{row:#}");
    // It answers nothing any more, as a node's power cut would have it.
    server.signal(libc::SIGSTOP)?;
    // Not ready is not gone.
    let manifests = stage.lab.manifests();
    let pod = &stage.servers[0];
    let port = &service.spec.ports[0];
    manifests.endpoint_slice(&service, port, &[(pod.address(), false)])?;
    let slots = || {
        let entries = dump(&stage.agent, "frontends").unwrap_or_default();
        let late = entries.iter().find(|one| one["key"] == at(&service, 81));
        late.is_some_and(|one| one["value"]["slots"] == 0)
    };
    assert!(eventually(DEADLINE, slots));
    assert_eq!(open(&stage)?.len(), 1);
    // Left its service, but there: a debugged pod keeps its connections.
    manifests.endpoint_slice(&service, port, &[] as &[(std::net::Ipv4Addr, bool)])?;
    let left = || {
        let services = stage.agent.meshctl_json(&["services"]).unwrap_or_default();
        !services
            .to_string()
            .contains(&format!("{}:{PORT}", pod.address()))
    };
    assert!(eventually(DEADLINE, left));
    assert_eq!(open(&stage)?.len(), 1);
    // Gone.
    manifests.remove_pod(pod)?;
    let polled = client.order(json!({
        "op": "poll", "on": "c", "events": libc::POLLIN, "within": DEADLINE.as_millis() as u64,
    }))?;
    let answer = client.order(json!({"op": "recv", "on": "c", "size": 10}))?;
    assert!(
        answer == json!(format!("error {}", libc::ECONNABORTED)),
        "{polled} {answer}"
    );
    assert_eq!(open(&stage)?, BTreeMap::new());
    Ok(())
}

#[test]
fn a_connection_to_an_endpoint_that_is_gone_is_closed() -> Result<()> {
    endpoint_dies("dead-plain", "off", false)
}

#[test]
fn a_redirected_connection_to_an_endpoint_that_is_gone_is_closed() -> Result<()> {
    endpoint_dies("dead-redirected", "auto", true)
}
