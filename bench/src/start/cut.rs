//! How long an accelerated connection outlives the policy that forbids it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::duel::Puppet;
use lab::{Lab, Pod, eventually};
use serde_json::json;

use super::DEADLINE;
use crate::peer::watch::now_nanoseconds;

const POLICY: &str = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
                      metadata: {name: cut, namespace: default}\n\
                      spec: {action: DENY, selector: {matchLabels: {app: details}}, rules: [{}]}\n";
const FILE: &str = "cut.yaml";

/// From before the write of a policy until both ends of a connection that it forbids have been told, in
/// milliseconds.
pub(super) fn time_until_cut(lab: &Lab, client: &Pod, server: &Pod) -> Result<f64> {
    let (dials, listens) = (Puppet::new(client)?, Puppet::new(server)?);
    let door = listens.order(json!({"op": "listen", "on": "door", "nonblocking": true}))?;
    let to = format!("{}:{}", server.address(), door["port"]);
    open(client, &to)?;
    listens.order(json!({"op": "accept", "on": "probe", "from": "door"}))?;
    dials.order(json!({"op": "connect", "on": "line", "to": to, "nonblocking": true}))?;
    listens.order(json!({"op": "accept", "on": "line", "from": "door", "nonblocking": true}))?;
    for (one, other) in [(&dials, &listens), (&listens, &dials)] {
        one.order(json!({"op": "send", "on": "line", "text": "hello"}))?;
        let poll = json!({"op": "poll", "on": "line", "events": libc::POLLIN, "within": 5000});
        other.order(poll)?;
        other.order(json!({"op": "recv", "on": "line", "size": 100}))?;
    }
    for end in [&dials, &listens] {
        end.order(json!({
            "op": "ends at", "on": "line", "within": 20_000, "background": "end",
        }))?;
    }
    let written = now_nanoseconds();
    lab.manifests().write(FILE, POLICY)?;
    let mut last = 0;
    for end in [&dials, &listens] {
        let told = end.order(json!({"op": "finish", "on": "end", "within": 25_000}))?;
        ensure!(told["told"] != "", "was not cut: {told}");
        last = last.max(told["at"].as_u64().context("no time")?);
    }
    lab.manifests().remove(FILE)?;
    Ok(Duration::from_nanos(last.saturating_sub(written)).as_secs_f64() * 1e3)
}

/// Waits until the policy of the round before is out of force.
fn open(client: &Pod, to: &str) -> Result<()> {
    let dial = || -> Result<bool> {
        let words = ["intruder", "dial", "--to", to];
        let report = client.run(Pod::peer(words)?, DEADLINE)?.json()?;
        Ok(report["outcome"] == "connected")
    };
    ensure!(
        eventually(DEADLINE, || dial().is_ok_and(|open| open)),
        "the policy stayed in force"
    );
    Ok(())
}
