use std::sync::Arc;

use proptest::prelude::*;

use crate::{
    config::model::LoadBalancer,
    mesh::{
        model::{Destination, RouteAction},
        resolve::{DestinationResolver, DestinationRules, Objects, Target, VirtualServices},
        testing::{Mesh, destination_rule, route, subset, virtual_service},
    },
};

const NAMESPACES: [&str; 3] = ["a", "b", "istio-system"];
const HOSTS: [&str; 6] = [
    "web",
    "web.a.svc.cluster.local",
    "web.b.svc.cluster.local",
    "*.a.svc.cluster.local",
    "*.cluster.local",
    "api.example.com",
];
const EXPORTS: [&str; 5] = ["", "*", ".", "a", "b"];

#[test]
fn namespaces_that_see_the_same_share_it() {
    let mut mesh = Mesh::default();
    for namespace in 0..20 {
        mesh = mesh.pod(
            &format!("n{namespace}/client"),
            &format!("10.0.1.{namespace}"),
            "",
        );
        for service in 0..20 {
            let host = format!("s{service}");
            mesh = mesh
                .service(
                    &format!("n{namespace}/{host}"),
                    &format!("10.96.{namespace}.{service}"),
                    &[("http", 80)],
                )
                .http(
                    &format!("n{namespace}/{host}"),
                    &[&host],
                    vec![route(&[(&host, 0)])],
                );
        }
    }
    let mut private = virtual_service(&["s1.n1.svc.cluster.local"], vec![route(&[("s2", 0)])]);
    private.export_to = vec![".".to_owned()];
    let snapshot = mesh.virtual_service("n7/private", private).snapshot();

    let seen = |namespace: &str, host: &str| {
        let found = snapshot.views[namespace].hosts.get(host).map(Arc::as_ptr);
        found.expect("a host")
    };
    assert_eq!(snapshot.views.len(), 20);
    assert_eq!(seen("n3", "s1.n1"), seen("n1", "s1"));
    assert_eq!(seen("n7", "s2.n1"), seen("n1", "s2"));
    assert_ne!(
        seen("n7", "s1.n1"),
        seen("n1", "s1"),
        "n7 has its own rule for it"
    );
}

/// A rule's namespace, host and exportTo, as indexes into the lists above.
fn anywhere() -> impl Strategy<Value = (usize, usize, usize)> {
    (0..NAMESPACES.len(), 0..HOSTS.len(), 0..EXPORTS.len())
}

fn export_to(index: usize) -> Vec<String> {
    let entry = EXPORTS[index];
    Vec::from_iter((!entry.is_empty()).then(|| entry.to_owned()))
}

/// What tells two destinations apart.
fn essence(destination: &Destination) -> String {
    format!(
        "{} {:?} {:?} {:?} {}",
        destination.host,
        destination
            .destination_rule
            .as_ref()
            .map(ToString::to_string),
        destination.load_balancer,
        destination.invalid,
        destination.endpoints.len(),
    )
}

fn first(action: &RouteAction) -> String {
    match action {
        RouteAction::Forward(to) => essence(&to[0].destination),
        _ => panic!("not forwarded"),
    }
}

proptest! {
    /// Sharing between views changes no answer: each is what its own clients' look-ups give.
    #[test]
    fn a_shared_view_is_the_same_as_one_of_its_own(
        policies in prop::collection::vec((anywhere(), any::<bool>()), 0..6),
        rules in prop::collection::vec((anywhere(), 0..2_usize), 0..6),
    ) {
        let mut mesh = Mesh::default().pod("c/client", "10.1.0.9", "");
        for (number, namespace) in NAMESPACES.iter().enumerate() {
            mesh = mesh
                .service(&format!("{namespace}/web"), &format!("10.96.0.{number}"), &[("http", 80)])
                .pod(&format!("{namespace}/web-1"), &format!("10.0.0.{number}"), "app=web,version=v1");
        }
        for (number, ((home, host, export), balanced)) in policies.iter().enumerate() {
            let mut rule = destination_rule(HOSTS[*host]);
            rule.export_to = export_to(*export);
            rule.subsets = vec![subset("v1", "version=v1")];
            rule.traffic_policy.load_balancer = balanced.then_some(LoadBalancer::Random);
            mesh = mesh.destination_rule(&format!("{}/d{number}", NAMESPACES[*home]), rule);
        }
        for (number, ((home, host, export), to)) in rules.iter().enumerate() {
            let to = ["web/v1", "web.b.svc.cluster.local/v1"][*to];
            let mut rule = virtual_service(&[HOSTS[*host]], vec![route(&[(to, 0)])]);
            rule.export_to = export_to(*export);
            mesh = mesh.virtual_service(&format!("{}/v{number}", NAMESPACES[*home]), rule);
        }
        let snapshot = mesh.snapshot();

        let objects = Objects::sort(&mesh.objects);
        let destination_rules = DestinationRules::new(&objects, "cluster.local");
        let virtual_services = VirtualServices::new(&objects, "cluster.local");
        let mut resolver = DestinationResolver::new(&snapshot.services, &destination_rules);
        for client in ["a", "b", "c", "istio-system"] {
            let table = virtual_services.table(client);
            let hosts = snapshot.services.keys().map(AsRef::as_ref);
            for host in hosts.chain(["api.example.com"]) {
                let own = Target { host, subset: None, port: Some(80) };
                let found = snapshot.virtual_host(client, host);
                let expected = table.rule_of(host);
                prop_assert_eq!(
                    found.is_some(),
                    expected.is_some() || snapshot.services.contains_key(host)
                );
                let Some(found) = found else { continue };
                if let Some(route) = found.defaults.first() {
                    let expected = essence(&resolver.resolve(client, own, 80));
                    prop_assert_eq!(first(&route.action), expected, "{} {}", client, host);
                }
                let expected = expected.map(|index| &virtual_services.rules()[index]);
                prop_assert_eq!(
                    found.rule.as_ref().map(|rule| &rule.name),
                    expected.map(|rule| &rule.meta.name),
                    "{} {}", client, host
                );
                if let (Some(rule), Some(expected)) = (&found.rule, expected) {
                    let to = &expected.spec.http[0].destinations[0].destination;
                    let full = virtual_services.full_host(expected, &to.host);
                    let target = Target { host: &full, subset: to.subset.as_deref(), port: None };
                    let expected = essence(&resolver.resolve(client, target, 80));
                    prop_assert_eq!(first(&rule.http[0].action), expected, "{} {}", client, host);
                }
            }
        }
    }
}
