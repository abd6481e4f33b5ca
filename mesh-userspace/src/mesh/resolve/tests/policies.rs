use std::{sync::Arc, time::Duration};

use crate::{
    config::model::{DestinationRule, LoadBalancer, TrafficPolicy},
    mesh::{
        model::{Destination, RouteAction, Snapshot, Way},
        testing::{Mesh, destination_rule, route, subset},
    },
};

/// Where clients of `namespace` end when no rule decides about `host`.
fn own(snapshot: &Snapshot, namespace: &str, host: &str) -> Arc<Destination> {
    let virtual_host = snapshot.virtual_host(namespace, host).expect("a host");
    let RouteAction::Forward(to) = &virtual_host.defaults[0].action else {
        panic!("not forwarded");
    };
    Arc::clone(&to[0].destination)
}

/// Where the first route of the rule for `web` leads.
fn routed(snapshot: &Snapshot) -> Arc<Destination> {
    let virtual_host = snapshot.virtual_host("shop", "web").expect("a host");
    let rule = virtual_host.rule.as_ref().expect("a rule");
    let RouteAction::Forward(to) = &rule.http[0].action else {
        panic!("not forwarded");
    };
    Arc::clone(&to[0].destination)
}

fn shop() -> Mesh {
    Mesh::default()
        .service("shop/web", "10.96.0.1", &[("http", 80)])
        .pod("shop/web-1", "10.0.0.1", "app=web,version=v1")
        .pod("away/client", "10.0.0.2", "")
        .pod("istio-system/client", "10.0.0.3", "")
}

fn balanced(host: &str, load_balancer: LoadBalancer) -> DestinationRule {
    let mut rule = destination_rule(host);
    rule.traffic_policy.load_balancer = Some(load_balancer);
    rule
}

#[test]
fn the_clients_namespace_comes_first_then_the_services_then_the_root() {
    let host = "web.shop.svc.cluster.local";
    let root = shop().destination_rule(
        "istio-system/root",
        balanced("*.cluster.local", LoadBalancer::Random),
    );
    let service = root
        .clone()
        .destination_rule("shop/service", balanced(host, LoadBalancer::RoundRobin));
    let client = service.clone().destination_rule(
        "away/client",
        balanced("*.svc.cluster.local", LoadBalancer::Passthrough),
    );
    let applies = |mesh: &Mesh, namespace| {
        let found = own(&mesh.snapshot(), namespace, host);
        let name = found.destination_rule.as_ref().map(ToString::to_string);
        (name.unwrap_or_default(), found.load_balancer)
    };
    let is = |name: &str, balancer| (name.to_owned(), balancer);
    assert_eq!(
        applies(&root, "away"),
        is("istio-system/root", LoadBalancer::Random)
    );
    assert_eq!(
        applies(&service, "away"),
        is("shop/service", LoadBalancer::RoundRobin)
    );
    assert_eq!(
        applies(&service, "istio-system"),
        is("shop/service", LoadBalancer::RoundRobin),
        "the root is not a client's namespace"
    );
    assert_eq!(
        applies(&client, "away"),
        is("away/client", LoadBalancer::Passthrough),
        "a wildcard of the client beats an exact host of the service"
    );
    assert_eq!(
        applies(&client, "shop"),
        is("shop/service", LoadBalancer::RoundRobin)
    );
}

#[test]
fn what_is_exported_to_others_only_is_not_applied_at_home() {
    let mut rule = balanced("web", LoadBalancer::Random);
    rule.export_to = vec!["away".to_owned()];
    let snapshot = shop().destination_rule("shop/web", rule).snapshot();
    let host = "web.shop.svc.cluster.local";
    assert_eq!(
        own(&snapshot, "away", host).load_balancer,
        LoadBalancer::Random
    );
    let home = own(&snapshot, "shop", host);
    assert_eq!(
        (home.load_balancer, home.destination_rule.as_ref()),
        (LoadBalancer::LeastRequest, None)
    );
}

#[test]
fn in_a_namespace_an_exact_host_beats_a_wildcard() {
    let snapshot = shop()
        .destination_rule(
            "shop/a",
            balanced("*.shop.svc.cluster.local", LoadBalancer::Random),
        )
        .destination_rule("shop/b", balanced("web", LoadBalancer::RoundRobin))
        .destination_rule("shop/c", balanced("*", LoadBalancer::Passthrough))
        .snapshot();
    let found = own(&snapshot, "shop", "web");
    assert_eq!(found.load_balancer, LoadBalancer::RoundRobin);
}

#[test]
fn rules_for_one_host_are_joined_and_the_first_policy_wins() {
    let mut first = destination_rule("web");
    first.subsets = vec![subset("v1", "version=v1")];
    let mut second = balanced("web.shop.svc.cluster.local", LoadBalancer::Random);
    second.subsets = vec![subset("v1", "version=other"), subset("v2", "version=v2")];
    let third = balanced("web", LoadBalancer::RoundRobin);
    let mesh = shop()
        .pod("shop/web-2", "10.0.0.4", "app=web,version=v2")
        .destination_rule("shop/c", third)
        .destination_rule("shop/b", second)
        .destination_rule("shop/a", first);
    let to = |name: &str| {
        let mesh = mesh.clone();
        routed(
            &mesh
                .http("shop/web", &["web"], vec![route(&[(name, 0)])])
                .snapshot(),
        )
    };
    let v1 = to("web/v1");
    assert_eq!(v1.load_balancer, LoadBalancer::Random);
    assert_eq!(v1.endpoints[0].address.to_string(), "10.0.0.1:80");
    assert_eq!(v1.destination_rule.as_ref().unwrap().to_string(), "shop/a");
    let v2 = to("web/v2");
    assert_eq!(v2.endpoints[0].address.to_string(), "10.0.0.4:80");
    assert_eq!(v2.destination_rule.as_ref().unwrap().to_string(), "shop/b");
}

#[test]
fn a_subset_overrides_the_top_level_block_by_block() {
    let mut rule = balanced("web", LoadBalancer::Random);
    rule.traffic_policy.connect_timeout = Some(Duration::from_secs(1));
    let mut v1 = subset("v1", "version=v1");
    v1.traffic_policy = TrafficPolicy {
        load_balancer: Some(LoadBalancer::RoundRobin),
        connect_timeout: None,
    };
    rule.subsets.push(v1);
    let snapshot = shop()
        .destination_rule("shop/web", rule)
        .http("shop/web", &["web"], vec![route(&[("web/v1", 0)])])
        .snapshot();
    let named = routed(&snapshot);
    assert_eq!(named.load_balancer, LoadBalancer::RoundRobin);
    assert_eq!(named.connect_timeout, Duration::from_secs(1));
    let unnamed = own(&snapshot, "shop", "web");
    assert_eq!(
        unnamed.load_balancer,
        LoadBalancer::Random,
        "a subset's policy is for routes that name it"
    );
}

#[test]
fn what_cannot_be_sent_to_says_why() {
    let mut rule = destination_rule("web");
    rule.subsets = vec![subset("v1", "version=v1"), subset("none", "version=none")];
    let mesh = shop().destination_rule("shop/web", rule);
    let to = |name: &str| {
        let mesh = mesh.clone();
        let snapshot = mesh
            .http("shop/web", &["web"], vec![route(&[(name, 0)])])
            .snapshot();
        let found = routed(&snapshot);
        (found.invalid.clone(), found.endpoints.len())
    };
    assert_eq!(to("web/v1"), (None, 1));
    assert_eq!(to("web/none"), (None, 0), "known, but nobody is in it");
    for (name, part) in [
        (
            "nobody",
            "no service has the host nobody.shop.svc.cluster.local",
        ),
        ("web:81", "has no port 81; it has 80"),
        ("web/v9", "does not define the subset v9"),
    ] {
        let (invalid, endpoints) = to(name);
        let invalid = invalid.expect(name);
        assert!(invalid.contains(part), "{invalid}");
        assert_eq!(endpoints, 0);
    }
}

#[test]
fn equal_destinations_are_one() {
    let mut rule = destination_rule("web");
    rule.subsets = vec![subset("v1", "version=v1")];
    let snapshot = shop()
        .destination_rule("shop/web", rule)
        .http(
            "shop/web",
            &["web"],
            vec![
                route(&[("web/v1", 0)]).when_prefix("/a"),
                route(&[("web/v1:80", 0)]),
            ],
        )
        .snapshot();
    let virtual_host = snapshot.virtual_host("shop", "web").expect("a host");
    let rule = virtual_host.rule.as_ref().expect("a rule");
    let destinations: Vec<_> = rule
        .http
        .iter()
        .map(|route| match &route.action {
            RouteAction::Forward(to) => Arc::as_ptr(&to[0].destination),
            _ => panic!("not forwarded"),
        })
        .collect();
    assert_eq!(destinations[0], destinations[1]);
}

#[test]
fn the_kernel_picks_as_the_services_own_namespace_is_told() {
    let direct = |mesh: &Mesh| {
        let snapshot = mesh.snapshot();
        let port = &snapshot.services["web.shop.svc.cluster.local"].ports[0];
        (port.way, port.load_balancer)
    };
    assert_eq!(direct(&shop()), (Way::Direct, LoadBalancer::Random));
    let abroad = shop().destination_rule(
        "away/client",
        balanced("*.svc.cluster.local", LoadBalancer::RoundRobin),
    );
    assert_eq!(direct(&abroad), (Way::Direct, LoadBalancer::Random));
    let own = abroad.destination_rule("shop/own", balanced("web", LoadBalancer::LeastRequest));
    assert_eq!(direct(&own), (Way::Direct, LoadBalancer::LeastRequest));
    let untouched = shop().destination_rule("shop/own", balanced("web", LoadBalancer::Passthrough));
    assert_eq!(direct(&untouched), (Way::Pass, LoadBalancer::Passthrough));
}
