//! Accelerated streams: the same bytes, in the same order, whoever speaks first and however.

use anyhow::{Context, Result};
use lab::stage::DEADLINE;
use lab::{Pod, Process, Stage, eventually, traffic};
use serde_json::Value;

const TO: &str = "echo:7000";

/// A stream server in `pod`, listening.
fn serve(pod: &Pod, arguments: &str) -> Result<Process> {
    let words = format!("stream-server {arguments}");
    let mut process = pod.spawn(Pod::peer(words.split_whitespace())?)?;
    pod.wait_listening(&mut process, 7000)?;
    Ok(process)
}

/// A stream client in `pod`.
fn client(pod: &Pod, arguments: &str) -> Result<Process> {
    let words = format!("stream-client {arguments}");
    pod.spawn(Pod::peer(words.split_whitespace())?)
}

/// Both sides' reports, which must say that all went well and agree on the bytes.
fn agree(client: &Value, server: &Value, connections: u64, what: &str) {
    for (report, side) in [(client, "client"), (server, "server")] {
        assert_eq!(report["ok"], connections, "{what}, {side}: {report:#}");
        assert_eq!(report["failed"], 0, "{what}, {side}: {report:#}");
    }
    assert_eq!(client["sent"], server["received"], "{what}");
    assert_eq!(client["received"], server["sent"], "{what}");
}

/// Runs `connections` of them through the mesh.
fn exchange(stage: &Stage, at_client: &str, at_server: &str, connections: u64) -> Result<Value> {
    let what = format!("client {at_client}; server {at_server}");
    let serving = serve(&stage.servers[0], &format!("-n {connections} {at_server}"))?;
    let sending = client(&stage.client, &format!("{TO} -n {connections} {at_client}"))?;
    let sent = sending
        .wait(DEADLINE * 4)
        .with_context(|| what.clone())?
        .json()?;
    let got = match serving.wait(DEADLINE) {
        Ok(output) => output.json()?,
        Err(error) => panic!("{what}: {error:#}; the client: {sent:#}"),
    };
    agree(&sent, &got, connections, &what);
    Ok(sent)
}

/// Bytes that went from socket to socket, by the kernel's count of closed connections.
fn redirected(stage: &Stage) -> Result<u64> {
    Ok(traffic::total(&stage.agent.traffic()?, |_| true).redirected)
}

fn require_acceleration(stage: &Stage) -> Result<()> {
    let status = stage.agent.meshctl_json(&["status"])?;
    assert_eq!(
        status["acceleration"]["state"], "on",
        "{:#}",
        status["acceleration"]
    );
    Ok(())
}

/// What the two sides are like.
#[derive(Clone, Copy)]
struct Mode {
    client: &'static str,
    server: &'static str,
}

const EVERY_ORDER: [(&str, &str); 3] = [
    ("together", "together"),
    ("first", "last"),
    ("last", "first"),
];
/// Those that a process of one thread can keep.
const IN_TURN: [(&str, &str); 2] = [("first", "last"), ("last", "first")];

/// Each order of speaking with writes of all sizes, with half-closes and without.
fn matrix(stage: &Stage, orders: &[(&str, &str)], mode: Mode) -> Result<()> {
    let Mode { client, server } = mode;
    for (at_client, at_server) in orders {
        for writes in [
            "--writes 1,7,64,1000,4096,16384,65536 --bytes 300000",
            "--writes 1000000 --bytes 300000",
            "--writes 3 --bytes 3000",
        ] {
            for end in ["", "--half-close"] {
                let one = format!("{client} --order {at_client} {writes} {end}");
                let other = format!("{server} --order {at_server} {writes} {end}");
                exchange(stage, &one, &other, 12)?;
            }
        }
    }
    Ok(())
}

#[test]
fn streams_of_non_blocking_sockets_are_exact_and_accelerated() -> Result<()> {
    let stage = Stage::new("polling", &["v1"])?;
    require_acceleration(&stage)?;
    let mode = Mode {
        client: "--poll -c 4",
        server: "--poll",
    };
    matrix(&stage, &EVERY_ORDER, mode)?;
    assert!(redirected(&stage)? > 0, "nothing was accelerated");
    Ok(())
}

#[test]
fn streams_of_blocking_processes_of_one_thread_are_exact() -> Result<()> {
    let stage = Stage::new("serial", &["v1"])?;
    let mode = Mode {
        client: "",
        server: "--serial",
    };
    matrix(&stage, &IN_TURN, mode)
}

#[test]
fn streams_of_blocking_processes_of_many_threads_are_exact() -> Result<()> {
    let stage = Stage::new("threads", &["v1"])?;
    let mode = Mode {
        client: "-c 4",
        server: "",
    };
    matrix(&stage, &EVERY_ORDER, mode)
}

#[test]
fn streams_of_sockets_that_block_only_once_connected_are_exact() -> Result<()> {
    let stage = Stage::new("connecting", &["v1"])?;
    let mode = Mode {
        client: "-c 4 --connect-timeout",
        server: "--poll",
    };
    // One thread that blocks in a read before another has sent anything is a documented limit
    // (docs/limits.md): until then such a socket looks like an event loop's.
    matrix(&stage, &IN_TURN, mode)
}

#[test]
fn thousands_of_connections_are_exact_and_counted() -> Result<()> {
    const CONNECTIONS: u64 = 4000;
    let stage = Stage::new("thousands", &["v1"])?;
    require_acceleration(&stage)?;
    let report = exchange(
        &stage,
        "--poll -c 32 --bytes 5000 --writes 1,100,2000",
        "--poll --bytes 7000 --writes 1,100,2000",
        CONNECTIONS,
    )?;
    assert_eq!(report["sent"], CONNECTIONS * 5016);
    assert_eq!(report["received"], CONNECTIONS * 7016);
    let mut last = traffic::Traffic::default();
    let counted = eventually(DEADLINE, || {
        let rows = stage.agent.traffic().unwrap_or_default();
        last = traffic::total(&rows, |row| row.source == "default/client");
        last.closed == CONNECTIONS
    });
    assert!(counted, "{last:#?}");
    assert_eq!(last.opened, CONNECTIONS);
    assert_eq!(last.sent, CONNECTIONS * 5016);
    assert_eq!(last.received, CONNECTIONS * 7016);
    let all = CONNECTIONS * (5016 + 7016);
    // The first bytes of a connection may come before the server's end is there.
    assert!(
        last.redirected > all / 2 && last.redirected <= all,
        "{last:#?}"
    );
    let labels = [
        ("destination_service_name", "echo"),
        ("source_workload", "client"),
    ];
    // Istio's "sent" is what the server sent.
    for (metric, count) in [
        ("istio_tcp_connections_opened_total", CONNECTIONS),
        ("istio_tcp_connections_closed_total", CONNECTIONS),
        ("istio_tcp_received_bytes_total", CONNECTIONS * 5016),
        ("istio_tcp_sent_bytes_total", CONNECTIONS * 7016),
    ] {
        stage.metric_until(metric, &labels, u32::try_from(count)?.into())?;
    }
    Ok(())
}

#[test]
fn servers_that_defer_accept_are_exact() -> Result<()> {
    let stage = Stage::new("defer", &["v1"])?;
    for poll in ["--poll", ""] {
        for (gap, bytes, connections) in [(0, 40_000, 200), (200, 40_000, 50), (2000, 2000, 16)] {
            for writes in ["100", "1,7,64,1000", "30000"] {
                let one = format!(
                    "{poll} -c 8 --order first --bytes {bytes} --writes {writes} --gap-us {gap}"
                );
                let other = format!("{poll} --order last --bytes 3000 --defer-accept");
                exchange(&stage, &one, &other, connections)?;
            }
        }
    }
    Ok(())
}

#[test]
fn clients_that_send_with_the_handshake_are_exact() -> Result<()> {
    let stage = Stage::new("fastopen", &["v1"])?;
    for pod in [&stage.client, &stage.servers[0]] {
        // Client and server, without cookies, on every listener.
        pod.sysctl("net.ipv4.tcp_fastopen", "1543")?;
    }
    for poll in ["--poll", ""] {
        for (at_client, at_server) in [("first", "last"), ("together", "together")] {
            for gap in [0, 300] {
                let one = format!(
                    "{poll} --fastopen -c 4 --order {at_client} --bytes 20000 --writes 100,3000 \
                     --gap-us {gap}"
                );
                exchange(&stage, &one, &format!("{poll} --order {at_server}"), 100)?;
            }
        }
    }
    // The kernel really did it: data came with a SYN.
    let counters = "/proc/thread-self/net/netstat";
    let text = stage.servers[0].enter(|| std::fs::read_to_string(counters))??;
    let count = netstat(&text, "TCPFastOpenPassive").context("TCPFastOpenPassive")?;
    assert!(count > 0, "no connection was made by TCP Fast Open");
    Ok(())
}

/// The value of a counter of /proc/net/netstat: a line of names, a line of values.
fn netstat(text: &str, name: &str) -> Option<u64> {
    let lines: Vec<_> = text.lines().collect();
    lines.chunks(2).find_map(|pair| {
        let place = pair[0].split_whitespace().position(|word| word == name)?;
        pair.get(1)?.split_whitespace().nth(place)?.parse().ok()
    })
}

#[test]
fn what_was_sent_before_the_server_accepts_comes_first() -> Result<()> {
    let stage = Stage::new("late", &["v1"])?;
    for poll in ["--poll", ""] {
        for writes in ["1000", "1,2000,64", "3000"] {
            let server = format!("{poll} --hold -n 8 --order last --bytes 100");
            let mut serving = serve(&stage.servers[0], &server)?;
            let sender = format!(
                "{TO} {poll} -n 8 -c 8 --order first --bytes 3000 --writes {writes} --announce"
            );
            let sending = client(&stage.client, &sender)?;
            // All have sent everything, and nobody has accepted yet.
            let sent = eventually(DEADLINE, || {
                sending.stdout().matches("\"sent\"").count() == 8
            });
            assert!(sent, "{} {}", sending.stdout(), sending.stderr());
            drop(serving.take_stdin());
            let text = sending.wait(DEADLINE)?.success()?.stdout;
            let report = text.lines().last().context("no report")?;
            let got = serving.wait(DEADLINE)?.json()?;
            agree(&serde_json::from_str(report)?, &got, 8, &sender);
        }
    }
    Ok(())
}

#[test]
fn equal_tuples_on_two_loopbacks_do_not_meet() -> Result<()> {
    let stage = Stage::new("loopbacks", &["v1", "v2"])?;
    let servers = stage
        .servers
        .iter()
        .map(|pod| serve(pod, "--listen 127.0.0.1:7000 -n 20 --poll"))
        .collect::<Result<Vec<_>>>()?;
    // The same tuples at the same time in both namespaces, connections lingering.
    for round in 0..20 {
        let port = 40_000 + round;
        let clients = stage
            .servers
            .iter()
            .map(|pod| {
                let arguments =
                    format!("127.0.0.1:7000 --poll --bind 127.0.0.1:{port} --bytes 100000");
                client(pod, &arguments)
            })
            .collect::<Result<Vec<_>>>()?;
        for process in clients {
            let report = process.wait(DEADLINE)?.json()?;
            assert_eq!(report["ok"], 1, "round {round}: {report:#}");
        }
    }
    for server in servers {
        let report = server.wait(DEADLINE)?.json()?;
        assert_eq!(
            (&report["ok"], &report["failed"]),
            (&20.into(), &0.into()),
            "{report:#}"
        );
    }
    Ok(())
}

#[test]
fn the_application_sees_the_address_that_it_dialled() -> Result<()> {
    let stage = Stage::new("peername", &["v1"])?;
    let serving = serve(&stage.servers[0], "-n 3 --keep")?;
    let report = client(&stage.client, &format!("{TO} -n 3"))?
        .wait(DEADLINE)?
        .json()?;
    let seen = serving.wait(DEADLINE)?.json()?;
    let dialled = format!("{}:7000", stage.service.address);
    for address in report["addresses"].as_array().context("no addresses")? {
        assert_eq!(address["peer"], dialled.as_str(), "{report:#}");
    }
    for address in seen["addresses"].as_array().context("no addresses")? {
        let peer = address["peer"].as_str().unwrap_or_default();
        let client = format!("{}:", stage.client.address());
        assert!(peer.starts_with(&client), "{seen:#}");
    }
    Ok(())
}

#[test]
fn a_pods_own_ipv6_loopback_is_left_alone() -> Result<()> {
    let stage = Stage::new("six", &["v1"])?;
    let serving = serve(&stage.client, "--listen [::1]:7000 -n 5 --poll")?;
    let sending = client(&stage.client, "[::1]:7000 -n 5 --poll")?;
    let report = sending.wait(DEADLINE)?.json()?;
    agree(&report, &serving.wait(DEADLINE)?.json()?, 5, "loopback");
    Ok(())
}

#[test]
fn open_connections_are_shown_with_what_they_have_carried() -> Result<()> {
    let stage = Stage::new("shown", &["v1"])?;
    require_acceleration(&stage)?;
    let _serving = serve(&stage.servers[0], "--poll --bytes 2000 --keep")?;
    let mut holding = client(
        &stage.client,
        &format!("{TO} --poll -n 3 --bytes 50000 --hold"),
    )?;
    holding.wait_stdout("\n", DEADLINE)?;
    let mine = |stage: &Stage| -> Result<Vec<Value>> {
        let mut list = stage.agent.connections()?;
        list.retain(|row| row["source"] == "default/client");
        Ok(list)
    };
    // What went by TCP is counted once the other side has acknowledged it, a little later.
    let mut rows = Vec::new();
    let counted = eventually(DEADLINE, || {
        rows = mine(&stage).unwrap_or_default();
        rows.len() == 3 && rows.iter().all(|row| row["bytesReceived"] == 2016)
    });
    assert!(counted, "{rows:#?}");
    for row in &rows {
        assert_eq!(row["destination"], "default/echo-v1", "{row:#}");
        assert_eq!(row["way"], "direct", "{row:#}");
        assert_eq!(row["bytesSent"], 50_016, "{row:#}");
        let redirected = row["bytesRedirected"].as_u64().context("no number")?;
        assert!(redirected <= 52_032, "{row:#}");
        assert_eq!(row["accelerated"] == true, redirected > 0, "{row:#}");
    }
    holding.kill()?;
    assert!(eventually(DEADLINE, || mine(&stage).is_ok_and(|rows| rows.is_empty())));
    Ok(())
}

#[test]
fn the_kill_switch_loses_no_byte_of_live_streams() -> Result<()> {
    const BYTES: &str = "--poll --bytes 40000000 --half-close";
    let stage = Stage::new("switch", &["v1"])?;
    require_acceleration(&stage)?;
    let serving = serve(&stage.servers[0], &format!("-n 8 {BYTES}"))?;
    let mut streaming = client(&stage.client, &format!("{TO} -n 8 -c 8 {BYTES}"))?;
    let mut switches = 0;
    while streaming.ended()?.is_none() {
        let state = if switches % 2 == 0 { "off" } else { "on" };
        stage.agent.meshctl(&["acceleration", state])?.success()?;
        switches += 1;
    }
    let sent = streaming.wait(DEADLINE)?.json()?;
    let got = serving.wait(DEADLINE)?.json()?;
    agree(&sent, &got, 8, &format!("{switches} switches"));
    assert!(
        switches >= 2,
        "the streams were over before the second switch"
    );
    stage.agent.meshctl(&["acceleration", "off"])?.success()?;
    let before = redirected(&stage)?;
    exchange(&stage, "--poll -c 4", "--poll", 20)?;
    assert_eq!(
        redirected(&stage)?,
        before,
        "bytes were redirected although it is off"
    );
    Ok(())
}

#[test]
fn annotations_switch_acceleration_off_for_a_pod_or_a_port() -> Result<()> {
    let stage = Stage::new("annotated", &["v1"])?;
    for (name, annotation, value) in [
        ("plain", "zerohop.dev/acceleration", "off"),
        (
            "no-port",
            "zerohop.dev/acceleration-exclude-ports",
            "7000,8080",
        ),
    ] {
        let spec = lab::PodSpec::new(name).annotation(annotation, value);
        let pod = stage.lab.pod(spec)?;
        let enrolled = eventually(DEADLINE, || {
            let answers = lab::stage::send(&pod, &["http://echo/"]);
            answers.is_ok_and(|answers| answers[0]["status"] == 200)
        });
        assert!(enrolled, "{}", stage.agent.log());
        let serving = serve(&stage.servers[0], "-n 5 --poll")?;
        let report = client(&pod, &format!("{TO} -n 5 --poll"))?
            .wait(DEADLINE)?
            .json()?;
        agree(&report, &serving.wait(DEADLINE)?.json()?, 5, name);
        let source = format!("default/{name}");
        let mut count = traffic::Traffic::default();
        let counted = eventually(DEADLINE, || {
            let rows = stage.agent.traffic().unwrap_or_default();
            count = traffic::total(&rows, |row| row.source == source);
            // The streams and at least one request before them.
            count.closed == count.opened && count.sent > 5 * 65_552
        });
        assert!(counted, "{:#?}", stage.agent.traffic()?);
        assert_eq!(count.redirected, 0, "{name}");
    }
    // Without one, the same is accelerated.
    exchange(&stage, "--poll", "--poll", 5)?;
    assert!(redirected(&stage)? > 0);
    Ok(())
}

#[test]
fn streams_outlive_the_agent_that_accelerated_them() -> Result<()> {
    const BYTES: &str = "--poll --bytes 300000 --half-close";
    let mut stage = Stage::new("outlive", &["v1"])?;
    let serving = serve(&stage.servers[0], &format!("-n 4 {BYTES}"))?;
    // Slow on purpose: they are under way while the agent dies.
    let slow = format!("{TO} -n 4 -c 4 {BYTES} --writes 1000 --gap-us 10000");
    let mut streaming = client(&stage.client, &slow)?;
    let mut rows = Vec::new();
    let open = eventually(DEADLINE, || {
        rows = stage.agent.connections().unwrap_or_default();
        let mine = rows.iter().filter(|row| row["source"] == "default/client");
        mine.count() == 4
    });
    assert!(open, "{rows:#?} {}", streaming.stdout());
    stage.agent.kill()?;
    assert!(streaming.ended()?.is_none(), "they were over too soon");
    let sent = streaming.wait(DEADLINE)?.json()?;
    let got = serving.wait(DEADLINE)?.json()?;
    agree(&sent, &got, 4, "while the agent died");
    Ok(())
}
