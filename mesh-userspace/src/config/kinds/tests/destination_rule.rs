use std::time::Duration;

use super::{assert_refused, good, good_without_remarks, read};
use crate::config::model::{DestinationRule, LoadBalancer, Report, Spec, State};

/// The spec begins on line 4.
fn rule(spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1beta1\nkind: DestinationRule\nmetadata: {{name: a}}\n\
         spec:\n{spec}\n"
    )
}

fn good_rule(spec: &str) -> (DestinationRule, Report) {
    let (object, report) = good(&rule(spec));
    match object.spec.clone() {
        Spec::DestinationRule(rule) => (rule, report),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_rule_is_read_in_all_three_versions() {
    for version in ["v1", "v1beta1", "v1alpha3"] {
        let text = rule(
            "  host: reviews\n  exportTo: ['.', other]\n  trafficPolicy:\n    loadBalancer: {simple: \
             ROUND_ROBIN}\n    connectionPool: {tcp: {connectTimeout: 1.5s}}\n  subsets:\n  - \
             name: v1\n    labels: {version: v1}\n  - name: v2\n    trafficPolicy: {loadBalancer: \
             {simple: RANDOM}}",
        )
        .replace("v1beta1", version);
        let Spec::DestinationRule(rule) = good_without_remarks(&text).spec.clone() else {
            panic!("a DestinationRule");
        };
        assert_eq!(rule.host, "reviews");
        assert_eq!(rule.export_to, [".", "other"]);
        assert_eq!(
            rule.traffic_policy.load_balancer,
            Some(LoadBalancer::RoundRobin)
        );
        assert_eq!(
            rule.traffic_policy.connect_timeout,
            Some(Duration::from_millis(1500))
        );
        assert_eq!(rule.subsets[0].labels["version"], "v1");
        assert_eq!(rule.subsets[0].location.line, 11);
        assert_eq!(
            rule.subsets[1].traffic_policy.load_balancer,
            Some(LoadBalancer::Random)
        );
        assert_eq!(rule.subsets[1].traffic_policy.connect_timeout, None);
    }
}

#[test]
fn every_known_field_without_effect_is_listed() {
    let (_, report) = good_rule(
        "  host: a\n  trafficPolicy:\n    tls: {mode: ISTIO_MUTUAL}\n    outlierDetection: {}\n    \
         portLevelSettings: []\n    tunnel: {}\n    proxyProtocol: {}\n    retryBudget: {}\n    \
         loadBalancer: {consistentHash: {}, localityLbSetting: {}, warmup: {}, \
         warmupDurationSecs: 1s, zoneAwareLbSetting: {}}\n    connectionPool:\n      tcp: \
         {maxConnections: 1, tcpKeepalive: {}, maxConnectionDuration: 1s, idleTimeout: 1s}\n      \
         http: {http1MaxPendingRequests: 1, http2MaxRequests: 1, maxRequestsPerConnection: 1, \
         maxRetries: 1, idleTimeout: 1s, h2UpgradePolicy: UPGRADE, useClientProtocol: true, \
         maxConcurrentStreams: 1, http2KeepAlive: {}}",
    );
    assert_eq!(report.warnings, Vec::<String>::new());
    assert_eq!(report.unsupported.len(), 6 + 5 + 4 + 9, "{report:?}");
    assert!(
        report
            .unsupported
            .contains(&"spec.trafficPolicy.tls (line 7)".to_owned())
    );
}

#[test]
fn a_rule_for_some_clients_only_is_not_in_force_for_all() {
    let document = read(&rule(
        "  host: a\n  workloadSelector: {matchLabels: {b: c}}",
    ))
    .remove(0);
    assert_eq!(document.report.state, State::Ignored);
    assert!(
        document
            .report
            .reason
            .unwrap()
            .contains("workloadSelector is not supported")
    );
}

#[test]
fn a_rule_s_mistakes_are_told() {
    let refused = |spec: &str, field: &str, line, words| {
        assert_refused(&rule(spec), field, line, words);
    };
    refused("  subsets: []", "spec.host", 4, "is missing");
    refused("  host: ''", "spec.host", 5, "must not be empty");
    refused("  host: http://a", "spec.host", 5, "leave the scheme out");
    refused("  host: a:80", "spec.host", 5, "leave the port out");
    refused("  host: a.*.b", "spec.host", 5, "only be its first label");
    refused("  host: a b", "spec.host", 5, "letters, digits");
    refused(
        "  host: a\n  exportTo: ['~']",
        "spec.exportTo[0]",
        6,
        "for Services only",
    );
    refused(
        "  host: a\n  subsets:\n  - labels: {}",
        "spec.subsets[0].name",
        7,
        "is missing",
    );
    refused(
        "  host: a\n  subsets:\n  - name: ''",
        "spec.subsets[0].name",
        7,
        "not be empty",
    );
    refused(
        "  host: a\n  subsets:\n  - name: v1\n  - name: v1",
        "spec.subsets[1].name",
        8,
        "the first is on line 7",
    );
    refused(
        "  host: a\n  trafficPolicy: {loadBalancer: {simple: ROUNDROBIN}}",
        "spec.trafficPolicy.loadBalancer.simple",
        6,
        "did you mean `ROUND_ROBIN`?",
    );
    refused(
        "  host: a\n  trafficPolicy: {loadBalancer: {simple: RANDOM, consistentHash: {}}}",
        "spec.trafficPolicy.loadBalancer",
        6,
        "keep one",
    );
    refused(
        "  host: a\n  trafficPolicy: {connectionPool: {tcp: {connectTimeout: 30}}}",
        "spec.trafficPolicy.connectionPool.tcp.connectTimeout",
        6,
        "give it a unit, `30s`",
    );
}

#[test]
fn wildcard_hosts_are_fine() {
    for host in [
        "'*'",
        "'*.local'",
        "'*.a.svc.cluster.local'",
        "10.0.0.1",
        "a.b.",
        "'fd00::1'",
    ] {
        good_rule(&format!("  host: {host}"));
    }
}

#[test]
fn a_strayed_field_is_told_where_it_belongs() {
    let (_, report) = good_rule("  host: a\n  loadBalancer: {simple: RANDOM}\n  subset: []");
    assert_eq!(
        report.warnings,
        [
            "unknown field `spec.loadBalancer` (line 6): ignored; indent it below \
             `trafficPolicy`",
            "unknown field `spec.subset` (line 7): ignored; did you mean `subsets`?",
        ]
    );
}
