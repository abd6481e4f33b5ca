use serde_json::json;

use super::{ExplainQuery, explain};
use crate::mesh::testing::Mesh;

fn query() -> ExplainQuery {
    serde_json::from_value(json!({
        "from": "default/productpage-v1",
        "url": "http://reviews:9080/",
    }))
    .expect("all else has a default")
}

#[test]
fn the_body_of_a_post_is_the_query() {
    let full = json!({
        "from": "default/productpage-v1",
        "gateway": "default/front",
        "method": "POST",
        "url": "http://reviews:9080/",
        "headers": [["end-user", "jason"]],
    });
    let read: ExplainQuery = serde_json::from_value(full.clone()).expect("a query");
    assert_eq!(read.headers, [("end-user".to_owned(), "jason".to_owned())]);
    assert_eq!(serde_json::to_value(&read).unwrap(), full);
    assert_eq!((query().method.as_str(), query().headers.len()), ("GET", 0));
}

#[test]
fn a_question_that_has_no_answer_says_what_is_wrong() {
    let snapshot = Mesh::bookinfo().snapshot();
    let refused = |change: &dyn Fn(&mut ExplainQuery)| {
        let mut query = query();
        change(&mut query);
        explain(&snapshot, &query)
            .expect_err("it has no answer")
            .to_string()
    };
    for (message, part) in [
        (
            refused(&|query| query.from = "productpage".to_owned()),
            "is not NAMESPACE/POD",
        ),
        (
            refused(&|query| query.from = "default/product".to_owned()),
            "no Pod default/product in the configuration; default has details-v1, productpage-v1",
        ),
        (
            refused(&|query| query.from = "nowhere/product".to_owned()),
            "namespace nowhere has no pods",
        ),
        (
            refused(&|query| query.url = "reviews:9080/".to_owned()),
            "no scheme; write http://HOST",
        ),
        (
            refused(&|query| query.url = "ftp://reviews".to_owned()),
            "must be http, https or tcp",
        ),
        (
            refused(&|query| query.url = "tcp://reviews".to_owned()),
            "no port; write tcp://HOST:PORT",
        ),
        (
            refused(&|query| query.url = "http://reviews:99999/".to_owned()),
            "must be a number from 1 to 65535",
        ),
        (
            refused(&|query| query.url = "http:///x".to_owned()),
            "URL \"http:///x\"",
        ),
        (
            refused(&|query| query.method = "GE T".to_owned()),
            "method \"GE T\"",
        ),
        (
            refused(&|query| query.headers = vec![("a b".to_owned(), String::new())]),
            "not a header name",
        ),
        (
            refused(&|query| query.headers = vec![("a".to_owned(), "\n".to_owned())]),
            "its value is not valid",
        ),
        (
            refused(&|query| query.gateway = Some("default/front".to_owned())),
            "handles no Gateways",
        ),
    ] {
        assert!(message.contains(part), "{message}");
    }
}
