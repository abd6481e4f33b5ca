//! Flags of a single call, and other calls than send and recv: nothing tells of them beforehand, so what
//! differs here stays different unless the executable is known.

use anyhow::Result;
use lab::duel::{Arena, Mode, Row, Scene};
use serde_json::json;

#[test]
fn flags_of_a_call_do_alike() -> Result<()> {
    Arena::new("duel-flags")?.play(&[
        Row::new("MSG_PEEK", peek),
        Row::new("MSG_WAITALL with all there", |scene| wait_all(scene, true)),
        Row::new("MSG_WAITALL with half there", |scene| {
            wait_all(scene, false)
        })
        .only(Mode::Blocking)
        .differs("server reads all", "half"),
        Row::new("MSG_TRUNC", truncate)
            .differs("server throws away", "EFAULT")
            .differs("server reads the rest", "thrown away"),
        Row::new("MSG_MORE", more),
        Row::new("recvmsg", messages),
        Row::new("MSG_ZEROCOPY without SO_ZEROCOPY", zero_copy),
        Row::new("MSG_ERRQUEUE", error_queue),
    ])
}

#[test]
fn other_calls_do_alike() -> Result<()> {
    Arena::new("duel-calls")?.play(&[
        Row::new("splice from the socket", splice_out)
            .only(Mode::NonBlocking)
            .differs("server splices", "EAGAIN")
            .differs("server finds nothing left", "by splice"),
        Row::new("splice from the socket, waiting", splice_out_waiting)
            .only(Mode::Blocking)
            .differs("server splices", "still waits"),
        Row::new("splice into the socket", splice_in),
        Row::new("sendfile", sendfile),
        Row::new("io_uring", ring),
        Row::new("io_uring waits", ring_waits),
        Row::new("TCP_ZEROCOPY_RECEIVE", zero_copy_receive)
            .differs("server asks for pages", r#"{"available":0}"#),
        Row::new("a socket of another process", another_process),
        Row::new("names and what tcp_info says", names),
    ])
}

fn peek(scene: &Scene<'_>) -> Result<()> {
    scene.warm()?;
    scene.client.send("first ")?;
    scene.client.send("second")?;
    scene.client.delivered()?;
    scene.server.recv_with("peeks", 100, libc::MSG_PEEK)?;
    scene
        .server
        .recv_with("peeks at three", 3, libc::MSG_PEEK)?;
    scene.server.recv("reads three", 3)?;
    scene
        .server
        .recv_with("peeks at the rest", 100, libc::MSG_PEEK)?;
    scene.server.recv("reads the rest", 100)?;
    scene
        .server
        .recv_with("peeks at nothing", 100, libc::MSG_PEEK | libc::MSG_DONTWAIT)
}

fn wait_all(scene: &Scene<'_>, all_there: bool) -> Result<()> {
    scene.warm()?;
    scene.client.send("half")?;
    scene.client.delivered()?;
    if all_there {
        scene.client.send("half")?;
        scene.client.delivered()?;
        return scene.server.recv_with("reads all", 8, libc::MSG_WAITALL);
    }
    let order = json!({"op": "recv", "size": 8, "flags": libc::MSG_WAITALL});
    scene.server.begin("reads all", order)?;
    scene.client.send("half")?;
    scene.server.ends("reads all")
}

fn truncate(scene: &Scene<'_>) -> Result<()> {
    scene.warm()?;
    scene.client.send("thrown away")?;
    scene.client.delivered()?;
    scene
        .server
        .call("throws away", json!({"op": "discard", "size": 7}))?;
    scene.server.recv("reads the rest", 100)
}

fn more(scene: &Scene<'_>) -> Result<()> {
    scene.warm()?;
    scene.client.send_with("first ", libc::MSG_MORE)?;
    scene.client.send("second")?;
    scene.client.delivered()?;
    scene.server.recv("reads both", 100)
}

fn messages(scene: &Scene<'_>) -> Result<()> {
    scene.warm()?;
    scene.client.send("a message")?;
    scene.client.delivered()?;
    scene.server.recvmsg("reads a little", 4, 0)?;
    scene.server.recvmsg("reads the rest", 100, 0)?;
    scene
        .server
        .recvmsg("finds nothing", 100, libc::MSG_DONTWAIT)
}

fn zero_copy(scene: &Scene<'_>) -> Result<()> {
    scene.warm()?;
    scene
        .client
        .send_with("without a copy", libc::MSG_ZEROCOPY)?;
    scene.server.readable()?;
    scene.server.recv("reads", 100)?;
    scene.client.recvmsg(
        "is told of nothing",
        100,
        libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT,
    )
}

fn error_queue(scene: &Scene<'_>) -> Result<()> {
    scene.warm()?;
    scene.client.send("data")?;
    scene.client.delivered()?;
    scene.server.recvmsg(
        "finds no error",
        100,
        libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT,
    )?;
    scene.server.recv("reads", 100)
}

/// From the socket into a pipe, then from the pipe.
fn splice_out(scene: &Scene<'_>) -> Result<()> {
    scene.warm()?;
    scene.server.ask(json!({"op": "pipe", "on": "pipe"}))?;
    scene.client.send("by splice")?;
    scene.client.delivered()?;
    scene.server.call(
        "splices",
        json!({
            "op": "splice", "from": "socket", "to": "pipe.write", "size": 100,
            "flags": libc::SPLICE_F_NONBLOCK,
        }),
    )?;
    scene
        .server
        .recv_with("finds nothing left", 100, libc::MSG_DONTWAIT)
}

fn splice_out_waiting(scene: &Scene<'_>) -> Result<()> {
    scene.warm()?;
    scene.server.ask(json!({"op": "pipe", "on": "pipe"}))?;
    let order = json!({"op": "splice", "from": "socket", "to": "pipe.write", "size": 100});
    scene.server.begin("splices", order)?;
    scene.client.send("by splice")?;
    scene.server.ends("splices")
}

fn splice_in(scene: &Scene<'_>) -> Result<()> {
    scene.warm()?;
    scene.client.ask(json!({"op": "pipe", "on": "pipe"}))?;
    scene
        .client
        .ask(json!({"op": "write", "on": "pipe.write", "text": "from a pipe"}))?;
    scene.client.call(
        "splices",
        json!({"op": "splice", "from": "pipe.read", "to": "socket", "size": 100}),
    )?;
    scene.server.readable()?;
    scene.server.recv("reads", 100)
}

fn sendfile(scene: &Scene<'_>) -> Result<()> {
    const SIZE: usize = 200_000;
    scene.warm()?;
    scene
        .server
        .begin("reads all", json!({"op": "read all", "size": SIZE}))?;
    scene
        .client
        .call("sends a file", json!({"op": "sendfile", "size": SIZE}))?;
    scene.server.ends("reads all")
}

fn ring(scene: &Scene<'_>) -> Result<()> {
    scene.warm()?;
    scene.client.call(
        "submits a send",
        json!({"op": "ring send", "text": "by a ring"}),
    )?;
    scene.client.delivered()?;
    scene.server.call(
        "submits a peek",
        json!({
            "op": "ring recv", "size": 100, "flags": libc::MSG_PEEK,
        }),
    )?;
    scene
        .server
        .call("submits a recv", json!({"op": "ring recv", "size": 100}))
}

fn ring_waits(scene: &Scene<'_>) -> Result<()> {
    scene.warm()?;
    scene
        .server
        .begin("submits a recv", json!({"op": "ring recv", "size": 100}))?;
    scene.client.send("comes late")?;
    scene.server.ends("submits a recv")
}

fn zero_copy_receive(scene: &Scene<'_>) -> Result<()> {
    scene.warm()?;
    scene.client.send("a few bytes")?;
    scene.client.delivered()?;
    scene
        .server
        .call("asks for pages", json!({"op": "zero-copy receive"}))?;
    scene
        .server
        .recv_with("reads what is left", 100, libc::MSG_DONTWAIT)
}

fn another_process(scene: &Scene<'_>) -> Result<()> {
    scene.warm()?;
    let other = scene.another_client()?;
    scene.server.send("for whoever reads")?;
    scene.server.delivered()?;
    scene
        .client
        .begin("gives", json!({"op": "give", "at": "a-socket"}))?;
    other.ask(json!({"op": "take", "at": "a-socket"}))?;
    scene.client.ends("gives")?;
    scene.client.close()?;
    other.recv("reads", 100)?;
    other.send("from another process")?;
    scene.server.readable()?;
    scene.server.recv("reads", 100)?;
    other.close()?;
    scene.server.polls("sees the end", libc::POLLRDHUP)?;
    scene.server.recv("reads the end", 100)
}

fn names(scene: &Scene<'_>) -> Result<()> {
    scene.warm()?;
    scene
        .client
        .call("knows its peer", json!({"op": "knows peer"}))?;
    scene.server.call("says its state", json!({"op": "info"}))?;
    scene.client.call("says its state", json!({"op": "info"}))?;
    scene
        .server
        .get("has no error", libc::SOL_SOCKET, libc::SO_ERROR)?;
    scene
        .server
        .get("is a stream", libc::SOL_SOCKET, libc::SO_TYPE)?;
    scene
        .server
        .get("is TCP", libc::SOL_SOCKET, libc::SO_PROTOCOL)?;
    scene
        .server
        .get("does not listen", libc::SOL_SOCKET, libc::SO_ACCEPTCONN)
}
