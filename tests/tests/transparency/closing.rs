//! How a connection ends, in every way it can.

use anyhow::Result;
use lab::duel::{Arena, Mode, Row, Scene};
use serde_json::json;

use crate::EVERYTHING;

#[test]
fn connections_end_alike() -> Result<()> {
    Arena::new("duel-closing")?.play(&[
        Row::new("the client half-closes", |scene| half_close(scene, true)),
        Row::new("the server half-closes", |scene| half_close(scene, false)),
        Row::new("the client closes with data under way", |scene| {
            close_behind_data(scene, true)
        }),
        Row::new("the server closes with data under way", |scene| {
            close_behind_data(scene, false)
        }),
        unread(
            "the receiving server closes with data unread",
            |scene| close_with_unread(scene, true),
            [
                "client sees the other go",
                "client sees everything",
                "client reads",
                "client sends one more",
            ],
        ),
        unread(
            "the receiving client closes with data unread",
            |scene| close_with_unread(scene, false),
            [
                "server sees the other go",
                "server sees everything",
                "server reads",
                "server sends one more",
            ],
        ),
        Row::new("the client resets", |scene| reset(scene, true)),
        Row::new("the server resets", |scene| reset(scene, false)),
        Row::new("a reset behind data", reset_behind_data),
        Row::new("sends to a peer that has closed", send_after_close),
        Row::new("sends after its own shutdown", send_after_shutdown),
        Row::new("shuts its reading down", shut_reading),
        Row::new("is disconnected and used again", used_again),
    ])
}

#[test]
fn readers_that_wait_are_woken_alike() -> Result<()> {
    Arena::new("duel-waking")?.play(&[
        Row::new("a reader waits for the peer's close", |scene| {
            woken(scene, &|scene| scene.client.close())
        })
        .only(Mode::Blocking),
        Row::new("a reader waits for the peer's reset", |scene| {
            woken(scene, &|scene| scene.client.reset())
        })
        .only(Mode::Blocking)
        .differs("server reads", "EAGAIN"),
        Row::new("a reader waits for data", |scene| {
            woken(scene, &|scene| scene.client.send("data"))
        })
        .only(Mode::Blocking),
        Row::new("a reader waits, its own side stops writing", |scene| {
            woken(scene, &|scene| {
                scene.server.shutdown(libc::SHUT_WR)?;
                scene.server.still_waits("reads")?;
                scene.client.send("late")
            })
        })
        .only(Mode::Blocking)
        .differs("server reads", "EAGAIN"),
        Row::new(
            "a reader waits, another thread shuts the socket down",
            |scene| woken(scene, &|scene| scene.server.shutdown(libc::SHUT_RDWR)),
        )
        .only(Mode::Blocking)
        .differs("server reads", "EAGAIN"),
        Row::new("a reader waits, another thread ends the reading", |scene| {
            woken(scene, &|scene| scene.server.shutdown(libc::SHUT_RD))
        })
        .only(Mode::Blocking)
        .differs("server reads", "EAGAIN"),
        Row::new(
            "a poll waits, another thread shuts the socket down",
            |scene| {
                scene.warm()?;
                let order = json!({"op": "poll", "events": libc::POLLIN, "within": 5000});
                scene.server.begin("polls", order)?;
                scene.server.shutdown(libc::SHUT_RDWR)?;
                scene.server.ends("polls")
            },
        ),
        Row::new("reads and writes that time out", time_outs).only(Mode::Blocking),
    ])
}

/// TCP resets where bytes are thrown away unread; of redirected ones it does not know.
fn unread(
    name: &'static str,
    script: fn(&Scene<'_>) -> Result<()>,
    [goes, everything, reads, sends]: [&'static str; 4],
) -> Row {
    Row::new(name, script)
        .differs(goes, "RDHUP")
        .differs(everything, "IN|OUT|RDHUP")
        .differs(reads, "")
        .differs(sends, "8")
}

fn half_close(scene: &Scene<'_>, by_client: bool) -> Result<()> {
    scene.warm()?;
    let (closing, other) = if by_client {
        (&scene.client, &scene.server)
    } else {
        (&scene.server, &scene.client)
    };
    closing.send("the last")?;
    closing.shutdown(libc::SHUT_WR)?;
    other.polls("sees the end coming", libc::POLLRDHUP)?;
    other.polls("sees everything", EVERYTHING)?;
    other.recv("reads the last", 100)?;
    other.recv("reads the end", 100)?;
    other.recv("reads the end again", 100)?;
    other.send("goes on")?;
    closing.readable()?;
    closing.recv("reads what goes on", 100)?;
    closing.recv_with("finds nothing more", 100, libc::MSG_DONTWAIT)?;
    closing.polls("may not write", EVERYTHING)?;
    other.close()?;
    closing.polls("sees the end", libc::POLLRDHUP)?;
    closing.recv("reads the end", 100)?;
    closing.polls("sees everything", EVERYTHING)
}

fn close_behind_data(scene: &Scene<'_>, by_client: bool) -> Result<()> {
    const SIZE: usize = 50_000;
    scene.warm()?;
    let (closing, other) = if by_client {
        (&scene.client, &scene.server)
    } else {
        (&scene.server, &scene.client)
    };
    closing.call("writes", json!({"op": "write all", "size": SIZE}))?;
    closing.close()?;
    other.polls("sees the end coming", libc::POLLRDHUP)?;
    other.call("reads all", json!({"op": "read all", "size": SIZE}))?;
    other.recv("reads the end", 100)
}

fn close_with_unread(scene: &Scene<'_>, by_server: bool) -> Result<()> {
    scene.warm()?;
    let (sending, closing) = if by_server {
        (&scene.client, &scene.server)
    } else {
        (&scene.server, &scene.client)
    };
    sending.send("nobody reads this")?;
    sending.delivered()?;
    closing.close()?;
    sending.polls("sees the other go", libc::POLLRDHUP)?;
    sending.polls("sees everything", EVERYTHING)?;
    sending.recv("reads", 100)?;
    sending.send("one more")
}

fn reset(scene: &Scene<'_>, by_client: bool) -> Result<()> {
    scene.warm()?;
    let (closing, other) = if by_client {
        (&scene.client, &scene.server)
    } else {
        (&scene.server, &scene.client)
    };
    closing.reset()?;
    other.polls("sees it", libc::POLLRDHUP)?;
    other.recv("reads", 100)?;
    other.recv("reads again", 100)?;
    other.send("into nothing")
}

fn reset_behind_data(scene: &Scene<'_>) -> Result<()> {
    scene.warm()?;
    scene.client.send("before the reset")?;
    scene.client.delivered()?;
    scene.client.reset()?;
    scene.server.polls("sees it", libc::POLLRDHUP)?;
    scene.server.recv("reads", 100)?;
    scene.server.recv("reads again", 100)
}

fn send_after_close(scene: &Scene<'_>) -> Result<()> {
    scene.warm()?;
    scene.server.close()?;
    scene.client.polls("sees the end", libc::POLLRDHUP)?;
    scene.client.send("first")?;
    scene.client.polls("sees the reset", libc::POLLERR)?;
    scene.client.send("second")?;
    scene.client.send("third")?;
    scene.client.recv("reads", 100)
}

fn send_after_shutdown(scene: &Scene<'_>) -> Result<()> {
    scene.warm()?;
    scene.client.shutdown(libc::SHUT_WR)?;
    scene.client.send("too late")?;
    scene.server.polls("sees the end", libc::POLLRDHUP)?;
    scene.server.recv("reads the end", 100)
}

fn shut_reading(scene: &Scene<'_>) -> Result<()> {
    scene.warm()?;
    scene.client.send("there already")?;
    scene.client.delivered()?;
    scene.server.shutdown(libc::SHUT_RD)?;
    scene.server.polls("sees everything", EVERYTHING)?;
    scene.server.recv("reads what was there", 100)?;
    scene.server.recv("reads the end", 100)?;
    scene.client.send("later")?;
    scene.client.delivered()?;
    scene.server.recv("reads on", 100)
}

fn used_again(scene: &Scene<'_>) -> Result<()> {
    scene.warm()?;
    let to = scene.server_address()?;
    scene.server.send("of the first connection")?;
    scene.server.delivered()?;
    scene
        .client
        .call("disconnects", json!({"op": "disconnect"}))?;
    scene.client.ask(json!({"op": "reconnect", "to": to}))?;
    let nonblocking = scene.mode == Mode::NonBlocking;
    scene.server.ask(json!({
        "op": "accept", "on": "socket", "from": "listener", "nonblocking": nonblocking,
    }))?;
    scene
        .client
        .recv_with("finds nothing old", 100, libc::MSG_DONTWAIT)?;
    scene.client.send("anew")?;
    scene.server.readable()?;
    scene.server.recv("reads", 100)?;
    scene.server.send("answer")?;
    scene.client.readable()?;
    scene.client.recv("reads the answer", 100)
}

fn woken(scene: &Scene<'_>, act: &dyn Fn(&Scene<'_>) -> Result<()>) -> Result<()> {
    scene.warm()?;
    scene
        .server
        .begin("reads", json!({"op": "recv", "size": 100}))?;
    act(scene)?;
    scene.server.ends("reads")
}

fn time_outs(scene: &Scene<'_>) -> Result<()> {
    scene.warm()?;
    for name in [libc::SO_RCVTIMEO, libc::SO_SNDTIMEO] {
        scene
            .server
            .ask(json!({"op": "set time-out", "name": name, "milliseconds": 100}))?;
    }
    scene.server.recv("reads in vain", 100)?;
    scene.client.send("in time")?;
    scene.server.recv("reads", 100)
}
