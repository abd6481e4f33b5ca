//! What a program sees coming: options that are set before the first byte, and executables by their name.
//! Such connections stay plain TCP, so nothing differs, and `meshctl connections` says why.

use std::time::Duration;

use anyhow::Result;
use lab::duel::{Arena, Mode, Row, Scene};
use serde_json::{Value, json};

const SOL_SOCKET: i32 = libc::SOL_SOCKET;
const TCP: i32 = libc::IPPROTO_TCP;
const TCP_INQ: i32 = 36;

/// An option that redirection could not honour, and its name.
const OPTIONS: [(i32, i32, i32, &str); 6] = [
    (SOL_SOCKET, libc::SO_RCVLOWAT, 8, "SO_RCVLOWAT"),
    (TCP, TCP_INQ, 1, "TCP_INQ"),
    (SOL_SOCKET, libc::SO_TIMESTAMP, 1, "SO_TIMESTAMP"),
    (SOL_SOCKET, libc::SO_PEEK_OFF, 0, "SO_PEEK_OFF"),
    (SOL_SOCKET, libc::SO_ZEROCOPY, 1, "SO_ZEROCOPY"),
    (
        SOL_SOCKET,
        libc::SO_MAX_PACING_RATE,
        1_000_000,
        "SO_MAX_PACING_RATE",
    ),
];

#[test]
fn an_option_before_the_first_byte_keeps_a_connection_on_tcp() -> Result<()> {
    Arena::new("duel-foreseen")?.play(&[
        Row::new("set on the listener", |scene| {
            every(scene, |option| {
                scene.open_with(&json!([option]), &json!([]))?;
                scene.greet()
            })
        }),
        Row::new("set by the client before it connects", |scene| {
            every(scene, |option| {
                scene.open_with(&json!([]), &json!([option]))?;
                scene.greet()
            })
        }),
        Row::new("set by the client before it sends", |scene| {
            every(scene, |option| {
                scene.open()?;
                scene.client.ask(json!({
                    "op": "set", "level": option[0], "name": option[1], "value": option[2],
                }))?;
                scene.greet()
            })
        })
        // Where the pod says `on`, the server has the client's consent from the start.
        .only(Mode::NonBlocking),
        Row::new("taken back before it connects", |scene| {
            let lowat = |value: i32| json!([SOL_SOCKET, libc::SO_RCVLOWAT, value]);
            scene.open_with(&json!([]), &json!([lowat(8), lowat(1)]))?;
            scene.greet()?;
            scene.require_redirected()
        }),
    ])
}

#[test]
fn what_was_asked_for_is_honoured() -> Result<()> {
    Arena::new("duel-honoured")?.play(&[
        Row::new("SO_RCVLOWAT", lowat),
        Row::new("TCP_INQ", inq),
        Row::new("SO_TIMESTAMP", timestamps),
        Row::new("SO_PEEK_OFF", peek_off),
        Row::new("SO_ZEROCOPY", zero_copy),
    ])
}

#[test]
fn options_that_come_too_late() -> Result<()> {
    let asks_for_the_time = |scene: &Scene<'_>| {
        scene.warm()?;
        let (label, option) = ("asks for the time", libc::SO_TIMESTAMP);
        scene.server.set(label, SOL_SOCKET, option, 1)?;
        told_the_time(scene);
        Ok(())
    };
    Arena::new("duel-late")?.play(&[
        Row::new("SO_RCVLOWAT", |scene| {
            scene.warm()?;
            let (label, option) = ("waits for eight", libc::SO_RCVLOWAT);
            scene.server.set(label, SOL_SOCKET, option, 8)?;
            read_by_eight(scene)
        })
        .differs("server polls with four", "IN"),
        Row::new("TCP_INQ", |scene| {
            scene.warm()?;
            scene.server.set("asks for what is left", TCP, TCP_INQ, 1)?;
            scene.client.send("abcdef")?;
            scene.client.delivered()?;
            scene.server.recvmsg("reads two", 2, 0)
        })
        .differs(
            "server reads two",
            r#"{"read":"ab","control":[],"flags":0}"#,
        ),
        Row::new("SO_TIMESTAMP", asks_for_the_time).differs("server is told the time", "false"),
        Row::new("SO_PEEK_OFF", |scene| {
            scene.warm()?;
            let (label, option) = ("peeks on", libc::SO_PEEK_OFF);
            scene.server.set(label, SOL_SOCKET, option, 0)?;
            peek_twice(scene)
        })
        .differs("server peeks at two more", "ab"),
        // What concerns the sender alone is never too late.
        Row::new("SO_ZEROCOPY", |scene| {
            scene.warm()?;
            let (label, option) = ("may send without a copy", libc::SO_ZEROCOPY);
            scene.client.set(label, SOL_SOCKET, option, 1)?;
            send_without_copy(scene)
        }),
    ])
}

#[test]
fn a_known_executable_keeps_its_connections_on_tcp() -> Result<()> {
    Arena::new("duel-executable")?.play(&[
        Row::new("as the client", |scene| {
            scene
                .client
                .ask(json!({"op": "name process", "text": "haproxy"}))?;
            scene.open()?;
            scene.greet()?;
            scene.require_plain("executable")
        })
        .only(Mode::NonBlocking),
        Row::new("as the server", |scene| {
            scene
                .server
                .ask(json!({"op": "name process", "text": "haproxy"}))?;
            scene.open()?;
            scene.greet()?;
            scene.require_plain("executable")
        })
        .only(Mode::NonBlocking),
        Row::new("where the annotation knows better", |scene| {
            scene
                .client
                .ask(json!({"op": "name process", "text": "haproxy"}))?;
            scene
                .server
                .ask(json!({"op": "name process", "text": "haproxy"}))?;
            scene.warm()
        })
        .only(Mode::Blocking),
    ])
}

/// Opens a connection for each option, which must stay plain for its sake.
fn every(scene: &Scene<'_>, open: impl Fn(&Value) -> Result<()>) -> Result<()> {
    for (level, name, value, text) in OPTIONS {
        open(&json!([level, name, value]))?;
        scene.require_plain(text)?;
        scene.client.close()?;
    }
    Ok(())
}

fn lowat(scene: &Scene<'_>) -> Result<()> {
    scene.open_with(&json!([[SOL_SOCKET, libc::SO_RCVLOWAT, 8]]), &json!([]))?;
    scene.client.send("hello of fifteen")?;
    scene.server.readable()?;
    scene.server.recv("is greeted", 100)?;
    scene.require_plain("SO_RCVLOWAT")?;
    read_by_eight(scene)
}

fn read_by_eight(scene: &Scene<'_>) -> Result<()> {
    scene.client.send("four")?;
    scene.client.delivered()?;
    scene
        .server
        .polls_in_vain("polls with four", libc::POLLIN)?;
    scene.client.send("more")?;
    scene.server.polls("polls with eight", libc::POLLIN)?;
    scene.server.recv("reads", 100)
}

fn inq(scene: &Scene<'_>) -> Result<()> {
    scene.open_with(&json!([[TCP, TCP_INQ, 1]]), &json!([]))?;
    scene.client.send("abcdef")?;
    scene.client.delivered()?;
    scene.server.recvmsg("reads two", 2, 0)?;
    scene.server.recvmsg("reads the rest", 100, 0)?;
    scene.require_plain("TCP_INQ")
}

fn timestamps(scene: &Scene<'_>) -> Result<()> {
    scene.open_with(&json!([[SOL_SOCKET, libc::SO_TIMESTAMP, 1]]), &json!([]))?;
    told_the_time(scene);
    scene.require_plain("SO_TIMESTAMP")
}

/// The kernel begins to stamp a little after it was asked to for the first time.
fn told_the_time(scene: &Scene<'_>) {
    let told = || -> Result<bool> {
        scene.client.ask(json!({"op": "send", "text": "abcdef"}))?;
        scene.client.delivered()?;
        let read = scene.server.ask(json!({"op": "recvmsg", "size": 100}))?;
        Ok(read["control"][0].is_string())
    };
    let told = lab::eventually(Duration::from_secs(2), || told().unwrap_or_default());
    scene.server.note("is told the time", &told.to_string());
}

fn peek_off(scene: &Scene<'_>) -> Result<()> {
    scene.open_with(&json!([[SOL_SOCKET, libc::SO_PEEK_OFF, 0]]), &json!([]))?;
    peek_twice(scene)?;
    scene.require_plain("SO_PEEK_OFF")
}

fn peek_twice(scene: &Scene<'_>) -> Result<()> {
    scene.client.send("abcdef")?;
    scene.client.delivered()?;
    let server = &scene.server;
    server.recv_with("peeks at two", 2, libc::MSG_PEEK)?;
    server.recv_with("peeks at two more", 2, libc::MSG_PEEK)
}

fn zero_copy(scene: &Scene<'_>) -> Result<()> {
    scene.open_with(&json!([]), &json!([[SOL_SOCKET, libc::SO_ZEROCOPY, 1]]))?;
    send_without_copy(scene)?;
    scene.require_plain("SO_ZEROCOPY")
}

fn send_without_copy(scene: &Scene<'_>) -> Result<()> {
    scene
        .client
        .send_with("without a copy", libc::MSG_ZEROCOPY)?;
    scene.server.readable()?;
    scene.server.recv("reads", 100)?;
    scene.client.delivered()?;
    scene.client.polls("is told", 0)?;
    scene.client.recvmsg(
        "reads what it is told",
        100,
        libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT,
    )
}
