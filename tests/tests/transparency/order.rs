//! Bytes in order and in full, and what is known of them before they are read.

use anyhow::Result;
use lab::duel::{Arena, Mode, Row, Scene};
use serde_json::json;

#[test]
fn bytes_come_in_order_and_are_counted() -> Result<()> {
    Arena::new("duel-order")?.play(&[
        Row::new("messages are joined by the reader", joined),
        Row::new("a message is read in pieces", pieces),
        Row::new("large streams both ways", large),
        Row::new("what waits is counted", counted),
        Row::new("empty sends and reads", empty),
        Row::new("out of band", out_of_band)
            .differs("server is told of urgent data", "")
            .differs("server reads in band", "ab!")
            .differs("server is at the mark", "0")
            .differs("server reads out of band", "EAGAIN"),
        Row::new("a reader that is stopped gets all of it later", stopped),
    ])
}

fn joined(scene: &Scene<'_>) -> Result<()> {
    scene.warm()?;
    for text in ["one ", "two ", "three"] {
        scene.client.send(text)?;
    }
    scene.client.delivered()?;
    scene.server.recv("reads all", 100)
}

fn pieces(scene: &Scene<'_>) -> Result<()> {
    scene.warm()?;
    scene.server.send("abcdefgh")?;
    scene.client.readable()?;
    scene.client.recv("reads three", 3)?;
    scene.client.recv("reads one", 1)?;
    scene.client.recv("reads the rest", 100)?;
    scene
        .client
        .recv_with("finds nothing more", 100, libc::MSG_DONTWAIT)
}

fn large(scene: &Scene<'_>) -> Result<()> {
    const SIZE: usize = 1_000_000;
    scene.warm()?;
    for (from, to) in [
        (&scene.client, &scene.server),
        (&scene.server, &scene.client),
    ] {
        to.begin("reads it", json!({"op": "read all", "size": SIZE}))?;
        from.call("writes much", json!({"op": "write all", "size": SIZE}))?;
        to.ends("reads it")?;
    }
    Ok(())
}

fn counted(scene: &Scene<'_>) -> Result<()> {
    scene.warm()?;
    scene.server.ioctl("has nothing", "FIONREAD")?;
    scene.client.send("twelve bytes")?;
    scene.client.delivered()?;
    scene.client.ioctl("has nothing unsent", "TIOCOUTQ")?;
    scene.server.ioctl("has twelve", "FIONREAD")?;
    scene.server.recv("reads two", 2)?;
    scene.server.ioctl("has ten", "FIONREAD")?;
    scene.client.send("and more")?;
    scene.client.delivered()?;
    scene.server.ioctl("has eighteen", "FIONREAD")?;
    scene.server.recv("reads all", 100)?;
    scene.server.ioctl("has nothing again", "FIONREAD")
}

fn empty(scene: &Scene<'_>) -> Result<()> {
    scene.warm()?;
    scene.client.send("")?;
    scene.client.delivered()?;
    scene
        .server
        .recv_with("finds nothing", 10, libc::MSG_DONTWAIT)?;
    scene.client.send("x")?;
    scene.client.delivered()?;
    scene.server.recv("reads none", 0)?;
    scene.server.recv("reads x", 10)
}

fn out_of_band(scene: &Scene<'_>) -> Result<()> {
    scene.warm()?;
    scene.client.send("ab")?;
    scene.client.send_with("!", libc::MSG_OOB)?;
    scene.client.delivered()?;
    scene
        .server
        .polls_in_vain("is told of urgent data", libc::POLLPRI)?;
    scene.server.recv("reads in band", 10)?;
    scene.server.ioctl("is at the mark", "SIOCATMARK")?;
    scene
        .server
        .recv_with("reads out of band", 10, libc::MSG_OOB | libc::MSG_DONTWAIT)
}

fn stopped(scene: &Scene<'_>) -> Result<()> {
    const SIZE: usize = 100_000;
    scene.warm()?;
    scene.server.puppet.signal(libc::SIGSTOP)?;
    let sent = scene
        .client
        .call("writes", json!({"op": "write all", "size": SIZE}));
    scene.server.puppet.signal(libc::SIGCONT)?;
    sent?;
    scene
        .server
        .call("reads", json!({"op": "read all", "size": SIZE}))?;
    if scene.mode == Mode::Blocking {
        scene
            .server
            .begin("waits for more", json!({"op": "recv", "size": 10}))?;
        scene.client.send("more")?;
        scene.server.ends("waits for more")?;
    }
    Ok(())
}
