//! A reader that lags: its sender is held back, by not much more than TCP would queue, and not a byte is lost,
//! reordered or left without an event, however often the connection changes its way.

use anyhow::{Context, Result, ensure};
use lab::duel::{Arena, Row, Scene};
use serde_json::json;

/// What plain TCP queues at the most with Linux's defaults: 4 MiB to send, 6 MiB to receive.
const TCP_QUEUES: u64 = 10 << 20;

#[test]
fn a_reader_that_lags_holds_its_sender_back() -> Result<()> {
    Arena::new("duel-lagging")?.play(&[
        Row::new("messages of 300 bytes", |scene| floods(scene, &[300])),
        Row::new("messages of 1000 bytes", |scene| floods(scene, &[1000])),
        Row::new("messages of 8 KiB", |scene| floods(scene, &[8 << 10])),
        Row::new("messages of 60 KB", |scene| floods(scene, &[60_000])),
        Row::new("messages of 1 MiB", |scene| floods(scene, &[1 << 20])),
        Row::new("messages of all sizes", |scene| {
            floods(scene, &[1000, 7000, 4096, 20_000, 100, 65_536])
        }),
        Row::new("both ends lag", both),
    ])
}

/// Fills the connection up and empties it again, for each size, and exchanges a word in between.
fn floods(scene: &Scene<'_>, sizes: &[u64]) -> Result<()> {
    scene.warm()?;
    let mut place = 0;
    for size in sizes.iter().cycle().take(6) {
        let fill = json!({"op": "fill", "size": size, "from": place});
        let filled = scene.client.ask(fill)?;
        let sent = filled["sent"].as_u64().context("how much was sent")?;
        ensure!(sent <= TCP_QUEUES, "messages of {size}: {filled}");
        let then = filled["then"].to_string();
        scene
            .client
            .note(&format!("is held back, messages of {size}"), &then);
        let drain = json!({"op": "drain", "size": sent, "from": place});
        scene
            .server
            .call(&format!("reads, messages of {size}"), drain)?;
        place += sent;
        scene.server.send("thanks")?;
        scene.client.readable()?;
        scene.client.recv("hears", 100)?;
    }
    Ok(())
}

fn both(scene: &Scene<'_>) -> Result<()> {
    scene.warm()?;
    let fill = json!({"op": "fill", "size": 5000, "from": 0});
    for _ in 0..3 {
        let mut sent = Vec::new();
        for end in [&scene.client, &scene.server] {
            let filled = end.ask(fill.clone())?;
            let bytes = filled["sent"].as_u64().context("how much was sent")?;
            ensure!(bytes <= TCP_QUEUES, "{filled}");
            end.note("is held back", &filled["then"].to_string());
            sent.push(bytes);
        }
        for (end, size) in [(&scene.server, sent[0]), (&scene.client, sent[1])] {
            end.call("reads", json!({"op": "drain", "size": size, "from": 0}))?;
        }
    }
    Ok(())
}
