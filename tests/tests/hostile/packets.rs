//! SYNs that no kernel's TCP wrote: with another's address, behind options, extension headers, in fragments.

use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use lab::stage::DEADLINE;
use lab::{Pod, eventually};

use crate::support::{REFUSED, SYN_RECEIVED, Scene, dial, dial_until, intrude, script, sockets};

/// Nobody has these, so whoever is let in as them stays half open.
const ABSENT: &str = "10.244.77.7";
const ABSENT6: &str = "fd00:10:244::7777";

/// Sends a SYN by hand.
fn syn(pod: &Pod, from: SocketAddr, to: SocketAddr, more: &[&str]) -> Result<()> {
    let (from, to) = (from.to_string(), to.to_string());
    let words = [&["--from", &from, "--to", &to], more].concat();
    assert_eq!(intrude(pod, "syn", &words)?, "sent");
    Ok(())
}

fn arrives(server: &Pod, from: SocketAddr) -> bool {
    eventually(DEADLINE, || {
        sockets(server, SYN_RECEIVED, from).is_ok_and(|count| count == 1)
    })
}

#[test]
fn a_pods_address_on_a_packet_is_no_identity() -> Result<()> {
    // The friend may connect, and so may an address that nobody has: that shows that the packets arrive.
    let spec = format!(
        "rules: [{{from: [{{source: {{principals: ['cluster.local/ns/default/sa/friend']}}}}]}}, \
         {{from: [{{source: {{ipBlocks: ['{ABSENT}', '{ABSENT6}']}}}}]}}]"
    );
    let scene = Scene::new("hostile-packet", &spec)?;
    let (intruder, server) = (&scene.stage.client, scene.server());
    let serve = ["stream-server", "--listen", "[::]:7000", "-n", "100"];
    let mut serving = server.spawn(Pod::peer(serve)?)?;
    server.wait_listening(&mut serving, 7000)?;
    let to = SocketAddr::new(server.address().into(), 7000);
    let to6 = SocketAddr::new(server.address6().into(), 7000);
    dial_until(&scene.friend, &["--to", &to.to_string()], "connected")?;
    dial_until(&scene.friend, &["--to", &to6.to_string()], "connected")?;
    dial_until(intruder, &["--to", &to.to_string()], REFUSED)?;
    // Or it would answer what it did not ask for with a reset.
    script(&scene.friend, "ip link set eth0 down")?;
    let variants: [(IpAddr, IpAddr, SocketAddr, &[&[&str]]); 2] = [
        (
            scene.friend.address().into(),
            ABSENT.parse()?,
            to,
            &[&[], &["--options", "5"], &["--fragments"]],
        ),
        (
            scene.friend.address6().into(),
            ABSENT6.parse()?,
            to6,
            &[
                &[],
                &["--extensions", "1"],
                &["--extensions", "3", "--fragments"],
            ],
        ),
    ];
    let mut port = 40000;
    for (friend, absent, to, variants) in variants {
        for more in variants {
            port += 1;
            let (forged, honest) = (SocketAddr::new(friend, port), SocketAddr::new(absent, port));
            let denied = scene.denied_syns()?;
            syn(intruder, forged, to, more)?;
            syn(intruder, honest, to, more)?;
            // IPv4 has a row for an IPv6 listener's half-open connection, too.
            assert!(arrives(server, seen(honest)), "{honest} {more:?}");
            assert_eq!(
                sockets(server, SYN_RECEIVED, seen(forged))?,
                0,
                "{forged} {more:?}"
            );
            assert!(scene.denied_syns()? > denied, "{forged} {more:?}");
        }
    }
    Ok(())
}

/// How an IPv6 listener's table shows an address.
fn seen(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    }
}

#[test]
fn no_number_of_headers_hides_the_port_that_is_refused() -> Result<()> {
    let scene = Scene::new("hostile-headers", "")?;
    let (intruder, server) = (&scene.stage.client, scene.server());
    let serve = ["stream-server", "--listen", "[::]:7000", "-n", "100"];
    let mut serving = server.spawn(Pod::peer(serve)?)?;
    server.wait_listening(&mut serving, 7000)?;
    let to = SocketAddr::new(server.address6().into(), 7000);
    let from = |port| SocketAddr::new(ABSENT6.parse().expect("an address"), port);
    let many = ["--extensions", "12"];
    syn(intruder, from(41001), to, &many)?;
    assert!(
        arrives(server, from(41001)),
        "this kernel takes that many headers"
    );
    scene.rule("action: DENY, rules: [{to: [{operation: {ports: ['7000']}}]}]")?;
    dial_until(intruder, &["--to", &to.to_string()], REFUSED)?;
    let denied = scene.denied_syns()?;
    syn(intruder, from(41002), to, &many)?;
    assert!(eventually(DEADLINE, || scene
        .denied_syns()
        .is_ok_and(|now| now > denied)));
    assert_eq!(sockets(server, SYN_RECEIVED, from(41002))?, 0);
    Ok(())
}

#[test]
fn who_asks_at_the_same_time_is_refused_too() -> Result<()> {
    const SYN_SENT: &str = "02";
    let scene = Scene::new("hostile-both", "")?;
    let (intruder, server) = (&scene.stage.client, scene.server());
    let other = |port| SocketAddr::new(ABSENT.parse().expect("an address"), port);
    let dialling = |own: &str, port: u16| {
        let to = other(port).to_string();
        let from = server.address().to_string();
        let words = [
            "intruder",
            "dial",
            "--to",
            &to,
            "--from",
            &from,
            "--from-port",
            own,
            "--within-ms",
            "20000",
        ];
        server.spawn(Pod::peer(words)?)
    };
    let at = |port| SocketAddr::new(server.address().into(), port);
    // Where nobody guards the pod, both ends may ask, and the connection is half there.
    let _first = dialling("7100", 6001)?;
    assert!(eventually(DEADLINE, || sockets(
        server,
        SYN_SENT,
        other(6001)
    )
    .is_ok_and(|n| n == 1)));
    syn(intruder, other(6001), at(7100), &[])?;
    assert!(arrives(server, other(6001)));
    scene.rule("action: DENY, rules: [{}]")?;
    dial_until(intruder, &["--to", &scene.target().to_string()], REFUSED)?;
    let _second = dialling("7101", 6002)?;
    assert!(eventually(DEADLINE, || sockets(
        server,
        SYN_SENT,
        other(6002)
    )
    .is_ok_and(|n| n == 1)));
    let denied = scene.denied_syns()?;
    syn(intruder, other(6002), at(7101), &[])?;
    assert!(eventually(DEADLINE, || scene
        .denied_syns()
        .is_ok_and(|now| now > denied)));
    assert_eq!(sockets(server, SYN_SENT, other(6002))?, 1);
    assert!(dial(intruder, &["--to", &at(7101).to_string()])?.contains(REFUSED));
    Ok(())
}
