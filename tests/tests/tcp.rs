//! TCP that the agent carries: any bytes, both half-closes, and what is no HTTP on a port that may be.

use anyhow::Result;
use lab::stage::{DEADLINE, SUBSETS};
use lab::{Pod, Stage};
use serde_json::Value;

/// Requests on the ports without a protocol need reading: the agent has to look.
fn by_agent() -> String {
    format!(
        "{SUBSETS}---\n\
         apiVersion: networking.istio.io/v1\n\
         kind: VirtualService\n\
         metadata: {{name: echo}}\n\
         spec: {{hosts: [echo], http: [{{route: [{{destination: {{host: echo, subset: v1}}}}]}}]}}\n"
    )
}

fn exchange(stage: &Stage, at_client: &[&str], at_server: &[&str]) -> Result<(Value, Value)> {
    let mut words = vec!["stream-server", "--listen", "0.0.0.0:7001", "-n", "20"];
    words.extend(at_server);
    let mut serving = stage.servers[0].spawn(Pod::peer(words)?)?;
    stage.servers[0].wait_listening(&mut serving, 7001)?;
    let mut words = vec!["stream-client", "echo:7001", "-n", "20", "-c", "4"];
    words.extend(at_client);
    let sent = stage.client.run(Pod::peer(words)?, DEADLINE * 2)?.json()?;
    assert_eq!(
        sent["failed"],
        0,
        "{at_client:?}: {sent:#}\n{}",
        stage.agent.log()
    );
    Ok((sent, serving.wait(DEADLINE)?.json()?))
}

#[test]
fn streams_pass_the_agent_byte_by_byte_with_half_closes() -> Result<()> {
    let stage = Stage::ruled("by-agent", &["v1"], &by_agent())?;
    let answer = stage
        .agent
        .explain("default/client", &[], "tcp://echo:7001")?;
    assert_eq!(answer["way"], "agent", "{answer:#}");
    for (at_client, at_server) in [
        ("together", "together"),
        ("first", "last"),
        ("last", "first"),
    ] {
        for half_close in [&["--half-close"][..], &[]] {
            let mut one = vec!["--order", at_client, "--bytes", "400000"];
            let mut other = vec!["--order", at_server, "--bytes", "300000"];
            one.extend(half_close);
            other.extend(half_close);
            let (sent, got) = exchange(&stage, &one, &other)?;
            assert_eq!(
                (&got["ok"], &got["failed"]),
                (&20.into(), &0.into()),
                "{got:#}"
            );
            assert_eq!(sent["sent"], got["received"]);
            assert_eq!(got["sent"], sent["received"]);
        }
    }
    Ok(())
}

#[test]
fn the_agent_counts_the_bytes_that_it_carries() -> Result<()> {
    let stage = Stage::ruled("tcp-count", &["v1"], &by_agent())?;
    let both = ["--bytes", "100000", "--half-close"];
    let (sent, _) = exchange(&stage, &both, &both)?;
    assert_eq!(sent["sent"], 20 * 100_016);
    let labels = [
        ("source_workload", "client"),
        ("destination_service_name", "echo"),
    ];
    for (metric, value) in [
        ("istio_tcp_connections_opened_total", 20.0),
        ("istio_tcp_connections_closed_total", 20.0),
        ("istio_tcp_sent_bytes_total", 20.0 * 100_016.0),
        ("istio_tcp_received_bytes_total", 20.0 * 100_016.0),
    ] {
        stage.metric_until(metric, &labels, value)?;
    }
    Ok(())
}

#[test]
fn a_server_that_is_not_there_is_a_closed_connection_not_a_hang() -> Result<()> {
    let stage = Stage::ruled("tcp-refused", &["v1"], &by_agent())?;
    let report = stage
        .client
        .run(
            Pod::peer(["stream-client", "echo:7001", "--timeout-s", "10"])?,
            DEADLINE,
        )?
        .json()?;
    assert_eq!(
        (&report["ok"], &report["failed"]),
        (&0.into(), &1.into()),
        "{report:#}"
    );
    let error = report["errors"][0].as_str().unwrap_or_default();
    assert!(
        !error.contains("timed out") && !error.contains("temporarily"),
        "{error}"
    );
    Ok(())
}
