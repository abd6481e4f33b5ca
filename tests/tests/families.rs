//! Families of addresses: who dials how, and who listens how, makes no difference to the mesh.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};
use lab::stage::{DEADLINE, SUBSETS};
use lab::{Pod, Process, ServiceSpec, Stage, eventually, traffic};
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

/// What the client's connections to the echo service add up to, by their way.
fn total(stage: &Stage, way: &str) -> Result<traffic::Traffic> {
    let rows = stage.agent.traffic()?;
    Ok(traffic::total(&rows, |row| {
        row.way == way && row.source == "default/client" && row.service.starts_with("echo.")
    }))
}

/// Waits until all connections of one way are closed and counted.
fn settled(stage: &Stage, way: &str, opened: u64) -> traffic::Traffic {
    let mut last = traffic::Traffic::default();
    let settled = eventually(DEADLINE, || {
        last = total(stage, way).unwrap_or_default();
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
                settled(&stage, way, cells * CONNECTIONS);
            }
            let count = total(&stage, "direct")?;
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
