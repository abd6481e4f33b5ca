use super::{ask, outcome, reviews};
use crate::mesh::{
    model::Snapshot,
    testing::{Mesh, Request},
};

const TO_V2: &str = "  - route: [{destination: {host: reviews, subset: v2}}]\n";

fn with_host(snapshot: &Snapshot, dialled: &str, authority: &str) -> String {
    let request = Request::new("default/productpage-v1", dialled, authority, "/");
    outcome(&request.decide(snapshot))
}

#[test]
fn every_spelling_of_the_host_gets_the_rule() {
    let snapshot = reviews(TO_V2);
    for authority in [
        "reviews",
        "reviews:9080",
        "reviews:1",
        "REVIEWS",
        "reviews.default",
        "reviews.default.svc",
        "reviews.default.svc.cluster.local",
        "reviews.default.svc.cluster.local.",
        "Reviews.Default.svc.cluster.local.:80",
        "10.96.0.3",
        "10.96.0.3:9080",
    ] {
        assert_eq!(
            with_host(&snapshot, "10.96.0.3:9080", authority),
            "v2",
            "{authority}"
        );
    }
}

#[test]
fn the_authority_picks_the_service_and_the_dialled_port_its_port() {
    let snapshot = reviews(TO_V2);
    assert_eq!(with_host(&snapshot, "10.96.0.4:9080", "reviews"), "v2");
    assert_eq!(
        with_host(&snapshot, "10.96.0.3:9080", "ratings"),
        "ratings.default.svc.cluster.local"
    );
}

#[test]
fn a_host_that_the_mesh_does_not_know_goes_where_it_was_dialled() {
    let snapshot = reviews(TO_V2);
    for authority in ["example.com", "reviews.other", "10.0.0.11:9080", ""] {
        assert_eq!(
            with_host(&snapshot, "10.96.0.3:9080", authority),
            "pass 10.96.0.3:9080",
            "{authority}"
        );
    }
    let request = Request::new("default/productpage-v1", "10.96.0.3:9080", "x.y", "/");
    let decision = request.decide(&snapshot);
    assert!(decision.rule.is_none());
    let own = decision.route.expect("the dialled service's own");
    assert_eq!(own.index, None);
    assert_eq!(
        with_host(&snapshot, "10.96.0.3:80", "reviews"),
        "pass 10.96.0.3:80",
        "reviews has no port 80"
    );
}

#[test]
fn bare_names_are_of_the_clients_namespace() {
    let snapshot = Mesh::bookinfo()
        .pod("away/client", "10.1.0.1", "")
        .snapshot();
    let ask = |authority| {
        let request = Request::new("away/client", "10.96.0.3:9080", authority, "/");
        outcome(&request.decide(&snapshot))
    };
    assert_eq!(ask("reviews"), "pass 10.96.0.3:9080");
    assert_eq!(ask("reviews.default"), "reviews.default.svc.cluster.local");
}

#[test]
fn a_host_without_a_service_works_on_port_80_only() {
    let snapshot = Mesh::bookinfo()
        .service("default/web", "10.96.1.1", &[("http", 80), ("http-x", 81)])
        .yaml(
            "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: outside}
spec:
  hosts: [api.example.com, '*.example.org']
  http: [{route: [{destination: {host: reviews, subset: v3}}]}]
",
        )
        .snapshot();
    for authority in [
        "api.example.com",
        "API.example.com.:8080",
        "a.b.example.org",
    ] {
        assert_eq!(with_host(&snapshot, "10.96.1.1:80", authority), "v3");
        assert_eq!(
            with_host(&snapshot, "10.96.1.1:81", authority),
            "pass 10.96.1.1:81"
        );
    }
    assert_eq!(
        with_host(&snapshot, "10.96.1.1:80", "example.org"),
        "pass 10.96.1.1:80"
    );
}

#[test]
fn without_a_rule_a_service_gets_its_own_requests() {
    let snapshot = Mesh::bookinfo().snapshot();
    let request = ask("/anything");
    let decision = request.decide(&snapshot);
    assert_eq!(outcome(&decision), "reviews.default.svc.cluster.local");
    let route = decision.route.expect("its own");
    assert_eq!((route.index, route.retries.attempts), (None, 2));
    assert_eq!(decision.service_port.map(|port| port.number), Some(9080));
}
