use std::sync::Arc;

use proptest::prelude::*;

use crate::{
    config::model::{
        EndpointSlice, Service, ServicePort, SliceEndpoint, SlicePort, Spec, TargetPort, Transport,
    },
    mesh::{
        model::{RouteAction, Snapshot},
        testing::{Mesh, destination_rule, labels, route, service_port, subset},
    },
};

/// `address` of each endpoint of a port, `!` in front of those that are not ready.
fn endpoints(snapshot: &Snapshot, host: &str, port: usize) -> Vec<String> {
    let port = &snapshot.services[host].ports[port];
    port.endpoints
        .iter()
        .map(|endpoint| {
            let mark = if endpoint.ready { "" } else { "!" };
            format!("{mark}{}", endpoint.address)
        })
        .collect()
}

fn service(selector: &str, ports: Vec<ServicePort>) -> Spec {
    Spec::Service(Service {
        cluster_ips: vec!["10.96.0.1".parse().unwrap()],
        headless: false,
        session_affinity: None,
        selector: labels(selector),
        ports,
    })
}

fn slice(service: &str, port: (&str, u16), endpoints: &[(&str, bool)]) -> EndpointSlice {
    EndpointSlice {
        service: service.to_owned(),
        ports: vec![SlicePort {
            name: port.0.to_owned(),
            port: port.1,
            transport: Transport::Tcp,
        }],
        endpoints: endpoints
            .iter()
            .map(|(address, ready)| SliceEndpoint {
                addresses: vec![address.parse().unwrap()],
                ready: *ready,
                pod: None,
            })
            .collect(),
    }
}

#[test]
fn a_dual_stack_service_has_its_endpoints_in_both_families() {
    let with_ips = |ips: &[&str]| {
        Spec::Service(Service {
            cluster_ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
            headless: false,
            session_affinity: None,
            selector: labels(""),
            ports: vec![service_port("http", 80)],
        })
    };
    let mut mesh = Mesh::default()
        .object("a/dual", with_ips(&["fd00::1", "10.96.0.1"]))
        .object("a/six", with_ips(&["fd00::2"]))
        .object("a/four", with_ips(&["10.96.0.2"]));
    for service in ["dual", "six", "four"] {
        for (family, address) in [("v4", "10.0.0.1"), ("v6", "fd00::a")] {
            let slice = slice(service, ("http", 8080), &[(address, true)]);
            mesh = mesh.object(&format!("a/{service}-{family}"), Spec::EndpointSlice(slice));
        }
    }
    let snapshot = mesh.snapshot();
    let of = |host: &str| {
        let port = &snapshot.services[&*format!("{host}.a.svc.cluster.local")].ports[0];
        [&port.endpoints, &port.ipv6_endpoints].map(|endpoints| {
            let addresses = endpoints
                .iter()
                .map(|endpoint| endpoint.address.to_string());
            addresses.collect::<Vec<_>>().join(" ")
        })
    };
    assert_eq!(of("dual"), ["10.0.0.1:8080", "[fd00::a]:8080"]);
    assert_eq!(of("six"), ["[fd00::a]:8080", ""]);
    assert_eq!(of("four"), ["10.0.0.1:8080", ""]);
    assert_eq!(snapshot.frontends.len(), 4);
}

#[test]
fn pods_that_the_selector_matches_are_endpoints_in_order_of_address() {
    let snapshot = Mesh::default()
        .object(
            "a/web",
            service("app=web,tier=x", vec![service_port("http", 80)]),
        )
        .pod("a/2", "10.0.0.2", "app=web,tier=x,more=y")
        .pod_with("a/1", "10.0.0.1", "app=web,tier=x", |pod| pod.ready = false)
        .pod("a/3", "10.0.0.3", "app=web")
        .pod("b/4", "10.0.0.4", "app=web,tier=x")
        .pod("a/5", "", "app=web,tier=x")
        .snapshot();
    assert_eq!(
        endpoints(&snapshot, "web.a.svc.cluster.local", 0),
        ["!10.0.0.1:80", "10.0.0.2:80"]
    );
}

#[test]
fn a_target_port_is_a_number_or_a_name_that_each_pod_knows_itself() {
    let named = |name: &str| ServicePort {
        target: TargetPort::Name(name.to_owned()),
        ..service_port("http", 80)
    };
    let numbered = ServicePort {
        target: TargetPort::Number(8080),
        ..service_port("other", 81)
    };
    let snapshot = Mesh::default()
        .object("a/web", service("app=web", vec![named("web"), numbered]))
        .pod_with("a/1", "10.0.0.1", "app=web", |pod| {
            pod.named_ports.insert("web".into(), 9000);
        })
        .pod_with("a/2", "10.0.0.2", "app=web", |pod| {
            pod.named_ports.insert("web".into(), 9001);
        })
        .pod("a/3", "10.0.0.3", "app=web")
        .snapshot();
    let host = "web.a.svc.cluster.local";
    assert_eq!(
        endpoints(&snapshot, host, 0),
        ["10.0.0.1:9000", "10.0.0.2:9001"]
    );
    assert_eq!(
        endpoints(&snapshot, host, 1),
        ["10.0.0.1:8080", "10.0.0.2:8080", "10.0.0.3:8080"]
    );
}

#[test]
fn slices_replace_the_selector_and_an_address_counts_once() {
    let snapshot = Mesh::default()
        .object(
            "a/web",
            service(
                "app=web",
                vec![service_port("http", 80), service_port("admin", 81)],
            ),
        )
        .pod("a/pod", "10.0.0.1", "app=web")
        .slice(
            "a/web-1",
            slice(
                "web",
                ("http", 8080),
                &[("10.0.0.9", false), ("10.0.0.1", true)],
            ),
        )
        .slice(
            "a/web-2",
            slice(
                "web",
                ("http", 8080),
                &[("10.0.0.9", true), ("10.0.0.8", false)],
            ),
        )
        .slice(
            "b/web-3",
            slice("web", ("http", 8080), &[("10.0.0.7", true)]),
        )
        .snapshot();
    let host = "web.a.svc.cluster.local";
    assert_eq!(
        endpoints(&snapshot, host, 0),
        ["10.0.0.1:8080", "!10.0.0.8:8080", "10.0.0.9:8080"]
    );
    assert!(
        endpoints(&snapshot, host, 1).is_empty(),
        "no slice has the port"
    );
    let ports = &snapshot.services[host].ports;
    let behind = ports[0].endpoints[0].workload.as_ref();
    assert_eq!(&*behind.expect("known by its address").name.name, "pod");
}

#[test]
fn headless_services_and_udp_have_no_frontend() {
    let dns = ServicePort {
        transport: Transport::Udp,
        ..service_port("dns", 53)
    };
    let snapshot = Mesh::default()
        .object(
            "a/web",
            service("app=web", vec![dns, service_port("http", 80)]),
        )
        .service("a/headless", "", &[("http", 80)])
        .pod("a/1", "10.0.0.1", "app=headless")
        .snapshot();
    let frontends: Vec<String> = snapshot.frontends.keys().map(ToString::to_string).collect();
    assert_eq!(frontends, ["10.96.0.1:80"]);
    let frontend = &snapshot.frontends[&"10.96.0.1:80".parse().unwrap()];
    assert_eq!(
        (&*frontend.service_port().name, frontend.port),
        ("http", 0),
        "UDP is not among the ports"
    );
    let host = "headless.a.svc.cluster.local";
    assert_eq!(endpoints(&snapshot, host, 0), ["10.0.0.1:80"]);
}

proptest! {
    /// Whatever the pods, a subset has exactly the ready ones with its labels.
    #[test]
    fn a_subset_is_the_ready_endpoints_with_its_labels(
        pods in prop::collection::vec((0_u8..4, any::<bool>()), 0..20),
        wanted in 0_u8..5,
    ) {
        let mut mesh = Mesh::default()
            .service("a/web", "10.96.0.1", &[("http", 80)])
            .pod("a/client", "10.1.0.1", "");
        for (index, (version, ready)) in pods.iter().enumerate() {
            mesh = mesh.pod_with(
                &format!("a/{index}"),
                &format!("10.0.0.{index}"),
                &format!("app=web,version=v{version}"),
                |pod| pod.ready = *ready,
            );
        }
        let mut rule = destination_rule("web");
        rule.subsets.push(subset("wanted", &format!("version=v{wanted}")));
        let snapshot = mesh
            .destination_rule("a/web", rule)
            .http("a/web", &["web"], vec![route(&[("web/wanted", 1)])])
            .snapshot();

        let virtual_host = snapshot.virtual_host("a", "web").expect("a host");
        let rule = virtual_host.rule.as_ref().expect("a rule");
        let RouteAction::Forward(to) = &rule.http[0].action else {
            panic!("not forwarded");
        };
        let mut expected: Vec<Arc<str>> = pods
            .iter()
            .enumerate()
            .filter(|(_, (version, ready))| *version == wanted && *ready)
            .map(|(index, _)| index.to_string().into())
            .collect();
        expected.sort();
        let mut found: Vec<Arc<str>> = to[0]
            .destination
            .endpoints
            .iter()
            .map(|endpoint| Arc::clone(&endpoint.workload.as_ref().expect("a pod").name.name))
            .collect();
        found.sort();
        prop_assert_eq!(found, expected);
        prop_assert_eq!(to[0].destination.invalid.as_deref(), None);
    }
}
