use std::path::PathBuf;

use crate::{
    config::model::{Acceleration, FailurePolicy, PodDefaults, PodPlace},
    mesh::testing::{Mesh, workload},
};

fn netns() -> PodPlace {
    PodPlace::Netns(PathBuf::from("/run/netns/a"))
}

#[test]
fn a_pod_is_local_on_its_node_or_without_a_node_where_it_has_a_place() {
    let snapshot = Mesh::default()
        .pod_with("a/here", "10.0.0.1", "", |pod| {
            pod.node_name = Some("node".into());
            pod.place = Some(netns());
        })
        .pod_with("a/there", "10.0.0.2", "", |pod| {
            pod.node_name = Some("other".into());
            pod.place = Some(netns());
        })
        .pod_with("a/placed", "10.0.0.3", "", |pod| pod.place = Some(netns()))
        .pod("a/nowhere", "10.0.0.4", "")
        .snapshot();
    let state = |name| {
        let found = workload(&snapshot, name);
        (found.local, found.place.is_some())
    };
    assert_eq!(state("a/here"), (true, true));
    assert_eq!(
        state("a/there"),
        (false, false),
        "the place is of another node"
    );
    assert_eq!(state("a/placed"), (true, true));
    assert_eq!(state("a/nowhere"), (false, false));
}

#[test]
fn the_pods_word_beats_its_namespaces_and_that_the_default() {
    let snapshot = Mesh::default()
        .namespace(
            "shop",
            PodDefaults {
                acceleration: Some(Acceleration::Off),
                acceleration_exclude_ports: Some(vec![80]),
                failure_policy: Some(FailurePolicy::Closed),
            },
        )
        .pod("shop/plain", "10.0.0.1", "")
        .pod_with("shop/own", "10.0.0.2", "", |pod| {
            pod.acceleration = Some(Acceleration::On);
            pod.acceleration_exclude_ports = Some(vec![]);
        })
        .pod("other/plain", "10.0.0.3", "")
        .snapshot();
    let settings = |name| {
        let found = workload(&snapshot, name);
        (
            found.acceleration,
            found.acceleration_exclude_ports.clone(),
            found.failure_policy,
        )
    };
    assert_eq!(
        settings("shop/plain"),
        (Acceleration::Off, vec![80], FailurePolicy::Closed)
    );
    assert_eq!(
        settings("shop/own"),
        (Acceleration::On, vec![], FailurePolicy::Closed)
    );
    assert_eq!(
        settings("other/plain"),
        (Acceleration::Auto, vec![], FailurePolicy::Open)
    );
}

#[test]
fn an_address_is_a_pods_own_unless_it_is_the_hosts() {
    let snapshot = Mesh::default()
        .pod("a/pod", "10.0.0.1", "")
        .pod_with("a/host", "192.168.0.1", "", |pod| {
            pod.place = Some(PodPlace::Cgroup(PathBuf::from("/sys/fs/cgroup/x")));
        })
        .pod_with("a/gone", "10.0.0.2", "", |pod| pod.ready = false)
        .pod("a/new", "10.0.0.2", "")
        .snapshot();
    let at = |address: &str| {
        let found = snapshot.workload_by_address.get(&address.parse().unwrap());
        found.map(|workload| workload.name.name.to_string())
    };
    assert_eq!(at("10.0.0.1").as_deref(), Some("pod"));
    assert_eq!(at("192.168.0.1"), None);
    assert_eq!(
        at("10.0.0.2").as_deref(),
        Some("new"),
        "the ready one has it"
    );
    assert_eq!(
        &*workload(&snapshot, "a/pod").principal,
        "spiffe://cluster.local/ns/a/sa/default"
    );
}
