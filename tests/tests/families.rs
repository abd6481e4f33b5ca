//! Families of addresses: who dials how, and who listens how, makes no difference to the mesh.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};
use lab::stage::{DEADLINE, SUBSETS};
use lab::{Families, Pod, Process, Service, ServiceSpec, Stage, eventually, traffic};
use serde_json::Value;

/// Port 7000 is direct, as nothing decides about it; on port 7001, of no protocol, requests do.
const RULES: &str = "---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: echo}
spec: {hosts: [echo], http: [{route: [{destination: {host: echo, subset: v1}}]}]}
";
const DIRECT: u16 = 7000;
const BY_AGENT: u16 = 7001;
const CONNECTIONS: u64 = 12;
const BYTES: u64 = 100_000;

/// How a client of a family writes an IPv4 address.
type Writing = (&'static str, fn(IpAddr) -> IpAddr);

const CLIENTS: [Writing; 2] = [("AF_INET", |address| address), ("AF_INET6, mapped", mapped)];
const LISTENERS: [&str; 2] = ["0.0.0.0", "[::]"];

/// `::ffff:a.b.c.d`, as Java and others dial.
fn mapped(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().into(),
        IpAddr::V6(_) => address,
    }
}

fn spawn(pod: &Pod, words: &str) -> Result<Process> {
    pod.spawn(Pod::peer(words.split_whitespace())?)
}

/// Connections from the client to `to`, served on `listen` of the first server: both reports.
fn exchange(stage: &Stage, to: SocketAddr, listen: &str) -> Result<(Value, Value)> {
    let what = format!("{to} on {listen}");
    let stream = format!("-n {CONNECTIONS} --poll --bytes {BYTES}");
    let mut serving = spawn(
        &stage.servers[0],
        // A socket that its peer has closed does not tell whose it was.
        &format!("stream-server --listen {listen} {stream} --keep"),
    )?;
    stage.servers[0].wait_listening(&mut serving, to.port())?;
    let sent = spawn(&stage.client, &format!("stream-client {to} -c 4 {stream}"))?
        .wait(DEADLINE)
        .with_context(|| what.clone())?
        .json()?;
    assert_eq!(sent["ok"], CONNECTIONS, "{what}: {sent:#}");
    let got = serving
        .wait(DEADLINE)
        .with_context(|| what.clone())?
        .json()?;
    assert_eq!(got["ok"], CONNECTIONS, "{what}: {got:#}");
    assert_eq!(sent["sent"], got["received"], "{what}");
    assert_eq!(sent["received"], got["sent"], "{what}");
    Ok((sent, got))
}

/// The addresses of one kind that a report has seen.
fn addresses(report: &Value, kind: &str) -> Result<Vec<SocketAddr>> {
    let list = report["addresses"].as_array().context("no addresses")?;
    list.iter()
        .map(|entry| Ok(entry[kind].as_str().context("no address")?.parse()?))
        .collect()
}

/// What the client's connections to a service add up to, by their way.
fn total(stage: &Stage, service: &Service, way: &str) -> Result<traffic::Traffic> {
    let rows = stage.agent.traffic()?;
    let host = format!("{}.default.svc.cluster.local", service.spec.name);
    Ok(traffic::total(&rows, |row| {
        row.way == way && row.source == "default/client" && row.service == host
    }))
}

/// Waits until all connections of one way are closed and counted.
fn settled(stage: &Stage, service: &Service, way: &str, opened: u64) -> traffic::Traffic {
    let mut last = traffic::Traffic::default();
    let settled = eventually(DEADLINE, || {
        last = total(stage, service, way).unwrap_or_default();
        last.closed == opened
    });
    assert!(settled, "{opened} by {way}, but: {last:?}");
    assert_eq!(last.opened, opened, "{last:?}");
    last
}

#[test]
fn every_family_of_client_and_listener_is_accelerated_and_routed() -> Result<()> {
    let stage = Stage::ruled("families", &["v1"], &format!("{SUBSETS}{RULES}"))?;
    let service = IpAddr::from(stage.service.address);
    let client = IpAddr::from(stage.client.address());
    let mut cells = 0;
    let mut redirected = 0;
    for (family, write) in CLIENTS {
        for listen in LISTENERS {
            let what = format!("{family} to {listen}");
            cells += 1;
            for (port, way) in [(DIRECT, "direct"), (BY_AGENT, "agent")] {
                let to = SocketAddr::new(write(service), port);
                let answer = stage
                    .agent
                    .explain("default/client", &[], &format!("tcp://{to}"))?;
                assert_eq!(answer["way"], way, "{what}: {answer:#}");
                let (sent, got) = exchange(&stage, to, &format!("{listen}:{port}"))?;
                // The application believes that it talks to the service, as itself.
                for peer in addresses(&sent, "peer")? {
                    assert_eq!(peer, to, "{what}, {way}");
                }
                for local in addresses(&sent, "local")? {
                    assert_eq!(local.ip(), write(client), "{what}, {way}");
                }
                for peer in addresses(&got, "peer")? {
                    assert_eq!(peer.ip().to_canonical(), client, "{what}, {way}");
                }
                settled(&stage, &stage.service, way, cells * CONNECTIONS);
            }
            let count = total(&stage, &stage.service, "direct")?;
            // With the streams' headers.
            let expected = cells * CONNECTIONS * (BYTES + 16);
            assert_eq!((count.sent, count.received), (expected, expected), "{what}");
            assert!(
                count.redirected > redirected,
                "{what}: nothing was accelerated"
            );
            redirected = count.redirected;
        }
    }
    Ok(())
}

#[test]
fn an_ipv6_socket_that_dials_an_ipv4_address_meets_the_mesh() -> Result<()> {
    let stage = Stage::new("mapped", &["v1"])?;
    // A pod's own address: untouched, and accelerated all the same.
    let pod = SocketAddr::new(mapped(stage.servers[0].address().into()), DIRECT);
    let (sent, _) = exchange(&stage, pod, "0.0.0.0:7000")?;
    for peer in addresses(&sent, "peer")? {
        assert_eq!(peer, pod);
    }
    let rows = stage.agent.traffic()?;
    let count = traffic::total(&rows, |row| row.source == "default/client");
    assert!(count.redirected > 0, "{rows:#?}");
    // A service without endpoints refuses at once, as for an IPv4 socket.
    let nobody = stage
        .lab
        .service(ServiceSpec::new("nobody").port("tcp", DIRECT))?;
    for (family, write) in CLIENTS {
        let to = SocketAddr::new(write(nobody.address.into()), DIRECT);
        let mut last = Value::Null;
        let refused = eventually(DEADLINE, || {
            let report = spawn(&stage.client, &format!("stream-client {to}"))
                .and_then(|p| p.wait(DEADLINE)?.json());
            last = report.unwrap_or_default();
            last["errors"].to_string().contains("os error 111")
        });
        assert!(refused, "{family}: {last:#}");
    }
    Ok(())
}

/// An IPv6 service of both ports, once what stands at its address is in force.
fn ipv6_service(stage: &Stage, name: &str, families: Families) -> Result<Service> {
    let spec = ServiceSpec::new(name)
        .selector(&[("app", "echo")])
        .families(families)
        .port("tcp", DIRECT)
        .port("mystery", BY_AGENT);
    let service = stage.lab.service(spec)?;
    let rule = format!(
        "apiVersion: networking.istio.io/v1\n\
         kind: VirtualService\n\
         metadata: {{name: {name}}}\n\
         spec: {{hosts: [{name}], http: [{{route: [{{destination: {{host: {name}}}}}]}}]}}\n"
    );
    stage
        .lab
        .manifests()
        .write(&format!("{name}.yaml"), &rule)?;
    in_force(stage, &service, BY_AGENT, "agent");
    Ok(service)
}

fn in_force(stage: &Stage, service: &Service, port: u16, verdict: &str) {
    let key = SocketAddr::new(service.address6().into(), port).to_string();
    let mut last = Value::Null;
    let there = eventually(DEADLINE, || {
        let entry = stage
            .agent
            .meshctl_json(&["maps", "get", "frontends", &key]);
        last = entry.unwrap_or_default();
        last.to_string()
            .contains(&format!("\"verdict\":\"{verdict}\""))
    });
    assert!(there, "{key}: {last}\n{}", stage.agent.log());
}

#[test]
fn native_ipv6_is_accelerated_and_routed() -> Result<()> {
    let stage = Stage::new("native", &["v1"])?;
    let client = IpAddr::from(stage.client.address6());
    let pod = stage.servers[0].address6();
    for (name, families) in [("dual", Families::Both), ("six", Families::Ipv6)] {
        let service = ipv6_service(&stage, name, families)?;
        let url = format!("tcp://[{}]:{BY_AGENT}", service.address6());
        let answer = stage.agent.explain("default/client", &[], &url)?;
        assert_eq!(answer["way"], "agent", "{answer:#}");
        for (listener, cells) in [("[::]".to_owned(), 1), (format!("[{pod}]"), 2)] {
            let what = format!("{name} on {listener}");
            if name == "dual" && cells == 2 {
                // The agent reaches the pods of a dual-stack service by IPv4.
                continue;
            }
            for (port, way) in [(DIRECT, "direct"), (BY_AGENT, "agent")] {
                let to = SocketAddr::new(service.address6().into(), port);
                let (sent, got) = exchange(&stage, to, &format!("{listener}:{port}"))?;
                for peer in addresses(&sent, "peer")? {
                    assert_eq!(peer, to, "{what}, {way}");
                }
                for local in addresses(&sent, "local")? {
                    assert_eq!(local.ip(), client, "{what}, {way}");
                }
                let seen = if name == "dual" && way == "agent" {
                    stage.client.address().into()
                } else {
                    client
                };
                for peer in addresses(&got, "peer")? {
                    assert_eq!(peer.ip().to_canonical(), seen, "{what}, {way}");
                }
                let count = settled(&stage, &service, way, cells * CONNECTIONS);
                assert_eq!(
                    count.sent,
                    cells * CONNECTIONS * (BYTES + 16),
                    "{what}, {way}"
                );
                assert_eq!(
                    count.redirected > 0,
                    way == "direct",
                    "{what}, {way}: {count:?}"
                );
            }
        }
    }
    Ok(())
}

#[test]
fn ipv6_endpoint_slices_and_pod_addresses_are_reached() -> Result<()> {
    let stage = Stage::new("sliced", &["v1"])?;
    let pod = stage.servers[0].address6();
    let spec = ServiceSpec::new("sliced")
        .selector(&[])
        .families(Families::Ipv6)
        .port("tcp", DIRECT);
    let service = stage.lab.service(spec)?;
    in_force(&stage, &service, DIRECT, "direct");
    // Nobody is there: refused at once.
    let to = SocketAddr::new(service.address6().into(), DIRECT);
    let report = spawn(&stage.client, &format!("stream-client {to}"))?
        .wait(DEADLINE)?
        .json()?;
    assert!(
        report["errors"].to_string().contains("os error 111"),
        "{report:#}"
    );
    let port = &service.spec.ports[0];
    stage
        .lab
        .manifests()
        .endpoint_slice(&service, port, &[(pod, true)])?;
    let mut log = String::new();
    let reached = eventually(DEADLINE, || {
        log = stage
            .agent
            .meshctl_json(&["maps", "dump", "endpoints"])
            .map_or_else(|error| error.to_string(), |dump| dump.to_string());
        log.contains(&format!("[{pod}]:{DIRECT}"))
    });
    assert!(reached, "{log}");
    exchange(&stage, to, "[::]:7000")?;
    let count = settled(&stage, &service, "direct", CONNECTIONS);
    assert!(count.redirected > 0, "{count:?}");
    // By the pod's own address, too.
    let direct = SocketAddr::new(pod.into(), DIRECT);
    let (sent, _) = exchange(&stage, direct, "[::]:7000")?;
    for peer in addresses(&sent, "peer")? {
        assert_eq!(peer, direct);
    }
    let rows = stage.agent.traffic()?;
    let by_pod = traffic::total(&rows, |row| {
        row.source == "default/client" && row.way == "pass"
    });
    assert!(by_pod.redirected > 0, "{rows:#?}");
    Ok(())
}

#[test]
fn a_full_map_costs_acceleration_and_no_connection() -> Result<()> {
    for capacity in [
        "sockets=1",
        "sockets=2",
        "peers=1",
        "listeners=1",
        "traffic=1",
    ] {
        let name = capacity.replace('=', "-");
        let options = lab::AgentOptions::default().argument(format!("--map-capacity={capacity}"));
        let stage = Stage::with(&name, &["v1"], "", &options)?;
        let service = IpAddr::from(stage.service.address);
        for (_, write) in CLIENTS {
            let to = SocketAddr::new(write(service), DIRECT);
            exchange(&stage, to, "[::]:7000")
                .with_context(|| format!("{capacity}\n{}", stage.agent.log()))?;
        }
        if name.starts_with("sockets") {
            let refused = stage.agent.metrics()?.sum(
                "zerohop_kernel_events_total",
                &[("event", "socket_refused")],
            );
            assert!(refused > 0.0, "{capacity}: the map never was full");
        }
    }
    Ok(())
}
