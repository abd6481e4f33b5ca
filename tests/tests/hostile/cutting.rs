//! Connections that were there before the policy: half open, waiting to be accepted.

use std::net::SocketAddr;

use anyhow::Result;
use lab::duel::Puppet;
use lab::eventually;
use lab::stage::DEADLINE;
use serde_json::json;

use crate::support::{ESTABLISHED, REFUSED, SYN_RECEIVED, Scene, dial_until, intrude, sockets};

#[test]
fn what_is_half_open_or_waits_to_be_accepted_is_cut_too() -> Result<()> {
    let scene = Scene::new("hostile-queue", "")?;
    let (intruder, server) = (&scene.stage.client, scene.server());
    let (listening, dialling) = (Puppet::new(server)?, Puppet::new(intruder)?);
    let port = listening.order(json!({"op": "listen", "on": "door"}))?["port"]
        .as_u64()
        .unwrap_or_default() as u16;
    let to = SocketAddr::new(server.address().into(), port);
    let local = dialling.order(json!({"op": "connect", "on": "line", "to": to.to_string()}))?;
    let local: SocketAddr = local["local"].as_str().unwrap_or_default().parse()?;
    dialling.order(json!({"op": "send", "on": "line", "text": "before"}))?;
    let absent: SocketAddr = "10.244.77.7:42001".parse()?;
    let words = ["--from", &absent.to_string(), "--to", &to.to_string()];
    intrude(intruder, "syn", &words)?;
    let count = |state, remote| sockets(server, state, remote).unwrap_or(usize::MAX);
    assert!(eventually(DEADLINE, || count(ESTABLISHED, local) == 1));
    assert!(eventually(DEADLINE, || count(SYN_RECEIVED, absent) == 1));
    scene.rule("action: DENY, rules: [{}]")?;
    assert!(eventually(DEADLINE, || count(ESTABLISHED, local) == 0));
    assert!(eventually(DEADLINE, || count(SYN_RECEIVED, absent) == 0));
    // Nothing of it reaches the application.
    let word = |answer: serde_json::Value| answer.to_string();
    let sent = word(dialling.order(json!({"op": "send", "on": "line", "text": "after"}))?);
    assert!(sent.contains("ECONN") || sent.contains("EPIPE"), "{sent}");
    dial_until(intruder, &["--to", &to.to_string()], REFUSED)?;
    listening.order(json!({"op": "accept", "on": "end", "from": "door", "nonblocking": true}))?;
    let got = word(listening.order(json!({"op": "recv", "on": "end", "size": 10}))?);
    assert!(!got.contains("after"), "{got}");
    Ok(())
}
