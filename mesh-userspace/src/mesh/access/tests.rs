use std::net::Ipv4Addr;

use super::*;
use crate::mesh::testing::{Mesh, workload};

const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

/// `server` in default with label app=server, `friend` (account friend) beside it, `other` in foo.
fn mesh(policies: &str) -> crate::mesh::model::Snapshot {
    Mesh::default()
        .pod("default/server", "10.0.0.1", "app=server")
        .pod_with("default/friend", "10.0.0.2", "app=friend", |pod| {
            pod.service_account = "friend".into();
        })
        .pod("foo/other", "10.0.0.3", "")
        .yaml(policies)
        .snapshot()
}

fn authorization(name: &str, spec: &str) -> String {
    policy("AuthorizationPolicy", name, spec)
}

fn policy(kind: &str, name: &str, spec: &str) -> String {
    let (namespace, name) = name.split_once('/').expect("namespace/name");
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: {kind}\n\
         metadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
    )
}

/// Who gets in to `default/server`, of friend, other and a stranger at 10.9.0.1: `f`, `o`, `s`.
fn let_in(policies: &str, port: u16) -> String {
    let snapshot = mesh(policies);
    let server = workload(&snapshot, "default/server");
    let clients = [
        (
            'f',
            Client::pod(workload(&snapshot, "default/friend"), SERVER),
        ),
        ('o', Client::pod(workload(&snapshot, "foo/other"), SERVER)),
        (
            's',
            Client::stranger("10.9.0.1".parse().expect("an address")),
        ),
    ];
    let admitted = |client: &Client<'_>| {
        server
            .access
            .as_ref()
            .is_none_or(|access| matches!(access.decide(client, port), Decision::Allow(_)))
    };
    let mut names = String::new();
    names.extend(
        clients
            .iter()
            .filter(|(_, client)| admitted(client))
            .map(|(name, _)| name),
    );
    names
}

#[test]
fn authorization_is_decided_as_istio_does() {
    for (spec, at_80, at_81) in [
        // An empty policy is an ALLOW that allows nothing.
        ("{}", "", ""),
        ("{rules: [{}]}", "fos", "fos"),
        ("{action: DENY, rules: [{}]}", "", ""),
        (
            "{rules: [{from: [{source: {namespaces: [default]}}]}]}",
            "f",
            "f",
        ),
        (
            "{rules: [{from: [{source: {namespaces: [f*]}}]}]}",
            "o",
            "o",
        ),
        (
            "{rules: [{from: [{source: {notNamespaces: [default]}}]}]}",
            "os",
            "os",
        ),
        (
            "{rules: [{from: [{source: {principals: ['*']}}]}]}",
            "fo",
            "fo",
        ),
        (
            "{rules: [{from: [{source: {principals: ['*/sa/friend']}}]}]}",
            "f",
            "f",
        ),
        (
            "{rules: [{from: [{source: {principals: [cluster.local/ns/default/sa/friend]}}]}]}",
            "f",
            "f",
        ),
        (
            "{rules: [{from: [{source: {serviceAccounts: [friend]}}]}]}",
            "f",
            "f",
        ),
        (
            "{rules: [{from: [{source: {serviceAccounts: [foo/default]}}]}]}",
            "o",
            "o",
        ),
        (
            "{rules: [{from: [{source: {notServiceAccounts: [friend]}}]}]}",
            "os",
            "os",
        ),
        (
            "{rules: [{from: [{source: {trustDomains: [cluster.local]}}]}]}",
            "fo",
            "fo",
        ),
        (
            "{rules: [{from: [{source: {ipBlocks: [10.0.0.0/24]}}]}]}",
            "fo",
            "fo",
        ),
        (
            "{rules: [{from: [{source: {ipBlocks: [10.0.0.0/8], notIpBlocks: [10.0.0.3]}}]}]}",
            "fs",
            "fs",
        ),
        (
            "{action: DENY, rules: [{from: [{source: {ipBlocks: [10.9.0.0/16]}}]}]}",
            "fo",
            "fo",
        ),
        (
            "{action: DENY, rules: [{to: [{operation: {ports: ['80']}}]}]}",
            "",
            "fos",
        ),
        (
            "{rules: [{to: [{operation: {notPorts: ['80']}}]}]}",
            "",
            "fos",
        ),
        (
            "{rules: [{when: [{key: destination.port, values: ['80']}, {key: source.namespace, values: [foo]}]}]}",
            "o",
            "",
        ),
        (
            "{rules: [{when: [{key: source.ip, notValues: [10.0.0.0/24]}]}]}",
            "s",
            "s",
        ),
        // What asks about a request: ALLOW never matches, DENY is read without it, and so is CUSTOM.
        ("{rules: [{to: [{operation: {methods: [GET]}}]}]}", "", ""),
        (
            "{rules: [{to: [{operation: {methods: [GET]}}, {operation: {ports: ['80']}}]}]}",
            "",
            "",
        ),
        (
            "{action: DENY, rules: [{to: [{operation: {methods: [GET], ports: ['80']}}]}]}",
            "",
            "fos",
        ),
        (
            "{action: DENY, rules: [{when: [{key: 'request.headers[x]', values: [a]}], from: [{source: {namespaces: [foo]}}]}]}",
            "fs",
            "fs",
        ),
        (
            "{action: CUSTOM, provider: {name: p}, rules: [{to: [{operation: {paths: [/a], ports: ['80']}}]}]}",
            "",
            "fos",
        ),
        ("{action: AUDIT, rules: [{}]}", "fos", "fos"),
        // It is for somebody else.
        ("{selector: {matchLabels: {app: friend}}}", "fos", "fos"),
        ("{selector: {matchLabels: {app: server}}}", "", ""),
    ] {
        let text = authorization("default/it", spec);
        assert_eq!(let_in(&text, 80), at_80, "{spec}");
        assert_eq!(let_in(&text, 81), at_81, "{spec}");
        // The root namespace's hold everywhere; another's do not.
        assert_eq!(let_in(&authorization("foo/it", spec), 80), "fos", "{spec}");
        let unrelated_to_home = !spec.contains("[friend]");
        if unrelated_to_home {
            let text = authorization("istio-system/it", spec);
            assert_eq!(let_in(&text, 80), at_80, "{spec}");
        }
    }
}

#[test]
fn deny_beats_allow_and_each_says_who() {
    let text = authorization(
        "default/some",
        "{rules: [{from: [{source: {namespaces: ['*']}}]}]}",
    ) + &authorization(
        "default/not-foo",
        "{action: DENY, rules: [{from: [{source: {namespaces: [foo]}}]}]}",
    );
    assert_eq!(let_in(&text, 80), "f");
    let snapshot = mesh(&text);
    let server = workload(&snapshot, "default/server");
    let told = |from: &str| {
        refusal(
            workload(&snapshot, from),
            server,
            SocketAddr::new(SERVER, 80),
        )
        .map(|it| it.to_string())
    };
    assert_eq!(
        told("foo/other").as_deref(),
        Some("AuthorizationPolicy default/not-foo")
    );
    assert_eq!(told("default/friend"), None);
    // Though it is denied to itself by nobody, an ALLOW for others would not name it.
    assert_eq!(told("default/server"), None);
}

#[test]
fn plaintext_is_refused_where_strict_is_asked_for_and_the_nearest_says_so() {
    let strict = |name| policy("PeerAuthentication", name, "{mtls: {mode: STRICT}}");
    let of = |name, mode, more: &str| {
        let spec =
            format!("{{mtls: {{mode: {mode}}}, selector: {{matchLabels: {{app: server}}}}{more}}}");
        policy("PeerAuthentication", name, &spec)
    };
    assert_eq!(let_in("", 80), "fos");
    assert_eq!(let_in(&strict("istio-system/mesh"), 80), "fo");
    assert_eq!(let_in(&strict("default/home"), 80), "fo");
    assert_eq!(let_in(&strict("foo/elsewhere"), 80), "fos");
    let open = of("default/own", "PERMISSIVE", "");
    assert_eq!(let_in(&(strict("istio-system/mesh") + &open), 80), "fos");
    let unset = of("default/own", "UNSET", "");
    assert_eq!(let_in(&(strict("istio-system/mesh") + &unset), 80), "fo");
    let off = policy(
        "PeerAuthentication",
        "default/home",
        "{mtls: {mode: DISABLE}}",
    );
    assert_eq!(let_in(&(strict("istio-system/mesh") + &off), 80), "fos");
    // The root namespace means the mesh; with a selector it means nothing.
    assert_eq!(let_in(&of("istio-system/one", "STRICT", ""), 80), "fos");
    let by_port = of(
        "default/own",
        "PERMISSIVE",
        ", portLevelMtls: {80: {mode: STRICT}}",
    );
    assert_eq!(
        (let_in(&by_port, 80), let_in(&by_port, 81)),
        ("fo".into(), "fos".into())
    );
    let by_port = of(
        "default/own",
        "STRICT",
        ", portLevelMtls: {80: {mode: DISABLE}, 82: {mode: UNSET}}",
    );
    assert_eq!(
        (let_in(&by_port, 80), let_in(&by_port, 82)),
        ("fos".into(), "fo".into())
    );
    // Being authenticated is not being allowed.
    let both = strict("default/home") + &authorization("default/it", "{}");
    assert_eq!(let_in(&both, 80), "");
}

#[test]
fn a_pod_that_somebody_guards_fails_closed_unless_it_says_otherwise() {
    use crate::config::model::FailurePolicy;
    let policy_of = |policies: &str| {
        let snapshot = mesh(policies);
        workload(&snapshot, "default/server").failure_policy
    };
    assert_eq!(policy_of(""), FailurePolicy::Open);
    assert_eq!(
        policy_of(&authorization("default/it", "{}")),
        FailurePolicy::Closed
    );
    let strict = policy("PeerAuthentication", "default/it", "{mtls: {mode: STRICT}}");
    assert_eq!(policy_of(&strict), FailurePolicy::Closed);
    let open = policy(
        "PeerAuthentication",
        "default/it",
        "{mtls: {mode: PERMISSIVE}}",
    );
    assert_eq!(policy_of(&open), FailurePolicy::Open);
}

#[test]
fn every_policy_is_told_with_whom_it_holds_for() {
    let text = authorization("default/it", "{selector: {matchLabels: {app: friend}}}")
        + &policy(
            "PeerAuthentication",
            "istio-system/mesh",
            "{mtls: {mode: STRICT}}",
        );
    let snapshot = mesh(&text);
    let told: Vec<String> = snapshot
        .policies
        .iter()
        .map(|policy| {
            let workloads: Vec<_> = policy.workloads.iter().map(ToString::to_string).collect();
            format!(
                "{} {} {} {}",
                policy.kind,
                policy.name,
                policy.effect,
                workloads.join(" ")
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            "AuthorizationPolicy default/it ALLOW default/friend",
            "PeerAuthentication istio-system/mesh STRICT default/friend default/server foo/other",
        ]
    );
}
