use super::{ask, outcome, reviews};
use crate::mesh::{
    route::{
        HttpOutcome, RequestFacts, apply_request_headers, apply_response_headers,
        redirect_location, upstream_authority,
    },
    testing::{Request, workload},
};

#[test]
fn a_redirect_replaces_what_it_names() {
    let location = |redirect: &str, scheme: &str, authority: &str| {
        let snapshot = reviews(&format!("  - redirect: {redirect}\n"));
        let request = Request {
            authority: authority.to_owned(),
            ..ask("/old?q=1")
        };
        let facts = RequestFacts {
            scheme,
            ..request.facts(workload(&snapshot, "default/productpage-v1"))
        };
        let decision = crate::mesh::route::route_http(&snapshot, &facts);
        let HttpOutcome::Redirect(redirect) = decision.outcome else {
            panic!("{}", outcome(&decision));
        };
        (redirect.code, redirect_location(redirect, &facts))
    };
    for (redirect, scheme, authority, expected) in [
        (
            "{uri: /new}",
            "http",
            "reviews:9080",
            "http://reviews:9080/new?q=1",
        ),
        (
            "{uri: '/new?x=y'}",
            "http",
            "reviews",
            "http://reviews/new?x=y",
        ),
        (
            "{authority: other}",
            "http",
            "reviews:9080",
            "http://other/old?q=1",
        ),
        (
            "{port: 81}",
            "http",
            "reviews:9080",
            "http://reviews:81/old?q=1",
        ),
        (
            "{port: 80}",
            "http",
            "reviews:9080",
            "http://reviews/old?q=1",
        ),
        (
            "{port: 443}",
            "http",
            "reviews",
            "http://reviews:443/old?q=1",
        ),
        (
            "{scheme: https, port: 443}",
            "http",
            "reviews:9080",
            "https://reviews/old?q=1",
        ),
        (
            "{scheme: https}",
            "http",
            "reviews:80",
            "https://reviews/old?q=1",
        ),
        (
            "{scheme: https}",
            "http",
            "reviews:9080",
            "https://reviews:9080/old?q=1",
        ),
        (
            "{scheme: http}",
            "https",
            "reviews:443",
            "http://reviews/old?q=1",
        ),
        (
            "{uri: /new}",
            "http",
            "reviews:80",
            "http://reviews:80/new?q=1",
        ),
        (
            "{authority: other, port: 81}",
            "http",
            "reviews",
            "http://other:81/old?q=1",
        ),
    ] {
        assert_eq!(
            location(redirect, scheme, authority),
            (301, expected.to_owned()),
            "{redirect} for {scheme}://{authority}"
        );
    }
    assert_eq!(
        location("{uri: /x, redirectCode: 308}", "http", "reviews").0,
        308
    );
}

#[test]
fn a_direct_response_is_the_meshs_own() {
    let snapshot = reviews("  - directResponse: {status: 503, body: {string: later}}\n");
    let request = ask("/");
    let decision = request.decide(&snapshot);
    let HttpOutcome::DirectResponse(response) = decision.outcome else {
        panic!("{}", outcome(&decision));
    };
    assert_eq!(
        (response.status, response.body.as_deref()),
        (503, Some("later"))
    );
}

#[test]
fn headers_are_removed_then_set_then_added_by_route_and_destination() {
    let snapshot = reviews(
        "
  - headers:
      request:
        remove: [x-gone]
        set: {x-route: route, x-both: route}
        add: {x-many: route}
      response:
        set: {x-answer: route}
    route:
    - destination: {host: reviews, subset: v1}
      headers:
        request:
          remove: [x-also-gone]
          set: {x-both: destination}
          add: {x-many: destination}
        response:
          remove: [server]
",
    );
    let request = ask("/")
        .header("x-gone", "1")
        .header("x-also-gone", "1")
        .header("x-route", "client")
        .header("x-many", "client");
    let decision = request.decide(&snapshot);
    let route = decision.route.expect("a route");
    let HttpOutcome::Route([to]) = decision.outcome else {
        panic!("{}", outcome(&decision));
    };
    let mut headers = request.headers.clone();
    apply_request_headers(route, Some(to), &mut headers);
    let all = |name: &str| {
        let values = headers.get_all(name).iter();
        let values = values.map(|value| value.to_str().unwrap());
        values.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        (all("x-gone"), all("x-also-gone")),
        (String::new(), String::new())
    );
    assert_eq!(all("x-route"), "route");
    assert_eq!(all("x-both"), "destination");
    assert_eq!(all("x-many"), "client route destination");

    let mut answer = ask("/").header("server", "x").headers;
    apply_response_headers(route, Some(to), &mut answer);
    assert_eq!(answer.len(), 1);
    assert_eq!(answer["x-answer"], "route");
}

#[test]
fn a_host_edit_is_a_host_rewrite_and_the_routes_beats_the_destinations() {
    let authority = |route: &str, destination: &str| {
        let snapshot = reviews(&format!(
            "  - {route}\n    route:\n    - destination: {{host: reviews, subset: v1}}\n      {destination}\n"
        ));
        let request = ask("/");
        let decision = request.decide(&snapshot);
        let HttpOutcome::Route([to]) = decision.outcome else {
            panic!("{}", outcome(&decision));
        };
        upstream_authority(decision.route.expect("a route"), Some(to)).map(ToOwned::to_owned)
    };
    let of_destination = "headers: {request: {set: {Host: destination}}}";
    assert_eq!(
        authority("name: a", of_destination).as_deref(),
        Some("destination")
    );
    assert_eq!(
        authority("headers: {request: {set: {host: route}}}", of_destination).as_deref(),
        Some("route")
    );
    assert_eq!(
        authority("rewrite: {authority: rewrite}", of_destination).as_deref(),
        Some("rewrite")
    );
    assert_eq!(authority("name: a", "weight: 1"), None);
}
