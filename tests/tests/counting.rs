//! What is counted: exact, live, by both families, with and without acceleration, through the agent's death;
//! and what is told of single connections.

use std::net::{IpAddr, SocketAddr};
use std::process::ChildStdin;

use anyhow::{Context, Result, ensure};
use lab::stage::DEADLINE;
use lab::{Agent, AgentOptions, Pod, PodSpec, Process, ServiceSpec, Stage, eventually};
use serde_json::Value;

const PORT: u16 = 7000;
/// Of one direction of one connection: the stream and its header.
const BYTES: u64 = 30_000;
const STREAM: u64 = BYTES + 16;
const CLIENT: (&str, &str) = ("source", "default/client");
const SERVER: (&str, &str) = ("destination", "default/echo-v1");

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counters, far below what a float holds exactly"
)]
fn whole(sum: f64) -> u64 {
    sum.round() as u64
}

#[expect(clippy::cast_precision_loss, reason = "as above")]
fn float(number: u64) -> f64 {
    number as f64
}

fn spawn(pod: &Pod, words: &str) -> Result<Process> {
    pod.spawn(Pod::peer(words.split_whitespace())?)
}

/// A server of streams that sends as much as it receives, until it is dropped.
fn serve(pod: &Pod) -> Result<(Process, ChildStdin)> {
    let words = format!("stream-server --listen [::]:{PORT} --poll --order last --bytes {BYTES}");
    let mut server = spawn(pod, &words)?;
    let stdin = server.take_stdin().context("no standard input")?;
    pod.wait_listening(&mut server, PORT)?;
    Ok((server, stdin))
}

/// Clients that stay when their streams are through, until their input ends.
fn hold(pod: &Pod, to: impl std::fmt::Display, connections: u64) -> Result<(Process, ChildStdin)> {
    let words = format!(
        "stream-client {to} -n {connections} -c {connections} --poll --hold --order first --bytes {BYTES}"
    );
    let mut client = spawn(pod, &words)?;
    let stdin = client.take_stdin().context("no standard input")?;
    Ok((client, stdin))
}

/// Lets them go: all must have gone well.
fn release((client, stdin): (Process, ChildStdin), connections: u64) -> Result<()> {
    drop(stdin);
    let report = client.wait(DEADLINE)?.json()?;
    assert_eq!(report["ok"], connections, "{report:#}");
    Ok(())
}

/// Polls a metric of the client's connections to the server.
fn until(stage: &Stage, name: &str, wanted: u64) -> Result<()> {
    stage.metric_until(name, &[CLIENT, SERVER], float(wanted))
}

/// What the pair's metrics say must be so, all of it, in one scrape.
fn exactly(stage: &Stage, opened: u64, open: u64, streams: u64) -> Result<()> {
    let metrics = stage.agent.metrics()?;
    let sum = |name: &str| whole(metrics.sum(name, &[CLIENT, SERVER]));
    assert_eq!(sum("zerohop_tcp_connections_opened_total"), opened);
    assert_eq!(sum("zerohop_tcp_connections_closed_total"), opened - open);
    assert_eq!(sum("zerohop_tcp_open_connections"), open);
    assert_eq!(sum("zerohop_tcp_sent_bytes_total"), streams * STREAM);
    assert_eq!(sum("zerohop_tcp_received_bytes_total"), streams * STREAM);
    // A round trip for each that has closed.
    assert_eq!(sum("zerohop_tcp_rtt_seconds_count"), opened - open);
    let istio = [
        ("source_workload", "client"),
        ("destination_workload", "echo-v1"),
        ("reporter", "source"),
    ];
    for name in [
        "istio_tcp_sent_bytes_total",
        "istio_tcp_received_bytes_total",
    ] {
        assert_eq!(whole(metrics.sum(name, &istio)), streams * STREAM, "{name}");
    }
    Ok(())
}

#[test]
fn bytes_are_exact_while_a_connection_is_open_and_after() -> Result<()> {
    const EACH: u64 = 5;
    let stage = Stage::new("count-exact", &["v1"])?;
    let pod = &stage.servers[0];
    let server = serve(pod)?;
    let addresses: [IpAddr; 2] = [pod.address().into(), pod.address6().into()];
    let mut streams = 0;
    let mut redirected = 0.0;
    for acceleration in ["on", "off"] {
        stage.agent.meshctl_json(&["acceleration", acceleration])?;
        for address in addresses {
            let to = SocketAddr::new(address, PORT);
            let held = hold(&stage.client, to, EACH)?;
            streams += EACH;
            until(&stage, "zerohop_tcp_open_connections", EACH)?;
            until(&stage, "zerohop_tcp_sent_bytes_total", streams * STREAM)?;
            until(&stage, "zerohop_tcp_received_bytes_total", streams * STREAM)?;
            exactly(&stage, streams, EACH, streams)?;
            let rows = stage.agent.connections()?;
            assert_eq!(rows.len() as u64, EACH, "{rows:#?}");
            for row in &rows {
                let carried = (&row["bytesSent"], &row["bytesReceived"]);
                assert_eq!(carried, (&STREAM.into(), &STREAM.into()), "{row:#}");
                let (rtt, least) = (row["rttUs"].as_u64(), row["minRttUs"].as_u64());
                assert!(rtt > Some(0) && least > Some(0), "{row:#}");
                // A reader that lagged has sent its sender over to TCP: the bytes are the same.
                assert!(
                    acceleration == "on" || row["bytesRedirected"] == 0,
                    "{row:#}"
                );
                assert_eq!(row["retransmits"], 0, "{row:#}");
            }
            release(held, EACH)?;
            until(&stage, "zerohop_tcp_open_connections", 0)?;
            exactly(&stage, streams, 0, streams)?;
        }
        let sums = ["sent", "received"].map(|kind| {
            let name = format!("zerohop_tcp_redirected_{kind}_bytes_total");
            let metrics = stage.agent.metrics().unwrap_or_default();
            metrics.sum(&name, &[CLIENT, SERVER])
        });
        match acceleration {
            "on" => assert!(sums[0] > 0.0 && sums[1] > 0.0, "{sums:?}"),
            _ => assert!((sums[0] + sums[1] - redirected).abs() < 0.5, "{sums:?}"),
        }
        redirected = sums[0] + sums[1];
    }
    drop(server);
    Ok(())
}

#[test]
fn nothing_is_lost_when_the_agent_is_killed() -> Result<()> {
    let mut stage = Stage::new("count-killed", &["v1"])?;
    let server = serve(&stage.servers[0])?;
    let to = format!("echo:{PORT}");
    let before = hold(&stage.client, &to, 4)?;
    let through = hold(&stage.client, &to, 3)?;
    until(&stage, "zerohop_tcp_sent_bytes_total", 7 * STREAM)?;
    until(&stage, "zerohop_tcp_received_bytes_total", 7 * STREAM)?;
    stage.agent.kill()?;
    // With nobody there, some close and others come.
    release(before, 4)?;
    let meanwhile = hold(&stage.client, &to, 2)?;
    let short = spawn(
        &stage.client,
        &format!("stream-client {to} -n 6 --poll --order first --bytes {BYTES}"),
    )?;
    assert_eq!(short.wait(DEADLINE)?.json()?["ok"], 6);
    stage.agent = Agent::start(&stage.lab, &AgentOptions::default())?;
    until(&stage, "zerohop_tcp_open_connections", 5)?;
    until(&stage, "zerohop_tcp_sent_bytes_total", 15 * STREAM)?;
    exactly(&stage, 15, 5, 15)?;
    release(through, 3)?;
    release(meanwhile, 2)?;
    until(&stage, "zerohop_tcp_open_connections", 0)?;
    exactly(&stage, 15, 0, 15)?;
    drop(server);
    Ok(())
}

/// How often connects of the client failed for this cause, polled.
fn failures(stage: &Stage, labels: &[(&str, &str)], wanted: u64) -> Result<()> {
    let labels: Vec<_> = [CLIENT].into_iter().chain(labels.iter().copied()).collect();
    stage.metric_until("zerohop_connect_failures_total", &labels, float(wanted))
}

/// One connect that is to fail.
fn fails(pod: &Pod, to: impl std::fmt::Display) -> Result<String> {
    let report = spawn(pod, &format!("stream-client {to}"))?
        .wait(DEADLINE)?
        .json()?;
    ensure!(report["ok"] == 0, "{report:#}");
    Ok(report["errors"].to_string())
}

#[test]
fn connects_that_fail_are_counted_by_their_cause() -> Result<()> {
    let stage = Stage::new("count-causes", &["v1", "v2"])?;
    let (first, second) = (&stage.servers[0], &stage.servers[1]);
    let client = &stage.client;
    // Nobody listens: by the pod's address, and by the service.
    fails(client, SocketAddr::from((first.address(), PORT)))?;
    fails(client, SocketAddr::from((first.address6(), PORT)))?;
    failures(&stage, &[SERVER, ("cause", "refused")], 2)?;
    fails(client, "echo:7000")?;
    let service = ("service", "echo.default.svc.cluster.local");
    failures(&stage, &[service, ("cause", "refused")], 1)?;
    // No endpoint.
    stage
        .lab
        .service(ServiceSpec::new("nobody").port("tcp", PORT))?;
    assert!(eventually(DEADLINE, || {
        fails(client, "nobody:7000").is_ok_and(|error| error.contains("os error 111"))
    }));
    let nobody = ("service", "nobody.default.svc.cluster.local");
    let empty = [CLIENT, nobody, ("cause", "no_endpoint")];
    assert!(eventually(DEADLINE, || {
        let metrics = stage.agent.metrics().unwrap_or_default();
        metrics.sum("zerohop_connect_failures_total", &empty) >= 1.0
    }));
    // The SYN arrives, and its answer does not.
    client.sysctl("net.ipv4.tcp_syn_retries", "1")?;
    let back = format!("{}/32", client.address());
    first
        .exec("ip", ["route", "add", "blackhole", &back], DEADLINE)?
        .success()?;
    let at_http = format!("{}:8080", first.address());
    assert!(fails(client, &at_http)?.contains("os error 110"));
    failures(&stage, &[SERVER, ("cause", "timed_out")], 1)?;
    // Nor does the application wait for it.
    let url = format!("http://{at_http}/");
    lab::stage::send(client, &["--timeout-ms", "300", &url])?;
    failures(&stage, &[SERVER, ("cause", "abandoned")], 1)?;
    // Nobody answers for the address.
    client.sysctl("net.ipv4.tcp_syn_retries", "4")?;
    second
        .exec("ip", ["link", "set", "eth0", "down"], DEADLINE)?
        .success()?;
    client
        .exec("ip", ["neigh", "flush", "all"], DEADLINE)?
        .success()?;
    let error = fails(client, format!("{}:8080", second.address()))?;
    assert!(error.contains("os error 113"), "{error}");
    let second = ("destination", "default/echo-v2");
    failures(&stage, &[second, ("cause", "unreachable")], 1)?;
    // A policy.
    stage.rules(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: deny}\n\
         spec: {action: DENY, selector: {matchLabels: {version: v1}}, rules: [{}]}\n",
    )?;
    assert!(eventually(DEADLINE, || {
        fails(client, &at_http).is_ok_and(|error| error.contains("os error 1)"))
    }));
    let denied = [CLIENT, SERVER, ("cause", "denied")];
    let metrics = stage.agent.metrics()?;
    assert!(metrics.sum("zerohop_connect_failures_total", &denied) >= 1.0);
    // None of them ever was a connection.
    assert!(metrics.sum("zerohop_tcp_connections_opened_total", &[CLIENT]) < 0.5);
    Ok(())
}

const BY_AGENT: &str = "\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: echo}
spec: {hosts: [echo], http: [{route: [{destination: {host: echo}}]}]}
";

const DENY: &str = "\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny}
spec: {action: DENY, selector: {matchLabels: {app: echo}}, rules: [{}]}
";

#[test]
fn what_needed_the_agent_and_what_the_agent_refused_are_counted() -> Result<()> {
    let mut stage = Stage::ruled("count-agent", &["v1"], &format!("{BY_AGENT}---\n{DENY}"))?;
    let careful = stage.lab.pod(
        PodSpec::new("careful")
            .app("careful", "v1")
            .annotation("zerohop.dev/failure-policy", "closed"),
    )?;
    let ask = |pod: &Pod, wanted: &str| {
        let mut last = String::new();
        let seen = eventually(DEADLINE, || {
            let answers = lab::stage::send(pod, &["--timeout-ms", "2000", "http://echo/"]);
            last = format!("{answers:?}");
            last.contains(wanted)
        });
        assert!(seen, "{wanted}: {last}");
    };
    ask(&stage.client, "403");
    ask(&careful, "403");
    let refused = [
        CLIENT,
        SERVER,
        ("policy", "AuthorizationPolicy default/deny"),
        ("place", "agent"),
    ];
    let denials = |stage: &Stage| -> Result<f64> {
        let metrics = stage.agent.metrics()?;
        Ok(metrics.sum("zerohop_denied_connections_total", &refused))
    };
    let before = denials(&stage)?;
    assert!(before >= 1.0, "{before}");
    ask(&stage.client, "403");
    assert!((denials(&stage)? - before - 1.0).abs() < 0.5);
    let told = stage.agent.meshctl_json(&["events"])?;
    let told = told.as_array().context("no list")?;
    assert!(told.iter().any(|event| {
        event["event"] == "denied" && event["reason"] == "agent" && event["source"] == CLIENT.1
    }));
    stage.agent.kill()?;
    ask(&careful, "os error 111");
    stage.agent = Agent::start(&stage.lab, &AgentOptions::default())?;
    assert!((denials(&stage)? - before - 1.0).abs() < 0.5);
    let absent = [
        ("source", "default/careful"),
        ("service", "echo.default.svc.cluster.local"),
        ("cause", "agent_absent"),
    ];
    let metrics = stage.agent.metrics()?;
    assert!(metrics.sum("zerohop_connect_failures_total", &absent) >= 1.0);
    Ok(())
}

#[test]
fn segments_that_are_sent_again_are_counted() -> Result<()> {
    let stage = Stage::new("count-lossy", &["v1"])?;
    stage.agent.meshctl_json(&["acceleration", "off"])?;
    let server = serve(&stage.servers[0])?;
    let held = hold(&stage.client, format!("echo:{PORT}"), 1)?;
    until(&stage, "zerohop_tcp_received_bytes_total", STREAM)?;
    // The end of the connection is not answered, so it is told again.
    let back = format!("{}/32", stage.client.address());
    let route = |what| stage.servers[0].exec("ip", ["route", what, "blackhole", &back], DEADLINE);
    route("add")?.success()?;
    drop(held.1);
    let mut last = Value::Null;
    assert!(
        eventually(DEADLINE, || {
            let rows = stage.agent.connections().unwrap_or_default();
            last = rows.into_iter().next().unwrap_or_default();
            last["retransmits"].as_u64() >= Some(2)
        }),
        "{last:#}"
    );
    route("del")?.success()?;
    until(&stage, "zerohop_tcp_open_connections", 0)?;
    let metrics = stage.agent.metrics()?;
    assert!(metrics.sum("zerohop_tcp_retransmits_total", &[CLIENT, SERVER]) >= 2.0);
    exactly(&stage, 1, 0, 1)?;
    drop(server);
    Ok(())
}

/// The lines of a follower.
fn told(follower: &Process) -> Vec<Value> {
    let text = follower.stdout();
    text.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

fn of_kind<'a>(told: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    told.iter().filter(move |event| event["event"] == kind)
}

/// Those of connections by the service.
fn direct<'a>(told: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    of_kind(told, kind).filter(|event| event["way"] == "direct")
}

/// A follower, once the programs tell everything.
fn follow(stage: &Stage) -> Result<Process> {
    let follower = stage.agent.start_meshctl(&["events", "-f", "-o", "json"])?;
    let mut last = Value::Null;
    let followed = eventually(DEADLINE, || {
        let settings = stage.agent.meshctl_json(&["maps", "get", "settings", "0"]);
        last = settings.unwrap_or_default();
        last["events"] == 3
    });
    assert!(followed, "{last:#}");
    Ok(follower)
}

#[test]
fn opens_closes_failures_and_denials_are_told_to_who_follows() -> Result<()> {
    let stage = Stage::new("count-told", &["v1"])?;
    let server = serve(&stage.servers[0])?;
    let follower = follow(&stage)?;
    release(hold(&stage.client, format!("echo:{PORT}"), 2)?, 2)?;
    let nobody = SocketAddr::from((stage.servers[0].address(), 9));
    fails(&stage.client, nobody)?;
    stage.rules(DENY)?;
    let denied = SocketAddr::from((stage.servers[0].address(), PORT));
    assert!(eventually(DEADLINE, || {
        fails(&stage.client, denied).is_ok_and(|error| error.contains("os error 1)"))
    }));
    let complete = eventually(DEADLINE, || {
        let told = told(&follower);
        direct(&told, "closed").count() == 2 && of_kind(&told, "denied").count() > 0
    });
    let told = told(&follower);
    assert!(complete, "{told:#?}");
    assert_eq!(direct(&told, "opened").count(), 2, "{told:#?}");
    for event in direct(&told, "closed") {
        assert_eq!(
            (&event["source"], &event["destination"]),
            (&CLIENT.1.into(), &SERVER.1.into())
        );
        assert_eq!(event["service"], "echo.default.svc.cluster.local");
        assert_eq!(event["reason"], "orderly");
        let closed = &event["closed"];
        assert_eq!(
            (&closed["bytesSent"], &closed["bytesReceived"]),
            (&STREAM.into(), &STREAM.into()),
            "{event:#}"
        );
        assert!(closed["bytesRedirected"].as_u64() > Some(0), "{event:#}");
        assert!(closed["durationUs"].as_u64() > Some(0), "{event:#}");
        assert!(closed["rttUs"].as_u64() > Some(0), "{event:#}");
    }
    let failed = of_kind(&told, "failed").find(|event| event["reason"] == "refused");
    let failed = failed.context("no failure was told")?;
    assert_eq!(failed["server"], nobody.to_string());
    let denial = of_kind(&told, "denied")
        .next()
        .context("no denial was told")?;
    assert_eq!(denial["policy"], "AuthorizationPolicy default/deny");
    assert_eq!(denial["reason"], "connect");
    assert!(
        stage.agent.log().contains("connection refused"),
        "{}",
        stage.agent.log()
    );
    drop(follower);
    // Nobody follows any more.
    assert!(eventually(DEADLINE, || {
        let settings = stage.agent.meshctl_json(&["maps", "get", "settings", "0"]);
        settings.is_ok_and(|settings| settings["events"] == 1)
    }));
    drop(server);
    Ok(())
}

#[test]
fn events_that_nobody_takes_are_counted() -> Result<()> {
    const CONNECTIONS: u64 = 100;
    let options = AgentOptions::default()
        .argument("--map-capacity")
        .argument("event_ring=4096");
    let mut stage = Stage::with("count-lost", &["v1"], "", &options)?;
    let server = serve(&stage.servers[0])?;
    let follower = follow(&stage)?;
    stage.agent.signal(libc::SIGSTOP)?;
    let words =
        format!("stream-client echo:{PORT} -n {CONNECTIONS} --poll --order first --bytes {BYTES}");
    let outcome = spawn(&stage.client, &words).and_then(|client| client.wait(DEADLINE)?.json());
    stage.agent.signal(libc::SIGCONT)?;
    assert_eq!(outcome?["ok"], CONNECTIONS);
    until(&stage, "zerohop_tcp_connections_closed_total", CONNECTIONS)?;
    exactly(&stage, CONNECTIONS, 0, CONNECTIONS)?;
    // Each is told of or is lost, and none is both.
    let mut last = (0, 0);
    let all = eventually(DEADLINE, || {
        let metrics = stage.agent.metrics().unwrap_or_default();
        let lost = whole(metrics.sum("zerohop_events_lost_total", &[("at", "ring")]));
        last = (told(&follower).len() as u64, lost);
        last.0 + last.1 == 2 * CONNECTIONS
    });
    assert!(all && last.0 > 0 && last.1 > 0, "{last:?}");
    drop(server);
    Ok(())
}
