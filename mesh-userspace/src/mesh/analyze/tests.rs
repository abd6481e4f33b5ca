use std::sync::Arc;

use super::{Severity, annotate, findings};
use crate::{
    config::model::{PodPlace, Report, State},
    mesh::testing::Mesh,
};

/// `KIND FIELD: MESSAGE` of each finding.
fn found(mesh: &Mesh) -> Vec<String> {
    findings(&mesh.objects, "cluster.local")
        .into_iter()
        .map(|finding| {
            format!(
                "{} {}: {}",
                finding.object.0, finding.field, finding.message
            )
        })
        .collect()
}

/// Whether there is one finding, and each part is in it.
#[track_caller]
fn assert_one(mesh: &Mesh, parts: &[&str]) {
    let found = found(mesh);
    assert_eq!(found.len(), 1, "{found:#?}");
    for part in parts {
        assert!(found[0].contains(part), "{part} in {}", found[0]);
    }
}

/// Bookinfo with a VirtualService for `reviews`: all of its `spec` but the hosts.
fn reviews(spec: &str) -> Mesh {
    rule("reviews", "[reviews]", spec)
}

fn rule(name: &str, hosts: &str, spec: &str) -> Mesh {
    Mesh::bookinfo().yaml(&format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}}}\n\
         spec:\n  hosts: {hosts}\n{spec}"
    ))
}

const TO_V1: &str = "  http: [{route: [{destination: {host: reviews, subset: v1}}]}]\n";

#[test]
fn a_mesh_in_order_has_no_findings() {
    assert_eq!(found(&Mesh::bookinfo()), Vec::<String>::new());
    assert_eq!(found(&reviews(TO_V1)), Vec::<String>::new());
}

#[test]
fn a_destination_that_does_not_exist_is_named_with_its_line() {
    let mesh = |destination: &str| {
        reviews(&format!(
            "  http:\n  - route:\n    - destination: {destination}\n"
        ))
    };
    assert_one(
        &mesh("{host: review}"),
        &[
            "spec.http[0].route[0].destination.host",
            "no Service review in namespace default",
            "503 (NC)",
        ],
    );
    assert_one(
        &mesh("{host: ratings.default}"),
        &["has a dot", "write ratings.default.svc.cluster.local"],
    );
    assert_one(
        &mesh("{host: reviews, subset: v9}"),
        &[
            "spec.http[0].route[0].destination.subset",
            "does not define the subset v9",
            "only v1, v2, v3",
        ],
    );
    assert_one(
        &mesh("{host: details, subset: v1}"),
        &["no DestinationRule for details.default.svc.cluster.local"],
    );
    assert_one(
        &mesh("{host: reviews, port: {number: 80}}"),
        &["destination.port", "has no port 80; it has 9080"],
    );
    let all = findings(&mesh("{host: review}").objects, "cluster.local");
    assert_eq!(all[0].location.line, 8);
    assert_eq!(all[0].severity, Severity::Warning);
    assert!(
        all[0]
            .to_string()
            .starts_with("`spec.http[0].route[0].destination.host` (line 8): ")
    );
}

#[test]
fn a_destination_that_takes_the_dialled_port_must_have_it() {
    let mesh = reviews("  http: [{route: [{destination: {host: two}}]}]\n").service(
        "default/two",
        "10.96.0.9",
        &[("http", 80), ("http-x", 81)],
    );
    let mesh = mesh.pod("default/two-1", "10.0.0.9", "app=two");
    assert_one(
        &mesh,
        &["destination.port", "has no port 9080", "write one"],
    );
}

#[test]
fn a_host_that_is_no_service_is_told_by_what_it_may_have_meant() {
    assert_one(
        &rule("a", "[review]", TO_V1),
        &["spec.hosts[0]", "no Service review in namespace default"],
    );
    assert_one(
        &rule("a", "[reviews.default]", TO_V1),
        &["has a dot", "write reviews.default.svc.cluster.local"],
    );
    assert_one(
        &rule("a", "[reviews.shop.svc.cluster.local]", TO_V1),
        &["did you mean reviews.default.svc.cluster.local?"],
    );
    let outside = rule("a", "[api.example.com]", TO_V1);
    assert_one(&outside, &["only for requests on port 80"]);
    let note = &findings(&outside.objects, "cluster.local")[0];
    assert_eq!(note.severity, Severity::Note);
}

#[test]
fn what_stands_after_a_route_that_takes_all_is_dead() {
    for first in [
        "route: [{destination: {host: reviews}}]",
        "{match: [{uri: {prefix: /}}], route: [{destination: {host: reviews}}]}",
        "{match: [{uri: {regex: '.*'}}], route: [{destination: {host: reviews}}]}",
    ] {
        let mesh = reviews(&format!(
            "  http:\n  - {first}\n  - match: [{{uri: {{exact: /a}}}}]\n    route: [{{destination: {{host: \
             reviews}}}}]\n"
        ));
        assert_one(
            &mesh,
            &["spec.http[1]", "never reached", "spec.http[0] (line 7)"],
        );
    }
    let tcp = Mesh::bookinfo()
        .service("default/db", "10.96.0.9", &[("tcp", 5432)])
        .pod("default/db-1", "10.0.0.9", "app=db")
        .yaml(
            "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: db}
spec:
  hosts: [db]
  tcp:
  - route: [{destination: {host: db}}]
  - route: [{destination: {host: db}}]
",
        );
    assert_one(&tcp, &["spec.tcp[1]", "never reached"]);
}

#[test]
fn of_two_rules_for_one_host_the_second_is_told() {
    let mesh = reviews(TO_V1).yaml(
        "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a-first}
spec:
  hosts: [reviews.default.svc.cluster.local]
  http: [{route: [{destination: {host: reviews}}]}]
",
    );
    assert_one(
        &mesh,
        &[
            "spec.hosts",
            "VirtualService default/a-first (mesh.yaml:2)",
            "not merged",
        ],
    );
    let private = reviews(TO_V1).yaml(
        "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: z-private}
spec:
  hosts: [reviews]
  exportTo: ['.']
  http: [{route: [{destination: {host: reviews}}]}]
",
    );
    let elsewhere = private.clone().pod("away/client", "10.1.0.1", "");
    assert_one(&private, &["VirtualService default/z-private"]);
    assert_eq!(
        found(&elsewhere),
        Vec::<String>::new(),
        "clients elsewhere still get the public one"
    );
}

#[test]
fn matches_that_never_hold_are_told() {
    assert_one(
        &reviews("  http: [{match: [{port: 80}], route: [{destination: {host: reviews}}]}]\n"),
        &["spec.http[0].match[0].port", "no port 80, only 9080"],
    );
    assert_one(
        &reviews(
            "  gateways: [mesh, front]\n  http: [{match: [{gateways: [front]}], route: [{destination: {host: reviews}}]}]\n",
        ),
        &["spec.http[0].match[0].gateways", "does not list `mesh`"],
    );
    assert_one(
        &reviews(&format!("  gateways: [front]\n{TO_V1}")),
        &["spec.gateways", "does not list `mesh`"],
    );
    assert_one(
        &reviews("  tcp: [{route: [{destination: {host: reviews}}]}]\n"),
        &["spec.tcp", "TCP routes do not count"],
    );
}

#[test]
fn destination_rules_are_checked_against_pods_and_each_other() {
    let rule = |name: &str, spec: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {name}}}\n\
             spec: {spec}\n"
        )
    };
    let with = |name: &str, spec: &str| Mesh::bookinfo().yaml(&rule(name, spec));
    assert_one(
        &with("z", "{host: nobody}"),
        &["DestinationRule spec.host", "no Service nobody"],
    );
    assert_one(
        &with(
            "z",
            "{host: details, subsets: [{name: v2, labels: {version: v2}}]}",
        ),
        &[
            "spec.subsets[0].labels",
            "no pod of details",
            "version=v2",
            "UH",
        ],
    );
    assert_one(
        &with(
            "z",
            "{host: reviews, subsets: [{name: v1, labels: {version: v1}}]}",
        ),
        &[
            "spec.subsets[0].name",
            "DestinationRule default/reviews",
            "v1",
        ],
    );
    let policy = "{host: details, trafficPolicy: {loadBalancer: {simple: RANDOM}}}";
    assert_one(
        &with("y", policy).yaml(&rule("z", policy)),
        &["spec.trafficPolicy", "DestinationRule default/y"],
    );
    assert_one(
        &with("z", "{host: details, exportTo: [away]}"),
        &["spec.exportTo", "clients in default do not get it"],
    );
}

#[test]
fn services_without_endpoints_or_addresses_are_told() {
    let service = |spec: &str| {
        Mesh::bookinfo().yaml(&format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec: {spec}\n"
        ))
    };
    assert_one(
        &service("{clusterIP: 10.96.0.9, selector: {app: web}, ports: [{port: 80}]}"),
        &["Service spec.selector", "no endpoints"],
    );
    let unaddressed = service("{selector: {app: details}, ports: [{port: 80}]}");
    assert_eq!(
        found(&unaddressed),
        Vec::<String>::new(),
        "Kubernetes assigns one"
    );
    let placed = unaddressed.pod_with("default/placed", "10.0.0.9", "", |pod| {
        pod.place = Some(PodPlace::Netns("/run/netns/placed".into()));
    });
    assert_one(&placed, &["Service spec.clusterIP", "is missing"]);
    assert_one(
        &service(
            "{clusterIP: 10.96.0.9, selector: {app: details}, ports: [{port: 80, targetPort: web}]}",
        ),
        &["spec.ports[0].targetPort", "container port named web"],
    );
    assert_one(
        &service("{clusterIP: 10.96.0.1, selector: {app: details}, ports: [{port: 9080}]}"),
        &["spec.clusterIP", "is Service default/productpage's already"],
    );
    assert_one(
        &Mesh::bookinfo().pod("default/twin", "10.0.0.1", ""),
        &[
            "Pod status.podIP",
            "10.0.0.1 is Pod default/productpage-v1's",
        ],
    );
}

#[test]
fn a_policy_that_selects_no_pod_is_told() {
    let policy = |kind: &str, namespace: &str, spec: &str| {
        Mesh::bookinfo().yaml(&format!(
            "apiVersion: security.istio.io/v1\nkind: {kind}\n\
             metadata: {{name: guard, namespace: {namespace}}}\nspec: {spec}\n"
        ))
    };
    let by = |app: &str| format!("{{selector: {{matchLabels: {{app: {app}}}}}}}");
    for kind in ["AuthorizationPolicy", "PeerAuthentication"] {
        assert_one(
            &policy(kind, "default", &by("review")),
            &[kind, "spec.selector", "no Pod in namespace default"],
        );
        assert_one(
            &policy(kind, "istio-system", &by("review")),
            &["no Pod in any namespace"],
        );
        for (namespace, spec) in [
            ("default", by("reviews")),
            ("istio-system", by("reviews")),
            ("default", "{}".to_owned()),
        ] {
            assert_eq!(found(&policy(kind, namespace, &spec)), Vec::<String>::new());
        }
    }
}

#[test]
fn findings_become_warnings_of_the_report_in_force() {
    let mesh = reviews("  http: [{route: [{destination: {host: nobody}}]}]\n");
    let report = |state, name: &str| Report {
        file: "mesh.yaml".to_owned(),
        line: 1,
        kind: "VirtualService".to_owned(),
        namespace: "default".to_owned(),
        name: name.to_owned(),
        state,
        field: None,
        reason: None,
        warnings: Vec::new(),
        unsupported: Vec::new(),
    };
    let mut reports = vec![
        report(State::Rejected, "reviews"),
        report(State::Applied, "ratings"),
        report(State::Applied, "reviews"),
    ];
    annotate(&mut reports, &mesh.objects, "cluster.local");
    let warnings: Vec<usize> = reports.iter().map(|report| report.warnings.len()).collect();
    assert_eq!(warnings, [0, 0, 1]);
    assert!(
        reports[2].warnings[0].contains("(line 6)"),
        "{:?}",
        reports[2]
    );
}

#[test]
fn rules_alone_are_judged_without_pods_or_services() {
    let rules: Vec<Arc<_>> = reviews(TO_V1)
        .objects
        .into_iter()
        .filter(|object| object.spec.kind() == "VirtualService")
        .collect();
    let found = findings(&rules, "cluster.local");
    let fields: Vec<&str> = found.iter().map(|one| one.field.as_str()).collect();
    assert_eq!(
        fields,
        ["spec.hosts[0]", "spec.http[0].route[0].destination.host"]
    );
}
