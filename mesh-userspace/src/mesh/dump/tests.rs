use serde_json::json;

use super::{SnapshotView, routes};
use crate::mesh::testing::{Mesh, route, virtual_service};

#[test]
fn services_and_pods_show_what_was_resolved() {
    let snapshot = Mesh::default()
        .service("shop/web", "10.96.0.1", &[("http", 80)])
        .pod("shop/web-1", "10.0.0.1", "app=web,version=v1")
        .snapshot();
    let view = serde_json::to_value(SnapshotView::of(&snapshot)).unwrap();
    assert_eq!(
        view,
        json!({
            "version": 1,
            "domain": "cluster.local",
            "services": [{
                "host": "web.shop.svc.cluster.local",
                "namespace": "shop",
                "name": "web",
                "addresses": ["10.96.0.1"],
                "ports": [{
                    "port": 80,
                    "name": "http",
                    "protocol": "http",
                    "way": "direct",
                    "wayReason": "no VirtualService decides about its requests, so the kernel picks the endpoint",
                    "loadBalancer": "RANDOM",
                    "endpoints": [{
                        "address": "10.0.0.1:80", "workload": "shop/web-1", "ready": true, "weight": 1
                    }],
                }],
            }],
            "workloads": [{
                "namespace": "shop",
                "name": "web-1",
                "addresses": ["10.0.0.1"],
                "labels": {"app": "web", "version": "v1"},
                "serviceAccount": "default",
                "principal": "spiffe://cluster.local/ns/shop/sa/default",
                "local": false,
                "ready": true,
                "acceleration": "auto",
                "accelerationExcludePorts": [],
                "failurePolicy": "open",
                "workload": "web-1",
                "canonicalService": "web",
                "canonicalRevision": "v1",
            }],
            "routes": [],
            "policies": [],
        })
    );
}

#[test]
fn a_rule_is_shown_once_for_all_namespaces_that_get_it_alike() {
    let mut private = virtual_service(&["reviews.default.svc.cluster.local"], vec![]);
    private.export_to = vec![".".to_owned()];
    private.http = vec![route(&[("reviews.default.svc.cluster.local/v9", 0)])];
    let snapshot = Mesh::bookinfo()
        .pod("away/client", "10.1.0.1", "")
        .pod("far/client", "10.1.0.2", "")
        .pod("own/client", "10.1.0.3", "")
        .http(
            "default/reviews",
            &["reviews"],
            vec![
                route(&[("reviews/v2", 0)])
                    .named("jason")
                    .when_header("end-user", "jason"),
                route(&[("reviews/v1", 75), ("reviews/v3", 25)]).timeout(3000),
            ],
        )
        .virtual_service("own/reviews", private)
        .snapshot();
    let rows = routes(&snapshot);
    let row = |index: usize| {
        let row = &rows[index];
        let names = row.clients.join(" ");
        (row.virtual_service.as_str(), names)
    };
    assert_eq!(rows.len(), 2);
    assert_eq!(row(0), ("default/reviews", "away default far".to_owned()));
    assert_eq!(row(1), ("own/reviews", "own".to_owned()));
    let http = serde_json::to_value(&rows[0].http).unwrap();
    let rule = "default/reviews";
    let host = "reviews.default.svc.cluster.local";
    let retries = "retries 2 on connect-failure,refused-stream,unavailable,cancelled";
    let to = |subset: &str, weight: u32| {
        json!({
            "host": host, "subset": subset, "port": 9080, "weight": weight, "destinationRule": rule,
            "loadBalancer": "LEAST_REQUEST", "endpoints": 1,
        })
    };
    assert_eq!(
        http,
        json!([
            {
                "index": 0, "name": "jason", "matches": ["header end-user is jason"], "action": "route",
                "destinations": [to("v2", 100)], "policies": [retries],
            },
            {
                "index": 1, "matches": [], "action": "route",
                "destinations": [to("v1", 75), to("v3", 25)], "policies": ["timeout 3s", retries],
            },
        ])
    );
    let broken = &rows[1].http[0].destinations[0];
    let reason = broken.reason.as_deref().unwrap_or_default();
    assert!(reason.contains("v9"), "{reason}");
}
