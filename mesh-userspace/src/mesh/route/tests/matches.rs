use http::Method;

use super::{ask, matches, outcome, reviews};
use crate::mesh::testing::Request;

#[test]
fn a_uri_matches_by_its_path_alone() {
    for (block, path, expected) in [
        ("{uri: {exact: /a}}", "/a", true),
        ("{uri: {exact: /a}}", "/a?x=1", true),
        ("{uri: {exact: /a}}", "/a/", false),
        ("{uri: {exact: /a}}", "/A", false),
        ("{uri: {exact: /a}, ignoreUriCase: true}", "/A", true),
        ("{uri: {prefix: /v2}}", "/v2example", true),
        ("{uri: {prefix: /v2}}", "/V2", false),
        ("{uri: {prefix: /v2}, ignoreUriCase: true}", "/V2/x", true),
        ("{uri: {prefix: /v2}, ignoreUriCase: true}", "/v", false),
        ("{uri: {regex: '/v[12]'}}", "/v2", true),
        ("{uri: {regex: '/v[12]'}}", "/v2/x", false),
        ("{uri: {regex: '/v[12]'}}", "/x/v2", false),
        ("{uri: {regex: '/a|/b'}}", "/b", true),
        ("{uri: {regex: '/a|/b'}}", "/bc", false),
        (
            "{uri: {regex: '/v[12]'}, ignoreUriCase: true}",
            "/V2",
            false,
        ),
        ("{uri: {prefix: /a}}", "http://reviews:9080/a/b", true),
        ("{uri: {exact: /}}", "http://reviews:9080", true),
    ] {
        assert_eq!(matches(block, &ask(path)), expected, "{block} on {path}");
    }
}

#[test]
fn a_header_must_be_there_and_hold() {
    let header = |value: &str| ask("/").header("end-user", value);
    for (block, request, expected) in [
        (
            "{headers: {end-user: {exact: jason}}}",
            header("jason"),
            true,
        ),
        (
            "{headers: {end-user: {exact: jason}}}",
            header("Jason"),
            false,
        ),
        (
            "{headers: {End-User: {exact: jason}}}",
            header("jason"),
            true,
        ),
        ("{headers: {end-user: {exact: jason}}}", ask("/"), false),
        ("{headers: {end-user: {prefix: ja}}}", header("jason"), true),
        (
            "{headers: {end-user: {regex: 'j.*n'}}}",
            header("jason"),
            true,
        ),
        (
            "{headers: {end-user: {regex: 'j'}}}",
            header("jason"),
            false,
        ),
        ("{headers: {end-user: {}}}", header(""), true),
        ("{headers: {end-user: {}}}", ask("/"), false),
        ("{headers: {end-user: {regex: '.*'}}}", ask("/"), false),
        (
            "{headers: {end-user: {exact: 'a,b'}}}",
            header("a").header("end-user", "b"),
            true,
        ),
    ] {
        assert_eq!(
            matches(block, &request),
            expected,
            "{block} on {:?}",
            request.headers
        );
    }
}

#[test]
fn without_a_header_a_missing_one_counts_as_empty_unless_its_presence_is_meant() {
    let header = |value: &str| ask("/").header("x-test", value);
    for (block, request, expected) in [
        ("{withoutHeaders: {x-test: {}}}", ask("/"), true),
        ("{withoutHeaders: {x-test: {}}}", header(""), false),
        ("{withoutHeaders: {x-test: {regex: '*'}}}", ask("/"), true),
        (
            "{withoutHeaders: {x-test: {regex: '*'}}}",
            header("a"),
            false,
        ),
        ("{withoutHeaders: {x-test: {exact: a}}}", ask("/"), true),
        ("{withoutHeaders: {x-test: {exact: a}}}", header("a"), false),
        ("{withoutHeaders: {x-test: {exact: a}}}", header("b"), true),
        ("{withoutHeaders: {x-test: {regex: '.*'}}}", ask("/"), false),
        ("{withoutHeaders: {x-test: {regex: 'a+'}}}", ask("/"), true),
    ] {
        assert_eq!(
            matches(block, &request),
            expected,
            "{block} on {:?}",
            request.headers
        );
    }
}

#[test]
fn a_query_parameter_is_its_first_value_as_it_stands() {
    for (block, path, expected) in [
        ("{queryParams: {v: {exact: '2'}}}", "/?v=2", true),
        ("{queryParams: {v: {exact: '2'}}}", "/?a=1&v=2&v=3", true),
        ("{queryParams: {v: {exact: '2'}}}", "/?v=3&v=2", false),
        ("{queryParams: {v: {exact: '2'}}}", "/", false),
        ("{queryParams: {v: {exact: 'a b'}}}", "/?v=a%20b", false),
        ("{queryParams: {v: {regex: '[0-9]+'}}}", "/?v=12", true),
        ("{queryParams: {v: {regex: '[0-9]+'}}}", "/?v=12a", false),
        ("{queryParams: {v: {exact: ''}}}", "/?v", true),
    ] {
        assert_eq!(matches(block, &ask(path)), expected, "{block} on {path}");
    }
}

#[test]
fn method_scheme_and_authority_are_taken_as_received() {
    let post = Request {
        method: Method::POST,
        ..ask("/")
    };
    assert!(matches("{method: {exact: POST}}", &post));
    assert!(!matches("{method: {exact: GET}}", &post));
    assert!(matches("{scheme: {exact: http}}", &post));
    assert!(!matches("{scheme: {exact: https}}", &post));
    assert!(matches("{authority: {exact: 'reviews:9080'}}", &post));
    assert!(!matches("{authority: {prefix: Reviews}}", &post));
}

#[test]
fn the_source_and_the_dialled_port_are_the_clients() {
    for (block, expected) in [
        ("{sourceLabels: {app: productpage}}", true),
        ("{sourceLabels: {app: productpage, version: v2}}", false),
        ("{sourceNamespace: default}", true),
        ("{sourceNamespace: other}", false),
        ("{port: 9080}", true),
        ("{port: 9081}", false),
        ("{gateways: [mesh], sourceLabels: {app: nobody}}", true),
        ("{gateways: [front]}", false),
    ] {
        assert_eq!(matches(block, &ask("/")), expected, "{block}");
    }
}

#[test]
fn all_of_a_block_any_of_the_blocks_first_of_the_routes() {
    let snapshot = reviews(
        "
  - match:
    - {uri: {prefix: /a}, headers: {x: {exact: '1'}}}
    - {uri: {exact: /b}}
    route: [{destination: {host: reviews, subset: v1}}]
  - match: [{uri: {prefix: /a}}]
    route: [{destination: {host: reviews, subset: v2}}]
  - match: [{uri: {prefix: /}}]
    route: [{destination: {host: reviews, subset: v3}}]
  - route: [{destination: {host: ratings}}]
",
    );
    for (request, expected, route, matched) in [
        (ask("/a").header("x", "1"), "v1", 0, Some(0)),
        (ask("/b"), "v1", 0, Some(1)),
        (ask("/a"), "v2", 1, Some(0)),
        (ask("/c").header("x", "1"), "v3", 2, Some(0)),
    ] {
        let decision = request.decide(&snapshot);
        assert_eq!(outcome(&decision), expected);
        assert_eq!(decision.route.and_then(|route| route.index), Some(route));
        assert_eq!(decision.match_index, matched);
    }
}

#[test]
fn no_match_is_404_but_only_for_those_whom_the_rule_is_for() {
    let routes = |block: &str| {
        reviews(&format!(
            "  - match: [{block}]\n    route: [{{destination: {{host: reviews, subset: v2}}}}]\n"
        ))
    };
    let decide = |block: &str| outcome(&ask("/").decide(&routes(block)));
    assert_eq!(decide("{uri: {exact: /nowhere}}"), "404");
    let own = "reviews.default.svc.cluster.local";
    for block in [
        "{sourceLabels: {app: ratings}}",
        "{sourceNamespace: other}",
        "{port: 1}",
        "{gateways: [front]}",
    ] {
        assert_eq!(decide(block), own, "{block}: as if there were no rule");
    }
    let snapshot = routes("{uri: {exact: /nowhere}}");
    let decision = ask("/").decide(&snapshot);
    let rule = decision.rule.expect("it has the host all the same");
    assert_eq!(rule.name.to_string(), "default/reviews");
    assert!(decision.route.is_none());
}
