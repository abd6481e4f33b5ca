//! Addresses that are not the pod's: another pod's, nobody's, a namespace of its own.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use lab::{Pod, PodSpec, eventually};

use crate::support::{REFUSED, Scene, accepted, contained, dial, dial_until, script};

const FRIENDS: &str =
    "rules: [{from: [{source: {principals: ['cluster.local/ns/default/sa/friend']}}]}]";
const NOT_THE_CLIENT: &str = "action: DENY, rules: [{from: [{source: {principals: ['cluster.local/ns/default/sa/default']}}]}]";
/// In the pods' network, and nobody's.
const NOBODYS: &str = "10.244.9.9";

#[test]
fn another_pods_address_is_no_identity_however_it_is_bound() -> Result<()> {
    let scene = Scene::new("hostile-bind", FRIENDS)?;
    let (intruder, friend) = (&scene.stage.client, &scene.friend);
    let to = scene.target().to_string();
    dial_until(intruder, &["--to", &to], REFUSED)?;
    dial_until(friend, &["--to", &to], "connected")?;
    let before = accepted(scene.server())?;
    let claimed = friend.address().to_string();
    // Bound without being there, then there.
    for option in ["--transparent", "--freebind"] {
        let words = ["--to", &to, "--from", &claimed, option];
        assert!(dial(intruder, &words)?.contains(REFUSED), "{option}");
    }
    script(intruder, &format!("ip addr add {claimed}/32 dev eth0"))?;
    for more in [
        &[][..],
        &["--mapped"],
        &["--fast-open", "GET / HTTP/1.1\r\n\r\n"],
    ] {
        let words = [&["--to", &to, "--from", &claimed], more].concat();
        let outcome = dial(intruder, &words)?;
        assert!(outcome.contains(REFUSED), "{more:?}: {outcome}");
    }
    // By the service's address as well: the endpoint that it leads to is judged.
    let service = SocketAddr::new(scene.stage.service.address.into(), 80).to_string();
    let outcome = dial(intruder, &["--to", &service, "--from", &claimed])?;
    assert!(outcome.contains(REFUSED), "{outcome}");
    // As its only address: what it is follows its namespace.
    let own = intruder.address();
    script(
        intruder,
        &format!(
            "ip addr del {own}/16 dev eth0; ip route add 10.244.0.0/16 dev eth0 src {claimed}"
        ),
    )?;
    let outcome = dial(intruder, &["--to", &to])?;
    assert!(outcome.contains(REFUSED), "{outcome}");
    assert_eq!(accepted(scene.server())?, before);
    dial_until(friend, &["--to", &to], "connected")
}

#[test]
fn an_address_of_nobodys_is_no_way_around_a_denial() -> Result<()> {
    let scene = Scene::new("hostile-nobody", NOT_THE_CLIENT)?;
    let (intruder, friend) = (&scene.stage.client, &scene.friend);
    let to = scene.target().to_string();
    dial_until(intruder, &["--to", &to], REFUSED)?;
    script(intruder, &format!("ip addr add {NOBODYS}/16 dev eth0"))?;
    let before = accepted(scene.server())?;
    for more in [&[][..], &["--mapped"], &["--fast-open", "x"]] {
        let words = [&["--to", &to, "--from", NOBODYS], more].concat();
        let outcome = dial(intruder, &words)?;
        assert!(outcome.contains(REFUSED), "{more:?}: {outcome}");
    }
    assert_eq!(accepted(scene.server())?, before);
    // It is not the address that is refused.
    script(intruder, &format!("ip addr del {NOBODYS}/16 dev eth0"))?;
    script(friend, &format!("ip addr add {NOBODYS}/16 dev eth0"))?;
    dial_until(friend, &["--to", &to, "--from", NOBODYS], "connected")
}

#[test]
fn a_link_local_address_is_no_way_around_a_denial() -> Result<()> {
    let scene = Scene::new("hostile-link", "")?;
    let intruder = &scene.stage.client;
    let serve = ["stream-server", "--listen", "[::]:7000", "-n", "100"];
    let mut serving = scene.server().spawn(Pod::peer(serve)?)?;
    scene.server().wait_listening(&mut serving, 7000)?;
    let (address, _) = link_local(scene.server())?;
    let (_, interface) = link_local(intruder)?;
    let to = format!("[{address}%{interface}]:7000");
    dial_until(intruder, &["--to", &to], "connected")?;
    scene.rule(NOT_THE_CLIENT)?;
    dial_until(intruder, &["--to", &scene.target().to_string()], REFUSED)?;
    let before = accepted(scene.server())?;
    let outcome = dial(intruder, &["--to", &to])?;
    assert_ne!(outcome, "connected");
    assert_eq!(accepted(scene.server())?, before);
    Ok(())
}

/// The link-local address of a pod, and the number of its interface.
fn link_local(pod: &Pod) -> Result<(std::net::Ipv6Addr, u32)> {
    let table = pod.enter(|| std::fs::read_to_string("/proc/thread-self/net/if_inet6"))??;
    let line = table.lines().find(|line| line.starts_with("fe80"));
    let mut fields = line.context("no link-local address")?.split_whitespace();
    let address = u128::from_str_radix(fields.next().unwrap_or_default(), 16)?;
    let interface = u32::from_str_radix(fields.next().unwrap_or_default(), 16)?;
    Ok((address.into(), interface))
}

#[test]
fn a_namespace_inside_of_a_pod_cannot_take_anothers_place() -> Result<()> {
    let scene = Scene::new("hostile-nested", FRIENDS)?;
    let (intruder, friend) = (&scene.stage.client, &scene.friend);
    let to = scene.target().to_string();
    dial_until(friend, &["--to", &to], "connected")?;
    // The friend is away; its place on the wire is taken, by a namespace that nobody enrolled.
    let (claimed, own) = (friend.address(), intruder.address());
    script(friend, "ip link set eth0 down")?;
    script(scene.server(), "ip neigh flush all")?;
    let peer = lab::binaries::find("lab-peer")?;
    let dial = |outcome: &str| -> Result<()> {
        let text = format!(
            "unshare --user --map-root-user --net sleep 60 & inner=$!\n\
             trap 'kill $inner' EXIT\n\
             until [ \"$(readlink /proc/$inner/ns/net)\" != \"$(readlink /proc/self/ns/net)\" ]; do :; done\n\
             ip link add brh type bridge forward_delay 0 2>/dev/null || true\n\
             ip link set brh up; ip link set eth0 master brh\n\
             ip link add out type veth peer name in netns $inner\n\
             ip link set out master brh up\n\
             nsenter --user --net --preserve-credentials -t $inner sh -ec '\n\
               ip addr add {claimed}/16 dev in; ip link set in up; ip link set lo up\n\
               exec {} intruder dial --to {to} --within-ms 2500'\n",
            peer.display()
        );
        let output = intruder.run(contained("sh", &["-ec", &text]), lab::stage::DEADLINE)?;
        assert!(
            output.stdout.contains(outcome),
            "{own} as {claimed}: {} {}",
            output.stdout,
            output.stderr
        );
        Ok(())
    };
    let before = accepted(scene.server())?;
    dial("timed out")?;
    assert_eq!(accepted(scene.server())?, before);
    assert!(scene.denied_syns()? >= 1.0);
    // The place was really taken: where nobody guards the server, it gets in.
    scene.unrule()?;
    assert!(eventually(lab::stage::DEADLINE, || dial("connected").is_ok()));
    Ok(())
}

#[test]
fn who_moves_below_its_cgroup_or_reuses_a_socket_is_judged_all_the_same() -> Result<()> {
    let scene = Scene::new("hostile-moves", FRIENDS)?;
    let intruder = &scene.stage.client;
    let to = scene.target().to_string();
    dial_until(intruder, &["--to", &to], REFUSED)?;
    let before = accepted(scene.server())?;
    let peer = lab::binaries::find("lab-peer")?;
    let below = intruder.cgroup().join("below");
    let text = format!(
        "mkdir -p {0}; echo $$ > {0}/cgroup.procs; exec {1} intruder dial --to {to}",
        below.display(),
        peer.display()
    );
    let said = script(intruder, &text)?;
    assert!(said.contains(REFUSED), "{said}");
    // A socket that was connected to somebody else before.
    let open = scene.stage.lab.pod(PodSpec::new("open"))?;
    open.serve(
        Pod::peer(["echo", "--port", "8080", "--name", "open"])?,
        8080,
    )?;
    let first = SocketAddr::new(open.address().into(), 8080).to_string();
    dial_until(intruder, &["--to", &first], "connected")?;
    let outcome = dial(intruder, &["--to", &to, "--after", &first])?;
    assert!(outcome.contains(REFUSED), "{outcome}");
    assert_eq!(accepted(scene.server())?, before);
    Ok(())
}
