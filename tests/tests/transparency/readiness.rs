//! What poll(2) and epoll(7) say, and when.

use anyhow::Result;
use lab::duel::{Arena, Row, Scene};
use serde_json::json;

use crate::EVERYTHING;

const LEVEL: i32 = libc::EPOLLIN | libc::EPOLLRDHUP;
const EDGE: i32 = LEVEL | libc::EPOLLET;

#[test]
fn readiness_is_told_alike() -> Result<()> {
    Arena::new("duel-readiness")?.play(&[
        Row::new("poll before, with and after data", polled),
        Row::new("epoll, level-triggered", level),
        Row::new("epoll, edge-triggered, read to the end", edge),
        Row::new(
            "epoll, edge-triggered, stopped after a short read",
            edge_short_read,
        ),
        Row::new(
            "epoll, edge-triggered, more comes before the rest is read",
            edge_more,
        ),
        Row::new("epoll, edge-triggered, for one event", one_shot),
        Row::new("epoll on a socket that has data already", late_watch),
        Row::new("epoll tells of the half-close", half_close),
        Row::new(
            "epoll tells of the close with data behind it",
            close_behind_data,
        ),
        Row::new("epoll tells of the reset", reset),
        Row::new("epoll for writing", writable),
        Row::new("a wait that has begun is woken", woken),
    ])
}

fn polled(scene: &Scene<'_>) -> Result<()> {
    scene.warm()?;
    scene.server.polls_in_vain("polls before", libc::POLLIN)?;
    scene
        .server
        .polls("polls for everything before", EVERYTHING)?;
    scene.client.send("data")?;
    scene.server.polls("polls with data", libc::POLLIN)?;
    scene
        .server
        .polls("polls for everything with data", EVERYTHING)?;
    scene.server.recv("reads half", 2)?;
    scene.server.polls("polls with half", EVERYTHING)?;
    scene.server.recv("reads the rest", 10)?;
    scene.server.polls_in_vain("polls after", libc::POLLIN)
}

fn level(scene: &Scene<'_>) -> Result<()> {
    scene.warm()?;
    scene.server.watch("level", LEVEL)?;
    scene.server.waits_in_vain("waits before", "level")?;
    scene.client.send("data")?;
    scene.server.waits("waits with data", "level")?;
    scene.server.waits("waits again with data", "level")?;
    scene.server.recv("reads half", 2)?;
    scene.server.waits("waits with half", "level")?;
    scene.server.recv("reads the rest", 10)?;
    scene.server.waits_in_vain("waits after", "level")
}

fn edge(scene: &Scene<'_>) -> Result<()> {
    scene.warm()?;
    scene.server.watch("edge", EDGE)?;
    for text in ["first", "second"] {
        scene.client.send(text)?;
        scene
            .server
            .waits(&format!("waits for the {text}"), "edge")?;
        scene
            .server
            .waits_in_vain(&format!("is told of the {text} once"), "edge")?;
        scene.server.recv(&format!("reads the {text}"), 100)?;
        scene
            .server
            .recv_with("reads to the end", 100, libc::MSG_DONTWAIT)?;
    }
    scene.server.waits_in_vain("waits after", "edge")
}

/// As many event loops do: a read that returned less than was asked for was the last.
fn edge_short_read(scene: &Scene<'_>) -> Result<()> {
    scene.warm()?;
    scene.server.watch("edge", EDGE)?;
    for text in ["one", "two", "three"] {
        scene.client.send(text)?;
        scene.server.waits(&format!("waits for {text}"), "edge")?;
        scene.server.recv(&format!("reads {text}"), 100)?;
    }
    scene
        .client
        .call("writes a lot", json!({"op": "write all", "size": 40_000}))?;
    scene.client.delivered()?;
    scene.server.waits("waits for a lot", "edge")?;
    scene
        .server
        .call("reads a lot", json!({"op": "read all", "size": 40_000}))?;
    scene.server.waits_in_vain("waits after", "edge")?;
    scene.client.send("again")?;
    scene.server.waits("waits for more", "edge")
}

fn edge_more(scene: &Scene<'_>) -> Result<()> {
    scene.warm()?;
    scene.server.watch("edge", EDGE)?;
    scene.client.send("some")?;
    scene.server.waits("waits for some", "edge")?;
    scene.server.recv("reads a little", 2)?;
    scene
        .server
        .waits_in_vain("is not told of the rest", "edge")?;
    scene.client.send("more")?;
    scene.server.waits("waits for more", "edge")?;
    scene.server.recv("reads both", 100)
}

fn one_shot(scene: &Scene<'_>) -> Result<()> {
    scene.warm()?;
    scene.server.watch("once", EDGE | libc::EPOLLONESHOT)?;
    scene.client.send("first")?;
    scene.server.waits("waits for the first", "once")?;
    scene.client.send("second")?;
    scene
        .server
        .waits_in_vain("is not told of the second", "once")
}

fn late_watch(scene: &Scene<'_>) -> Result<()> {
    scene.warm()?;
    scene.client.send("early")?;
    scene.client.delivered()?;
    scene.server.watch("edge", EDGE)?;
    scene.server.waits("is told of what was there", "edge")?;
    scene.server.recv("reads it", 100)
}

fn half_close(scene: &Scene<'_>) -> Result<()> {
    scene.warm()?;
    scene.server.watch("edge", EDGE)?;
    scene.client.send("the last")?;
    scene.server.waits("waits for the last", "edge")?;
    scene.client.shutdown(libc::SHUT_WR)?;
    scene.server.waits("waits for the end", "edge")?;
    scene.server.recv("reads the last", 100)?;
    scene.server.recv("reads the end", 100)?;
    scene.server.watch("level", LEVEL)?;
    scene.server.waits("is told again", "level")
}

fn close_behind_data(scene: &Scene<'_>) -> Result<()> {
    scene.warm()?;
    scene.client.send("the last")?;
    scene.client.delivered()?;
    scene.client.close()?;
    scene.server.polls("sees the end coming", libc::POLLRDHUP)?;
    scene.server.watch("edge", EDGE | libc::EPOLLOUT)?;
    scene.server.waits("is told of all", "edge")?;
    scene.server.recv("reads the last", 100)?;
    scene.server.recv("reads the end", 100)
}

fn reset(scene: &Scene<'_>) -> Result<()> {
    scene.warm()?;
    scene.server.watch("edge", EDGE)?;
    scene.client.reset()?;
    scene.server.polls("sees the reset", libc::POLLRDHUP)?;
    scene.server.waits("is told of the reset", "edge")?;
    scene
        .server
        .get("takes the error", libc::SOL_SOCKET, libc::SO_ERROR)?;
    scene.server.recv("reads", 100)
}

fn writable(scene: &Scene<'_>) -> Result<()> {
    scene.warm()?;
    scene.client.watch("edge", libc::EPOLLOUT | libc::EPOLLET)?;
    scene.client.waits("may write", "edge")?;
    scene.client.send("something")?;
    scene.client.delivered()?;
    scene.client.waits_in_vain("is told once", "edge")
}

fn woken(scene: &Scene<'_>) -> Result<()> {
    scene.warm()?;
    scene.server.watch("edge", EDGE)?;
    let wait = json!({"op": "wait", "on": "edge", "within": 10_000});
    scene.server.begin("waits", wait)?;
    scene.client.send("wake up")?;
    scene.server.ends("waits")?;
    scene.server.recv("reads", 100)
}
