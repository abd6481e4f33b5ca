//! Answers as whole JSON, for Bookinfo's scenarios and the corners of the contract.

mod bookinfo;
mod contract;
mod questions;

use serde_json::{Value, json};

use super::{ExplainQuery, Explanation, explain};
use crate::mesh::{model::Snapshot, testing::Mesh};

/// A VirtualService of namespace `default` for the host of its name, from its `http` list.
fn http(name: &str, routes: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1alpha3\nkind: VirtualService\nmetadata: {{name: {name}}}\n\
         spec:\n  hosts: [{name}]\n  http:\n{routes}"
    )
}

/// Bookinfo with a rule.
fn with(rule: &str) -> Snapshot {
    Mesh::bookinfo().yaml(rule).snapshot()
}

/// What productpage's request gets, as JSON.
fn ask(snapshot: &Snapshot, url: &str, headers: &[(&str, &str)]) -> Value {
    let query = ExplainQuery {
        from: "default/productpage-v1".to_owned(),
        gateway: None,
        method: "GET".to_owned(),
        url: url.to_owned(),
        headers: headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
    };
    let answer = explain(snapshot, &query).expect("an answer");
    let value = serde_json::to_value(&answer).expect("JSON");
    let read: Explanation = serde_json::from_value(value.clone()).expect("what was written");
    assert_eq!(read, answer);
    value
}

/// The answer to a routed request: everything but what `more` says is as it always is.
fn routed(service: &str, way: &str, destinations: &Value, more: Value) -> Value {
    let mut expected = json!({
        "source": {
            "namespace": "default",
            "workload": "productpage-v1",
            "principal": "spiffe://cluster.local/ns/default/sa/default",
        },
        "service": format!("{service}.default.svc.cluster.local"),
        "port": 9080,
        "protocol": "http",
        "way": way,
        "action": "route",
        "destinations": destinations,
        "tls": "none",
    });
    if way == "agent" {
        expected["retries"] = json!({
            "attempts": 2,
            "retryOn": ["connect-failure", "refused-stream", "unavailable", "cancelled"],
        });
    }
    let (Value::Object(expected_fields), Value::Object(more)) = (&mut expected, more) else {
        panic!("not objects");
    };
    expected_fields.extend(more);
    expected
}

/// A subset of reviews or ratings.
fn subset(service: &str, subset: &str, weight: u32, endpoint: &str) -> Value {
    json!({
        "host": format!("{service}.default.svc.cluster.local"),
        "subset": subset,
        "port": 9080,
        "weight": weight,
        "destinationRule": format!("default/{service}"),
        "loadBalancer": "LEAST_REQUEST",
        "endpoints": [endpoint],
    })
}

/// Compares everything but the sentence for people, which must be there.
fn assert_answer(mut answer: Value, expected: &Value) {
    let reason = answer
        .as_object_mut()
        .and_then(|fields| fields.remove("reason"));
    assert!(
        reason.is_some_and(|reason| reason.as_str().is_some_and(|text| !text.is_empty())),
        "no reason in {answer}"
    );
    assert_eq!(&answer, expected, "\n{answer:#}\n{expected:#}");
}
