use crate::{
    config::model::L4Match,
    mesh::{
        model::Way,
        testing::{Mesh, destination_rule, route, subset, tcp_route, virtual_service},
    },
};

/// How connections to each port of `shop/web` go.
fn ways(mesh: &Mesh) -> Vec<(u16, Way)> {
    let snapshot = mesh.snapshot();
    let service = &snapshot.services["web.shop.svc.cluster.local"];
    let ports = service.ports.iter();
    ports
        .inspect(|port| assert!(!port.way_reason.is_empty()))
        .map(|port| (port.number, port.way))
        .collect()
}

fn shop() -> Mesh {
    Mesh::default()
        .service(
            "shop/web",
            "10.96.0.1",
            &[("http", 8080), ("sniffed", 8081), ("tcp", 5432)],
        )
        .pod("shop/client", "10.0.0.1", "")
}

use Way::{Agent, Direct};

#[test]
fn without_a_rule_or_with_subsets_alone_the_kernel_picks() {
    let mut rule = destination_rule("web");
    rule.subsets.push(subset("v1", "version=v1"));
    assert_eq!(
        ways(&shop().destination_rule("shop/web", rule)),
        [(8080, Direct), (8081, Direct), (5432, Direct)]
    );
}

#[test]
fn http_routes_need_the_agent_where_requests_may_be_read() {
    let all = |hosts: &[&str]| shop().http("shop/web", hosts, vec![route(&[("web", 0)])]);
    let expected = [(8080, Agent), (8081, Agent), (5432, Direct)];
    assert_eq!(ways(&all(&["web"])), expected);
    assert_eq!(ways(&all(&["*.shop.svc.cluster.local"])), expected);
    assert_eq!(ways(&all(&["*"])), expected);
    assert_eq!(
        ways(&all(&["other"])),
        [(8080, Direct), (8081, Direct), (5432, Direct)]
    );
}

#[test]
fn routes_for_another_port_or_gateway_do_not_need_it() {
    let port = |number| route(&[("web", 0)]).when(|block| block.port = Some(number));
    assert_eq!(
        ways(&shop().http("shop/web", &["web"], vec![port(8081)])),
        [(8080, Direct), (8081, Agent), (5432, Direct)]
    );
    let gateway = route(&[("web", 0)]).when(|block| block.gateways = vec!["front".to_owned()]);
    assert_eq!(
        ways(&shop().http("shop/web", &["web"], vec![gateway])),
        [(8080, Direct), (8081, Direct), (5432, Direct)]
    );
}

#[test]
fn tcp_routes_need_the_agent_where_bytes_are_not_declared_http() {
    let with = |matches| {
        let mut rule = virtual_service(&["web"], vec![]);
        rule.tcp = vec![tcp_route(matches, &[("web:5432", 0)])];
        shop().virtual_service("shop/web", rule)
    };
    assert_eq!(
        ways(&with(vec![])),
        [(8080, Direct), (8081, Agent), (5432, Agent)]
    );
    let block = L4Match {
        port: Some(5432),
        ..L4Match::default()
    };
    assert_eq!(
        ways(&with(vec![block])),
        [(8080, Direct), (8081, Direct), (5432, Agent)]
    );
}

#[test]
fn a_rule_that_no_client_sees_needs_nobody() {
    let mut rule = virtual_service(&["web"], vec![route(&[("web", 0)])]);
    rule.export_to = vec!["nobody-lives-here".to_owned()];
    assert_eq!(
        ways(&shop().virtual_service("shop/web", rule.clone())),
        [(8080, Direct), (8081, Direct), (5432, Direct)]
    );
    let inhabited =
        shop()
            .virtual_service("shop/web", rule)
            .pod("nobody-lives-here/client", "10.0.0.2", "");
    assert_eq!(
        ways(&inhabited),
        [(8080, Agent), (8081, Agent), (5432, Direct)]
    );
}

#[test]
fn a_host_without_a_service_is_answered_for_on_port_80() {
    let mesh = |host: &str| {
        Mesh::default()
            .service("shop/web", "10.96.0.1", &[("http", 80), ("http-x", 81)])
            .pod("shop/client", "10.0.0.1", "")
            .http("shop/outside", &[host], vec![route(&[("web:81", 0)])])
    };
    assert_eq!(ways(&mesh("api.example.com")), [(80, Agent), (81, Direct)]);
    assert_eq!(ways(&mesh("*.example.com")), [(80, Agent), (81, Direct)]);
    assert_eq!(
        ways(&mesh("mistyped")),
        [(80, Direct), (81, Direct)],
        "a name of this cluster that no service has"
    );
}
