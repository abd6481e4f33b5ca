use std::net::SocketAddr;

use proptest::prelude::*;

use super::*;
use crate::mesh::testing::Mesh;

fn tables(mesh: &Mesh) -> Tables {
    compile(&mesh.snapshot(), &BTreeMap::new(), &mut Ids::default())
}

fn key(address: &str) -> FrontendKey {
    let address: SocketAddr = address.parse().expect("an address");
    FrontendKey {
        address: address.ip().into(),
        port: PortBe::new(address.port()),
        protocol: TCP,
    }
}

fn service(more: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: web, namespace: shop}}, spec: {{clusterIP: \
         10.96.0.1, selector: {{app: web}}, ports: [{{port: 80}}], {more}}}}}"
    )
}

fn rule(policy: &str) -> String {
    format!(
        "{{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {{name: web, namespace: \
         shop}}, spec: {{host: web, trafficPolicy: {{loadBalancer: {{simple: {policy}}}}}}}}}"
    )
}

fn compiled(documents: &[String]) -> Frontend {
    let mesh =
        Mesh::default()
            .yaml(&documents.join("\n---\n"))
            .pod("shop/web-1", "10.0.0.1", "app=web");
    tables(&mesh).frontends[&key("10.96.0.1:80")].clone()
}

#[test]
fn a_service_that_asks_for_nothing_is_balanced_at_random() {
    let frontend = compiled(&[service("")]);
    assert_eq!(frontend.balance, Balance::Random);
    assert_eq!(frontend.affinity_seconds, 0);
    assert_eq!(frontend.verdict, Verdict::Direct);
}

#[test]
fn a_destination_rule_says_how_the_kernel_picks() {
    for (policy, balance) in [
        ("RANDOM", Balance::Random),
        ("ROUND_ROBIN", Balance::RoundRobin),
        ("LEAST_REQUEST", Balance::LeastConnections),
        ("LEAST_CONN", Balance::LeastConnections),
    ] {
        let frontend = compiled(&[service(""), rule(policy)]);
        assert_eq!(frontend.balance, balance, "{policy}");
        assert_eq!(frontend.verdict, Verdict::Direct, "{policy}");
    }
    let passed = compiled(&[service(""), rule("PASSTHROUGH")]);
    assert_eq!(passed.verdict, Verdict::Pass);
}

#[test]
fn session_affinity_has_the_time_that_the_service_says() {
    let default = compiled(&[service("sessionAffinity: ClientIP")]);
    assert_eq!(default.affinity_seconds, 10_800);
    let own = compiled(&[service(
        "sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 7}}",
    )]);
    assert_eq!(own.affinity_seconds, 7);
    let off = compiled(&[service(
        "sessionAffinity: None, sessionAffinityConfig: {clientIP: {timeoutSeconds: 7}}",
    )]);
    assert_eq!(off.affinity_seconds, 0);
}

#[test]
fn pods_of_a_headless_service_stand_at_their_own_addresses() {
    let mesh = Mesh::default()
        .service("shop/db", "", &[("tcp", 5432)])
        .service("shop/taken", "10.0.0.2", &[("tcp", 5432)])
        .pod("shop/db-0", "10.0.0.1", "app=db")
        .pod_with("shop/db-1", "10.0.0.3", "app=db", |pod| pod.ready = false)
        .pod("shop/db-2", "10.0.0.2", "app=db");
    let tables = tables(&mesh);
    for address in ["10.0.0.1:5432", "10.0.0.3:5432"] {
        let frontend = &tables.frontends[&key(address)];
        assert_eq!(frontend.verdict, Verdict::Direct);
        assert_eq!(frontend.endpoints.len(), 1);
        assert_eq!(frontend.endpoints[0].address, key(address).address);
        assert_ne!(frontend.endpoints[0].workload, 0);
    }
    // An address that is a service's own belongs to that one.
    assert!(tables.frontends[&key("10.0.0.2:5432")].endpoints.is_empty());
}

/// As `mesh-ebpf`'s `pick.rs` searches.
fn find(slots: &[u64], wanted: u64) -> Option<usize> {
    let (mut low, mut high) = (0, slots.len());
    for _ in 0..19 {
        let middle = low + (high - low) / 2;
        match slots.get(middle) {
            Some(slot) if *slot < wanted => low = middle + 1,
            _ => high = middle,
        }
    }
    (slots.get(low) == Some(&wanted)).then_some(low)
}

proptest! {
    #[test]
    fn every_endpoint_is_found_where_the_kernel_looks(
        addresses in prop::collection::btree_set((any::<u32>(), 1_u16..), 1..300),
        absent in (any::<u32>(), 1_u16..),
    ) {
        let order = |(address, port): &(u32, u16)| {
            policy::order(IpAddr::from(address.to_be_bytes()).into(), PortBe::new(*port))
        };
        let mut slots: Vec<u64> = addresses.iter().map(order).collect();
        slots.sort_unstable();
        for address in &addresses {
            let found = find(&slots, order(address)).expect("it is there");
            prop_assert_eq!(slots[found], order(address));
        }
        prop_assert_eq!(find(&slots, order(&absent)).is_some(), addresses.contains(&absent));
    }
}
