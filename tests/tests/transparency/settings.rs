//! Options that are set on an accelerated connection and stay what they are.

use anyhow::Result;
use lab::duel::{Arena, Row, Scene};
use serde_json::json;

#[test]
fn options_are_kept_alike() -> Result<()> {
    Arena::new("duel-options")?.play(&[
        Row::new("options read back as they were set", read_back),
        Row::new(
            "TCP_USER_TIMEOUT and keepalive leave a live peer alone",
            keepalive,
        ),
        Row::new("TCP_CORK", cork),
        Row::new("an unknown protocol on top", upper_protocol),
        Row::new("TCP_REPAIR is refused alike", |scene| {
            scene.warm()?;
            scene
                .server
                .set("repairs", libc::IPPROTO_TCP, libc::TCP_REPAIR, 2)
        }),
    ])
}

fn read_back(scene: &Scene<'_>) -> Result<()> {
    scene.warm()?;
    for (label, level, name, value) in [
        ("TCP_NODELAY", libc::IPPROTO_TCP, libc::TCP_NODELAY, 1),
        ("TCP_QUICKACK", libc::IPPROTO_TCP, libc::TCP_QUICKACK, 1),
        (
            "TCP_USER_TIMEOUT",
            libc::IPPROTO_TCP,
            libc::TCP_USER_TIMEOUT,
            3000,
        ),
        ("TCP_KEEPIDLE", libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, 7),
        ("TCP_KEEPINTVL", libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, 3),
        ("TCP_KEEPCNT", libc::IPPROTO_TCP, libc::TCP_KEEPCNT, 2),
        ("SO_KEEPALIVE", libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1),
        ("SO_RCVBUF", libc::SOL_SOCKET, libc::SO_RCVBUF, 50_000),
        ("SO_SNDBUF", libc::SOL_SOCKET, libc::SO_SNDBUF, 50_000),
        ("SO_BUSY_POLL", libc::SOL_SOCKET, libc::SO_BUSY_POLL, 10),
    ] {
        scene
            .server
            .set(&format!("sets {label}"), level, name, value)?;
        scene.server.get(&format!("has {label}"), level, name)?;
    }
    scene.client.send("still works")?;
    scene.server.readable()?;
    scene.server.recv("reads", 100)
}

/// Longer than the time-out, with data that nobody reads: TCP acknowledges what it queues.
fn keepalive(scene: &Scene<'_>) -> Result<()> {
    scene.warm()?;
    for (name, value) in [
        (libc::TCP_USER_TIMEOUT, 100),
        (libc::TCP_KEEPIDLE, 1),
        (libc::TCP_KEEPINTVL, 1),
    ] {
        scene.client.ask(json!({
            "op": "set", "level": libc::IPPROTO_TCP, "name": name, "value": value,
        }))?;
    }
    scene
        .client
        .set("keeps alive", libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
    scene.client.send("unread")?;
    scene.client.delivered()?;
    let order = json!({"op": "poll", "events": libc::POLLIN, "within": 1500});
    scene.client.call("is not cut off", order)?;
    scene.server.recv("reads", 100)
}

fn cork(scene: &Scene<'_>) -> Result<()> {
    scene.warm()?;
    scene
        .client
        .set("corks", libc::IPPROTO_TCP, libc::TCP_CORK, 1)?;
    scene.client.send("bottled ")?;
    scene.client.send("up")?;
    scene
        .client
        .set("uncorks", libc::IPPROTO_TCP, libc::TCP_CORK, 0)?;
    scene.client.delivered()?;
    scene.server.recv("reads", 100)
}

/// As the kernel's TLS is asked for: on a redirected connection it is not there.
fn upper_protocol(scene: &Scene<'_>) -> Result<()> {
    scene.warm()?;
    let order =
        json!({"op": "set text", "level": libc::IPPROTO_TCP, "name": 31, "text": "nothing"});
    scene.server.call("asks for it", order)
}
