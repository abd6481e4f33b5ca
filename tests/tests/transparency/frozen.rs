//! Peers that are frozen or off the wire, readers that sleep, options that nobody saw being set.

use anyhow::{Context, Result, ensure};
use lab::duel::{Arena, Mode, Puppet, Row, Scene};
use lab::stage::DEADLINE;
use lab::{Agent, AgentOptions, Lab, PodSpec, eventually};
use serde_json::json;

const TCP: i32 = libc::IPPROTO_TCP;

#[test]
fn peers_that_do_not_answer() -> Result<()> {
    Arena::new("duel-frozen")?.play(&[
        Row::new("SO_SNDTIMEO against a reader that does not read", |scene| {
            scene.warm()?;
            scene.client.ask(json!({
                "op": "set time-out", "name": libc::SO_SNDTIMEO, "milliseconds": 100,
            }))?;
            scene
                .client
                .ask(json!({"op": "fill", "size": 1000, "from": 0}))?;
            scene.client.send("one more")
        }),
        Row::new("TCP_USER_TIMEOUT against a frozen process", frozen),
        Row::new("TCP_USER_TIMEOUT against a peer off the wire", |scene| {
            off_the_wire(scene)
        })
        // Both ends are on this node: the wire is not needed.
        .differs("client has an error", "0")
        .differs("client is told", "\"\""),
    ])
}

/// Its kernel goes on answering that there is no room.
fn frozen(scene: &Scene<'_>) -> Result<()> {
    scene.warm()?;
    user_timeout(scene)?;
    scene.server.puppet.signal(libc::SIGSTOP)?;
    let filled = scene
        .client
        .ask(json!({"op": "fill", "size": 1000, "from": 0}));
    let told = scene.client.ask(json!({
        "op": "poll", "events": libc::POLLRDHUP, "within": 2000,
    }));
    scene.server.puppet.signal(libc::SIGCONT)?;
    ensure!(
        filled?["sent"].as_u64().unwrap_or_default() > 0,
        "nothing was sent"
    );
    scene.client.note("is told", &told?.to_string());
    scene
        .client
        .get("has an error", libc::SOL_SOCKET, libc::SO_ERROR)
}

fn user_timeout(scene: &Scene<'_>) -> Result<()> {
    let order = json!({"op": "set", "level": TCP, "name": libc::TCP_USER_TIMEOUT, "value": 300});
    scene.client.ask(order).map(drop)
}

fn off_the_wire(scene: &Scene<'_>) -> Result<()> {
    scene.warm()?;
    user_timeout(scene)?;
    scene.wire(false)?;
    let sent = scene.client.send("lost");
    let told = scene.client.ask(json!({
        "op": "poll", "events": libc::POLLRDHUP, "within": 4000,
    }));
    scene.wire(true)?;
    sent?;
    scene.client.note("is told", &told?.to_string());
    scene
        .client
        .get("has an error", libc::SOL_SOCKET, libc::SO_ERROR)
}

#[test]
fn one_thread_sleeps_in_a_read_while_another_sends() -> Result<()> {
    Arena::new("duel-duplex")?.play(&[
        Row::new("the server's", |scene| {
            scene.warm()?;
            scene
                .server
                .begin("reads", json!({"op": "recv", "size": 100}))?;
            for word in ["one", "two", "three"] {
                scene.server.send(word)?;
                scene.client.readable()?;
                scene.client.recv(&format!("reads {word}"), 100)?;
            }
            scene.client.send("answer")?;
            scene.server.ends("reads")
        })
        .only(Mode::Blocking),
        Row::new("the client's", |scene| {
            scene.warm()?;
            scene
                .client
                .begin("reads", json!({"op": "recv", "size": 100}))?;
            for word in ["one", "two", "three"] {
                scene.client.send(word)?;
                scene.server.readable()?;
                scene.server.recv(&format!("reads {word}"), 100)?;
            }
            scene.server.send("answer")?;
            scene.client.ends("reads")
        })
        .only(Mode::Blocking),
    ])
}

#[test]
fn an_end_on_a_detour_follows_its_peer_to_tcp() -> Result<()> {
    Arena::new("duel-follow")?.play(&[
        Row::new("the client is on the detour", |scene| {
            follow(scene, &scene.client, &scene.server)
        }),
        Row::new("the server is on the detour", |scene| {
            follow(scene, &scene.server, &scene.client)
        }),
    ])
}

/// `held` sends more than the other end reads, which takes to small messages: TCP for good. Then each has
/// nothing left in the socket map, and all goes on in order.
fn follow(scene: &Scene<'_>, held: &lab::duel::End, other: &lab::duel::End) -> Result<()> {
    scene.warm()?;
    let filled = held.ask(json!({"op": "fill", "size": 1000, "from": 0}))?;
    let sent = filled["sent"].as_u64().context("how much was sent")?;
    for _ in 0..40 {
        other.ask(json!({"op": "send", "text": "."}))?;
    }
    held.call("reads", json!({"op": "read all", "size": 40}))?;
    other.call("reads", json!({"op": "drain", "size": sent, "from": 0}))?;
    for word in ["one", "two", "three", "four"] {
        held.send(word)?;
        other.readable()?;
        other.recv(&format!("reads {word}"), 100)?;
        other.send("yes")?;
        held.readable()?;
        held.recv(&format!("hears after {word}"), 100)?;
    }
    scene.require_gone_over("")
}

#[test]
fn an_option_on_a_listener_that_is_older_than_the_agent_is_not_seen() -> Result<()> {
    const LOWAT: u64 = 8;
    let lab = Lab::new("duel-older")?;
    let (client, server) = (
        lab.pod(PodSpec::new("client").app("client", "v1"))?,
        lab.pod(PodSpec::new("server").app("server", "v1"))?,
    );
    let (dials, listens) = (Puppet::new(&client)?, Puppet::new(&server)?);
    let lowat = json!([[libc::SOL_SOCKET, libc::SO_RCVLOWAT, LOWAT]]);
    let door = listens.order(json!({
        "op": "listen", "on": "listener", "nonblocking": true, "options": lowat,
    }))?;
    let agent = Agent::start(&lab, &AgentOptions::default())?;
    let to = format!("{}:{}", server.address(), door["port"]);
    dials.order(json!({"op": "connect", "on": "socket", "to": to, "nonblocking": true}))?;
    listens.order(json!({
        "op": "accept", "on": "socket", "from": "listener", "nonblocking": true,
    }))?;
    dials.order(json!({"op": "send", "on": "socket", "text": "four"}))?;
    // The difference that docs/limits.md names: it is told of four bytes, where it asked for eight.
    let poll = json!({"op": "poll", "on": "socket", "events": libc::POLLIN, "within": 5000});
    let told = listens.order(poll)?;
    assert_eq!(told, "IN");
    let accelerated = eventually(DEADLINE, || {
        let rows = agent.connections().unwrap_or_default();
        rows.iter().any(|row| row["accelerated"] == true)
    });
    assert!(accelerated, "{:#?}", agent.connections()?);
    // Whoever listens anew is seen.
    let again = listens.order(json!({
        "op": "listen", "on": "door", "nonblocking": true, "options": lowat,
    }))?;
    let to = format!("{}:{}", server.address(), again["port"]);
    dials.order(json!({"op": "connect", "on": "line", "to": to, "nonblocking": true}))?;
    listens.order(json!({
        "op": "accept", "on": "line", "from": "door", "nonblocking": true,
    }))?;
    dials.order(json!({"op": "send", "on": "line", "text": "four"}))?;
    let poll = json!({"op": "poll", "on": "line", "events": libc::POLLIN, "within": 200});
    assert_ne!(listens.order(poll)?, "IN");
    Ok(())
}
