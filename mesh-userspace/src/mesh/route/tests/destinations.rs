use super::{ask, outcome, reviews};
use crate::mesh::{
    route::pick_destination,
    testing::{Mesh, Request},
};

#[test]
fn what_does_not_exist_is_503_with_nc_and_who_is_not_ready_503_with_uh() {
    let to = |destination: &str| {
        let snapshot = reviews(&format!("  - route: [{{destination: {destination}}}]\n"));
        outcome(&ask("/").decide(&snapshot))
    };
    assert!(to("{host: nobody}").starts_with("503 NC: no service has the host nobody.default"));
    assert!(
        to("{host: reviews, subset: v9}").starts_with("503 NC: DestinationRule default/reviews")
    );
    assert!(to("{host: reviews, port: {number: 1}}").starts_with("503 NC: service reviews"));

    let snapshot = Mesh::default()
        .service("default/reviews", "10.96.0.3", &[("http", 9080)])
        .pod("default/productpage-v1", "10.0.0.1", "")
        .pod_with("default/gone", "10.0.0.2", "app=reviews", |pod| {
            pod.ready = false;
        })
        .snapshot();
    assert_eq!(
        outcome(&ask("/").decide(&snapshot)),
        "503 UH: no endpoint of reviews.default.svc.cluster.local port 9080 is ready"
    );
}

#[test]
fn of_several_destinations_one_that_does_not_exist_fails_its_share_only() {
    let snapshot = reviews(
        "
  - route:
    - {destination: {host: reviews, subset: v1}, weight: 90}
    - {destination: {host: reviews, subset: v9}, weight: 10}
",
    );
    let request = ask("/");
    let decision = request.decide(&snapshot);
    assert_eq!(outcome(&decision), "v1+v9");
    let route = decision.route.expect("a route");
    let subset = |random| {
        let picked = pick_destination(route, random).expect("one of them");
        picked.destination.subset.clone().unwrap_or_default()
    };
    assert_eq!((&*subset(0), &*subset(u32::MAX)), ("v1", "v9"));
}

#[test]
fn a_destination_of_several_ports_takes_the_one_that_was_dialled() {
    let snapshot = Mesh::default()
        .service("a/web", "10.96.0.1", &[("http", 80), ("http-alt", 8080)])
        .service("a/new", "10.96.0.2", &[("http", 80), ("http-alt", 8080)])
        .pod("a/new-1", "10.0.0.1", "app=new")
        .yaml(
            "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: a}
spec:
  hosts: [web]
  http: [{route: [{destination: {host: new}}]}]
",
        )
        .snapshot();
    for port in [80, 8080] {
        let request = Request::new("a/new-1", &format!("10.96.0.1:{port}"), "web", "/");
        let decision = request.decide(&snapshot);
        let route = decision.route.expect("a route");
        let picked = pick_destination(route, 0).expect("a destination");
        assert_eq!(picked.destination.port, port);
        assert_eq!(
            picked.destination.endpoints[0].address.to_string(),
            format!("10.0.0.1:{port}")
        );
        assert_eq!(route.index, Some(0));
    }
}
