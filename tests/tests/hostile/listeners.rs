//! The agent's listeners: in each pod, for that pod, for what the kernel sends there.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use lab::stage::{DEADLINE, SUBSETS, server_of};
use lab::{Stage, eventually};

use crate::support::dial;

#[test]
fn an_agents_listener_serves_nobody_who_dials_it() -> Result<()> {
    let by_agent = format!(
        "{SUBSETS}---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: echo}}\n\
         spec: {{hosts: [echo], http: [{{route: [{{destination: {{host: echo, subset: v1}}}}]}}]}}\n"
    );
    let stage = Stage::ruled("hostile-listener", &["v1"], &by_agent)?;
    assert_eq!(server_of(&stage.ask(&["http://echo/"])?), "v1");
    // From inside: accepted, closed without a byte, and counted.
    let answer = stage.ask(&["--timeout-ms", "3000", "http://127.0.0.1:15001/"])?;
    assert!(answer["error"].is_string(), "{answer}");
    stage.metric_until("zerohop_stray_connections_total", &[], 1.0)?;
    // From another pod: there is nothing at its address.
    let other = SocketAddr::new(stage.client.address().into(), 15001).to_string();
    let outcome = dial(&stage.servers[0], &["--to", &other])?;
    assert!(outcome.contains("refused"), "{outcome}");
    let strays = || -> Result<f64> {
        Ok(stage
            .agent
            .metrics()?
            .sum("zerohop_stray_connections_total", &[]))
    };
    assert!(eventually(DEADLINE, || strays().is_ok_and(|n| (n - 1.0).abs() < 0.5)));
    stage
        .ask(&["http://echo/"])
        .map(|answer| assert_eq!(server_of(&answer), "v1"))
        .context("the pod's own way is as it was")
}
