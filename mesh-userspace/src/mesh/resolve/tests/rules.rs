use crate::mesh::{
    model::{RouteAction, Snapshot},
    testing::{Mesh, route, virtual_service},
};

/// The rule that has `host` for clients of `namespace`.
fn rule_of(snapshot: &Snapshot, namespace: &str, host: &str) -> Option<String> {
    let virtual_host = snapshot.virtual_host(namespace, host)?;
    Some(virtual_host.rule.as_ref()?.name.to_string())
}

fn two_namespaces() -> Mesh {
    Mesh::default()
        .service("shop/web", "10.96.0.1", &[("http", 80)])
        .service("shop/db", "10.96.0.2", &[("tcp", 5432)])
        .pod("shop/client", "10.0.0.1", "")
        .pod("away/client", "10.0.0.2", "")
}

#[test]
fn every_spelling_of_a_service_leads_to_it_and_the_bare_one_only_at_home() {
    let snapshot = two_namespaces().snapshot();
    for host in [
        "web",
        "web.shop",
        "web.shop.svc",
        "web.shop.svc.cluster.local",
        "10.96.0.1",
    ] {
        let found = snapshot.virtual_host("shop", host).expect(host);
        let service = found.service.as_ref().expect("a service");
        assert_eq!(&*service.host, "web.shop.svc.cluster.local", "{host}");
    }
    assert!(snapshot.virtual_host("away", "web").is_none());
    assert!(snapshot.virtual_host("away", "web.shop").is_some());
    assert!(snapshot.virtual_host("shop", "web.away").is_none());
}

#[test]
fn the_nearest_rule_has_the_host() {
    let with = |export: &[&str]| {
        let mut rule = virtual_service(&["web.shop.svc.cluster.local"], vec![route(&[("x", 0)])]);
        rule.export_to = export.iter().map(ToString::to_string).collect();
        rule
    };
    let snapshot = two_namespaces()
        .virtual_service("shop/a-public", with(&[]))
        .virtual_service("shop/b-exported", with(&["away"]))
        .virtual_service("away/c-private", with(&["."]))
        .pod("third/client", "10.0.0.3", "")
        .snapshot();
    let host = "web.shop";
    assert_eq!(
        rule_of(&snapshot, "away", host).as_deref(),
        Some("away/c-private")
    );
    assert_eq!(
        rule_of(&snapshot, "shop", host).as_deref(),
        Some("shop/a-public"),
        "exported to others only is not seen at home"
    );
    assert_eq!(
        rule_of(&snapshot, "third", host).as_deref(),
        Some("shop/a-public")
    );
}

#[test]
fn among_equals_the_oldest_has_the_host_then_the_first_by_name_then_by_namespace() {
    let rule = || virtual_service(&["web.shop.svc.cluster.local"], vec![route(&[("x", 0)])]);
    let unnumbered = two_namespaces()
        .virtual_service("shop/b", rule())
        .virtual_service("shop/a", rule())
        .virtual_service("away/a", rule());
    assert_eq!(
        rule_of(&unnumbered.snapshot(), "shop", "web").as_deref(),
        Some("away/a")
    );
    let dated = two_namespaces()
        .virtual_service("shop/b", rule())
        .created("2024-01-01T00:00:00Z")
        .virtual_service("shop/a", rule())
        .created("2024-01-02T00:00:00Z");
    assert_eq!(
        rule_of(&dated.snapshot(), "shop", "web").as_deref(),
        Some("shop/b")
    );
}

#[test]
fn an_exact_host_beats_a_wildcard_and_a_longer_wildcard_a_shorter_one() {
    let rule = |host: &str| virtual_service(&[host], vec![route(&[("x", 0)])]);
    let snapshot = two_namespaces()
        .service("away/web", "10.96.0.3", &[("http", 80)])
        .virtual_service("shop/a-all", rule("*"))
        .virtual_service("shop/b-mesh", rule("*.svc.cluster.local"))
        .virtual_service("shop/c-shop", rule("*.shop.svc.cluster.local"))
        .virtual_service("shop/d-web", rule("web"))
        .snapshot();
    let of = |host| rule_of(&snapshot, "shop", host);
    assert_eq!(of("web").as_deref(), Some("shop/d-web"));
    assert_eq!(of("db").as_deref(), Some("shop/c-shop"));
    assert_eq!(of("web.away").as_deref(), Some("shop/b-mesh"));
    assert_eq!(of("elsewhere.example.com").as_deref(), Some("shop/a-all"));
}

#[test]
fn gateways_without_mesh_switch_a_rule_off_inside_the_mesh() {
    let with = |gateways: &[&str]| {
        let mut rule = virtual_service(&["web"], vec![route(&[("x", 0)])]);
        rule.gateways = gateways.iter().map(ToString::to_string).collect();
        rule
    };
    let off = two_namespaces().virtual_service("shop/web", with(&["front"]));
    assert_eq!(rule_of(&off.snapshot(), "shop", "web"), None);
    let on = two_namespaces().virtual_service("shop/web", with(&["front", "mesh"]));
    assert_eq!(
        rule_of(&on.snapshot(), "shop", "web").as_deref(),
        Some("shop/web")
    );
}

#[test]
fn a_dotted_host_is_not_short() {
    let rule = virtual_service(&["web.shop"], vec![route(&[("x", 0)])]);
    let snapshot = two_namespaces()
        .virtual_service("shop/web", rule)
        .snapshot();
    assert_eq!(
        rule_of(&snapshot, "shop", "web"),
        None,
        "web.shop stands for itself, not for the service"
    );
}

#[test]
fn weights_stay_as_written_zero_is_dropped_and_a_single_one_gets_all() {
    let weights = |destinations: &[(&str, u32)]| -> Vec<(String, u32)> {
        let snapshot = two_namespaces()
            .http("shop/web", &["web"], vec![route(destinations)])
            .snapshot();
        let host = snapshot.virtual_host("shop", "web").expect("a host");
        let rule = host.rule.as_ref().expect("a rule");
        let RouteAction::Forward(to) = &rule.http[0].action else {
            panic!("not forwarded");
        };
        to.iter()
            .map(|one| (one.destination.host.to_string(), one.weight))
            .collect()
    };
    let web = "web.shop.svc.cluster.local".to_owned();
    let db = "db.shop.svc.cluster.local".to_owned();
    assert_eq!(
        weights(&[("web", 1), ("db", 3)]),
        [(web.clone(), 1), (db.clone(), 3)]
    );
    assert_eq!(weights(&[("web", 0), ("db", 3)]), [(db, 3)]);
    assert_eq!(weights(&[("web", 0)]), [(web, 100)]);
}

#[test]
fn a_destination_without_a_port_takes_the_only_one_or_the_one_dialled() {
    let snapshot = Mesh::default()
        .service("a/front", "10.96.0.1", &[("http", 80), ("http-alt", 8080)])
        .service("a/one", "10.96.0.2", &[("http", 9000)])
        .service("a/many", "10.96.0.3", &[("http", 80), ("http-x", 81)])
        .pod("a/client", "10.0.0.1", "app=one")
        .http(
            "a/front",
            &["front"],
            vec![
                route(&[("one", 0)]).when_prefix("/one"),
                route(&[("many", 0)]).when_prefix("/many"),
                route(&[("many:81", 0)]),
            ],
        )
        .snapshot();
    let host = snapshot.virtual_host("a", "front").expect("a host");
    let rule = host.rule.as_ref().expect("a rule");
    let routes: Vec<_> = rule
        .http
        .iter()
        .map(|route| {
            let RouteAction::Forward(to) = &route.action else {
                panic!("not forwarded");
            };
            let to = &to[0].destination;
            (
                route.index,
                route.dialled_port,
                to.port,
                to.invalid.is_some(),
            )
        })
        .collect();
    assert_eq!(
        routes,
        [
            (Some(0), None, 9000, false),
            (Some(1), Some(80), 80, false),
            (Some(1), Some(8080), 8080, true),
            (Some(2), None, 81, false),
        ]
    );
}
