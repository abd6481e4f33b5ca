//! Both ends of a handover, in one process.

use std::{fs, path::PathBuf, thread};

use super::{give::Successor, take::Predecessor, *};

fn folder(name: &str) -> PathBuf {
    let folder =
        std::env::temp_dir().join(format!("zerohop-handover-{name}-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    folder
}

fn pod(names: usize) -> PodListeners {
    let listener = || TcpListener::bind("127.0.0.1:0").expect("bind");
    let datagrams = || UdpSocket::bind("127.0.0.1:0").expect("bind");
    PodListeners {
        streams: vec![listener(), listener()],
        streams6: vec![listener()],
        names: (0..names).map(|_| (datagrams(), listener())).collect(),
        names6: vec![(
            UdpSocket::bind("[::1]:0").expect("bind"),
            TcpListener::bind("[::1]:0").expect("bind"),
        )],
    }
}

fn ports(pod: &PodListeners) -> Vec<u16> {
    let port = |listener: &TcpListener| listener.local_addr().expect("address").port();
    let mut ports: Vec<u16> = pod.streams.iter().map(port).collect();
    ports.extend(pod.streams6.iter().map(port));
    for (datagrams, streams) in pod.names.iter().chain(&pod.names6) {
        ports.push(datagrams.local_addr().expect("address").port());
        ports.push(port(streams));
    }
    ports
}

fn claim() -> OwnedFd {
    let path = std::env::temp_dir().join(format!(
        "zerohop-claim-{}-{}",
        std::process::id(),
        proof::new_word().expect("random")
    ));
    let listener = std::os::unix::net::UnixListener::bind(&path).expect("bind");
    fs::remove_file(path).expect("its name");
    listener.into()
}

#[test]
fn every_listener_arrives_as_what_it_was_in_more_than_one_parcel() {
    let bpffs = folder("all");
    let (old, new) = UnixStream::pair().expect("a pair");
    let pods = [pod(3), pod(descriptors::MOST)];
    let sent: Vec<Vec<u16>> = pods.iter().map(ports).collect();
    let all = {
        let mut all = vec![(Label::Claim, claim())];
        for (cookie, pod) in (7..).zip(&pods) {
            all.extend(pod.labelled(cookie).expect("descriptors"));
        }
        all
    };
    let place = bpffs.clone();
    let giving = thread::spawn(move || {
        let successor = Successor::meet(old, &place).expect("the new agent");
        assert_eq!(successor.layout(), "v2");
        successor.give(all)
    });
    let predecessor = Predecessor::ask(new, &bpffs, "v2").expect("the node");
    let received: Vec<Vec<u16>> = [7, 8]
        .iter()
        .map(|cookie| ports(&predecessor.pods[cookie]))
        .collect();
    assert_eq!(received, sent);
    assert!(!giving.is_finished(), "it serves until the new one does");
    predecessor.release().expect("release");
    giving.join().expect("no panic").expect("given");
    let left: Vec<_> = fs::read_dir(bpffs.join("zerohop"))
        .expect("folder")
        .collect();
    assert!(left.is_empty(), "{left:?}");
    fs::remove_dir_all(bpffs).expect("cleaning up");
}

#[test]
fn a_new_agent_that_ends_before_it_is_ready_changes_nothing() {
    let bpffs = folder("ends");
    let (old, new) = UnixStream::pair().expect("a pair");
    let place = bpffs.clone();
    let giving = thread::spawn(move || {
        let successor = Successor::meet(old, &place).expect("the new agent");
        successor.give(vec![(Label::Claim, claim())])
    });
    drop(Predecessor::ask(new, &bpffs, "v2").expect("the node"));
    let outcome = giving.join().expect("no panic");
    assert!(
        matches!(outcome, Err(HandoverError::NotReady(_))),
        "{outcome:?}"
    );
    fs::remove_dir_all(bpffs).expect("cleaning up");
}

#[test]
fn who_cannot_pin_here_gets_nothing() {
    let (ours, theirs) = (folder("ours"), folder("theirs"));
    let (old, new) = UnixStream::pair().expect("a pair");
    let place = ours.clone();
    let giving = thread::spawn(move || Successor::meet(old, &place).map(drop));
    // It sees another bpffs than the agent: neither finds the other's proof.
    let asked = Predecessor::ask(new, &theirs, "v2").map(drop);
    assert!(
        matches!(asked, Err(HandoverError::Stranger(_))),
        "{asked:?}"
    );
    let met = giving.join().expect("no panic");
    assert!(met.is_err(), "{met:?}");

    // One that goes on without having looked is refused as well.
    let (old, new) = UnixStream::pair().expect("a pair");
    let place = ours.clone();
    let giving = thread::spawn(move || Successor::meet(old, &place).map(drop));
    prepare(&new).expect("socket");
    let hello = Hello {
        protocol: PROTOCOL,
        layout: "v2".into(),
        word: proof::new_word().expect("random"),
    };
    send(&new, &hello, &[]).expect("hello");
    let (_, _): (Challenge, _) = receive(&new).expect("challenge");
    send(&new, &Ready { ready: true }, &[]).expect("proof");
    let met = giving.join().expect("no panic");
    assert!(matches!(met, Err(HandoverError::Stranger(_))), "{met:?}");
    fs::remove_dir_all(ours).expect("cleaning up");
    fs::remove_dir_all(theirs).expect("cleaning up");
}
