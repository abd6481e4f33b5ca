use serde_json::json;

use super::{ask, assert_answer, http, routed, subset, with};
use crate::mesh::testing::Mesh;

const REVIEWS: &str = "http://reviews:9080/reviews/0";
const RATINGS: &str = "http://ratings:9080/ratings/0";

#[test]
fn without_rules_the_kernel_picks_among_all_versions() {
    let answer = ask(&Mesh::bookinfo().snapshot(), REVIEWS, &[]);
    let all = json!([{
        "host": "reviews.default.svc.cluster.local",
        "port": 9080,
        "weight": 100,
        "destinationRule": "default/reviews",
        // No rule asks for anything.
        "loadBalancer": "RANDOM",
        "endpoints": ["10.0.0.11:9080", "10.0.0.12:9080", "10.0.0.13:9080"],
    }]);
    assert_answer(answer, &routed("reviews", "direct", &all, json!({})));
}

#[test]
fn all_v1() {
    let snapshot = with(&http(
        "reviews",
        "  - route: [{destination: {host: reviews, subset: v1}}]\n",
    ));
    assert_answer(
        ask(&snapshot, REVIEWS, &[]),
        &routed(
            "reviews",
            "agent",
            &json!([subset("reviews", "v1", 100, "10.0.0.11:9080")]),
            json!({"virtualService": "default/reviews", "routeIndex": 0}),
        ),
    );
}

#[test]
fn jason_gets_v2_and_all_others_v1() {
    let snapshot = with(&http(
        "reviews",
        "
  - name: jason
    match: [{headers: {end-user: {exact: jason}}}]
    route: [{destination: {host: reviews, subset: v2}}]
  - route: [{destination: {host: reviews, subset: v1}}]
",
    ));
    assert_answer(
        ask(&snapshot, REVIEWS, &[("End-User", "jason")]),
        &routed(
            "reviews",
            "agent",
            &json!([subset("reviews", "v2", 100, "10.0.0.12:9080")]),
            json!({
                "virtualService": "default/reviews", "routeIndex": 0, "routeName": "jason", "matchIndex": 0,
            }),
        ),
    );
    assert_answer(
        ask(&snapshot, REVIEWS, &[("end-user", "rosa")]),
        &routed(
            "reviews",
            "agent",
            &json!([subset("reviews", "v1", 100, "10.0.0.11:9080")]),
            json!({"virtualService": "default/reviews", "routeIndex": 1}),
        ),
    );
}

#[test]
fn half_of_the_traffic_shifted() {
    let snapshot = with(&http(
        "reviews",
        "
  - route:
    - {destination: {host: reviews, subset: v1}, weight: 50}
    - {destination: {host: reviews, subset: v3}, weight: 50}
",
    ));
    assert_answer(
        ask(&snapshot, REVIEWS, &[]),
        &routed(
            "reviews",
            "agent",
            &json!([
                subset("reviews", "v1", 50, "10.0.0.11:9080"),
                subset("reviews", "v3", 50, "10.0.0.13:9080"),
            ]),
            json!({"virtualService": "default/reviews", "routeIndex": 0}),
        ),
    );
}

#[test]
fn a_delay_for_jason_and_an_abort_for_some() {
    let snapshot = with(&http(
        "ratings",
        "
  - match: [{headers: {end-user: {exact: jason}}}]
    fault: {delay: {percentage: {value: 100}, fixedDelay: 7s}}
    route: [{destination: {host: ratings, subset: v1}}]
  - fault: {abort: {percentage: {value: 0.5}, httpStatus: 500}, delay: {percent: 10, fixedDelay: 5s}}
    route: [{destination: {host: ratings, subset: v1}}]
",
    ));
    let to = json!([subset("ratings", "v1", 100, "10.0.0.3:9080")]);
    assert_answer(
        ask(&snapshot, RATINGS, &[("end-user", "jason")]),
        &routed(
            "ratings",
            "agent",
            &to,
            json!({
                "virtualService": "default/ratings", "routeIndex": 0, "matchIndex": 0,
                "fault": {"delay": {"ms": 7000, "percentage": 100}},
            }),
        ),
    );
    assert_answer(
        ask(&snapshot, RATINGS, &[]),
        &routed(
            "ratings",
            "agent",
            &to,
            json!({
                "virtualService": "default/ratings", "routeIndex": 1,
                "fault": {
                    "delay": {"ms": 5000, "percentage": 10},
                    "abort": {"status": 500, "percentage": 0.5},
                },
            }),
        ),
    );
}

#[test]
fn retries_with_a_limit_for_each_try_and_one_for_all() {
    let snapshot = with(&http(
        "ratings",
        "
  - route: [{destination: {host: ratings, subset: v1}}]
    timeout: 0.5s
    retries: {attempts: 3, perTryTimeout: 2s, retryOn: 'gateway-error,503,5xx'}
",
    ));
    let to = json!([subset("ratings", "v1", 100, "10.0.0.3:9080")]);
    assert_answer(
        ask(&snapshot, RATINGS, &[]),
        &routed(
            "ratings",
            "agent",
            &to,
            json!({
                "virtualService": "default/ratings", "routeIndex": 0, "timeoutMs": 500,
                "retries": {
                    "attempts": 3, "perTryTimeoutMs": 2000, "retryOn": ["gateway-error", "503", "5xx"],
                },
            }),
        ),
    );
}

#[test]
fn a_service_without_a_rule_stays_direct_beside_one_that_has_one() {
    let snapshot = with(&http(
        "reviews",
        "  - route: [{destination: {host: reviews}}]\n",
    ));
    let answer = ask(&snapshot, "http://details:9080/details/0", &[]);
    assert_eq!(answer["way"], "direct");
    assert_eq!(answer["action"], "route");
    assert_eq!(
        answer["destinations"][0]["endpoints"],
        json!(["10.0.0.2:9080"])
    );
    assert!(answer.get("virtualService").is_none());
}
