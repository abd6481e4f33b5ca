use super::{assert_refused, good_without_remarks};
use crate::config::{
    model::{AuthorizationPolicy, MutualTls, PeerAuthentication, PolicyAction, Spec, State},
    tests::{good, read},
};

fn document(kind: &str, spec: &str) -> String {
    format!("apiVersion: security.istio.io/v1\nkind: {kind}\nmetadata: {{name: it}}\nspec:{spec}\n")
}

fn authorization(spec: &str) -> AuthorizationPolicy {
    match good(&document("AuthorizationPolicy", spec)).0.spec.clone() {
        Spec::AuthorizationPolicy(policy) => policy,
        other => panic!("{other:?}"),
    }
}

fn authentication(spec: &str) -> PeerAuthentication {
    let object = good_without_remarks(&document("PeerAuthentication", spec));
    match object.spec.clone() {
        Spec::PeerAuthentication(policy) => policy,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_policy_without_a_word_allows_nothing() {
    for spec in [" {}", "\n  {}", "", " null"] {
        let policy = authorization(spec);
        assert_eq!(policy.action, PolicyAction::Allow, "{spec:?}");
        assert!(
            policy.rules.is_empty() && policy.selector.is_empty(),
            "{spec:?}"
        );
    }
    let policy = authorization("\n  rules:\n  - {}");
    assert_eq!(policy.rules.len(), 1);
    assert!(!policy.rules[0].needs_request);
}

#[test]
fn what_asks_about_requests_is_named_and_what_comes_of_it_is_told() {
    let text = document(
        "AuthorizationPolicy",
        "\n  action: DENY\n  rules:\n  - to: [{operation: {methods: [GET], ports: ['80']}}]\n    \
         from: [{source: {requestPrincipals: ['*']}}]\n    when: [{key: 'request.headers[a]', values: [b]}]",
    );
    let (object, report) = good(&text);
    let Spec::AuthorizationPolicy(policy) = &object.spec else {
        panic!("{object:?}");
    };
    assert!(policy.rules[0].needs_request);
    for field in [
        "spec.rules[0].to[0].operation.methods",
        "spec.rules[0].from[0].source.requestPrincipals",
        "spec.rules[0].when[0].key",
    ] {
        let named = report.unsupported.iter().any(|one| one.starts_with(field));
        assert!(named, "{field}: {report:?}");
    }
    assert!(report.warnings[0].contains("denies more"), "{report:?}");
    assert_eq!(report.warnings.len(), 1, "{report:?}");
}

#[test]
fn custom_and_audit_are_in_force_as_far_as_they_go_and_say_so() {
    for (action, words) in [("CUSTOM", "refused"), ("AUDIT", "nothing is noted")] {
        let text = document(
            "AuthorizationPolicy",
            &format!("\n  action: {action}\n  rules: [{{}}]"),
        );
        let (_, report) = good(&text);
        assert!(
            report.unsupported[0].starts_with("spec.action"),
            "{report:?}"
        );
        assert!(report.warnings[0].contains(words), "{report:?}");
    }
}

#[test]
fn a_policy_for_a_waypoint_is_not_in_force_and_says_so() {
    let text = document(
        "AuthorizationPolicy",
        "\n  targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: w}]\n  rules: [{}]",
    );
    let document = read(&text).remove(0);
    assert_eq!(document.report.state, State::Ignored);
    assert!(document.object.is_none());
    assert!(document.report.reason.unwrap().contains("selector"));
}

#[test]
fn mistakes_refuse_the_policy() {
    let rule = |rule: &str| document("AuthorizationPolicy", &format!("\n  rules:\n  - {rule}"));
    for (text, field, line, words) in [
        (
            document("AuthorizationPolicy", "\n  action: DENY"),
            "spec.rules",
            4,
            "denies nothing",
        ),
        (
            document("AuthorizationPolicy", "\n  action: DROP"),
            "spec.action",
            5,
            "ALLOW",
        ),
        (rule("from: []"), "spec.rules[0].from", 6, "is empty"),
        (
            rule("from: [{source: {}}]"),
            "spec.rules[0].from[0].source",
            6,
            "is empty",
        ),
        (
            rule("from: [{}]"),
            "spec.rules[0].from[0].source",
            6,
            "is missing",
        ),
        (
            rule("to: [{operation: {}}]"),
            "spec.rules[0].to[0].operation",
            6,
            "is empty",
        ),
        (
            rule("to: [{operation: {ports: [http]}}]"),
            "spec.rules[0].to[0].operation.ports[0]",
            6,
            "no port",
        ),
        (
            rule("to: [{operation: {ports: ['0']}}]"),
            "spec.rules[0].to[0].operation.ports[0]",
            6,
            "no port",
        ),
        (
            rule("from: [{source: {ipBlocks: [10.0.0.0/33]}}]"),
            "spec.rules[0].from[0].source.ipBlocks[0]",
            6,
            "block",
        ),
        (
            rule("from: [{source: {serviceAccounts: [a/b/c]}}]"),
            "spec.rules[0].from[0].source.serviceAccounts[0]",
            6,
            "NAMESPACE/NAME",
        ),
        (
            rule("from: [{source: {serviceAccounts: [a], namespaces: [b]}}]"),
            "spec.rules[0].from[0].source",
            6,
            "one way",
        ),
        (
            rule("when: [{key: source.colour, values: [a]}]"),
            "spec.rules[0].when[0].key",
            6,
            "no attribute",
        ),
        (
            rule("when: [{key: source.ip}]"),
            "spec.rules[0].when[0]",
            6,
            "neither",
        ),
        (
            document("PeerAuthentication", "\n  mtls: {mode: ON}"),
            "spec.mtls.mode",
            5,
            "STRICT",
        ),
        (
            document(
                "PeerAuthentication",
                "\n  portLevelMtls: {80: {mode: STRICT}}",
            ),
            "spec.portLevelMtls",
            5,
            "selector",
        ),
    ] {
        assert_refused(&text, field, line, words);
    }
}

#[test]
fn a_policy_that_lost_its_indentation_is_not_an_empty_one() {
    let text = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: it}\nrules: [{}]\n";
    assert_refused(text, "spec", 1, "indent");
}

#[test]
fn modes_are_read_and_unset_is_inherited() {
    let policy = authentication(
        "\n  selector: {matchLabels: {app: a}}\n  mtls: {mode: STRICT}\n  \
         portLevelMtls: {80: {mode: DISABLE}, 81: {mode: UNSET}, 82: {}}",
    );
    assert_eq!(policy.mode, Some(MutualTls::Strict));
    assert_eq!(policy.ports[&80], Some(MutualTls::Disable));
    assert_eq!((policy.ports[&81], policy.ports[&82]), (None, None));
    assert_eq!(policy.selector["app"], "a");
    for spec in ["", " {}", "\n  mtls: {}", "\n  mtls: {mode: UNSET}"] {
        assert_eq!(authentication(spec).mode, None, "{spec:?}");
    }
}
