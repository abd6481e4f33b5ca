use serde_json::{Value, json};

use super::{ask, http, with};
use crate::mesh::{model::Snapshot, testing::Mesh};

fn reviews(routes: &str) -> Snapshot {
    with(&http("reviews", routes))
}

/// The fields named, `null` where absent.
fn only(answer: &Value, fields: &[&str]) -> Value {
    let fields = fields
        .iter()
        .map(|field| ((*field).to_owned(), answer[*field].clone()));
    Value::Object(fields.collect())
}

#[test]
fn what_a_rewrite_makes_of_this_very_request() {
    let snapshot = reviews(
        "
  - match: [{uri: {prefix: /reviews/}}]
    rewrite: {uri: /v1/, authority: other.example}
    route: [{destination: {host: reviews}}]
  - rewrite: {uriRegexRewrite: {match: '^/([a-z]+)/(.*)$', rewrite: '/\\2/\\1'}}
    route: [{destination: {host: reviews}}]
",
    );
    let rewrite = |url| ask(&snapshot, url, &[])["rewrite"].clone();
    assert_eq!(
        rewrite("http://reviews:9080/reviews/0?full=yes"),
        json!({"uri": "/v1/0?full=yes", "authority": "other.example"})
    );
    assert_eq!(rewrite("http://reviews:9080/a/b"), json!({"uri": "/b/a"}));
}

#[test]
fn header_operations_of_a_single_destination_join_the_routes() {
    let snapshot = reviews(
        "
  - headers:
      request: {set: {x-a: route, Host: rewritten}, remove: [x-r]}
      response: {add: {x-b: '1'}}
    route:
    - destination: {host: reviews, subset: v1}
      headers: {request: {set: {x-a: own}, add: {x-c: own}}}
",
    );
    let answer = ask(&snapshot, "http://reviews:9080/", &[]);
    assert_eq!(
        only(&answer, &["requestHeaders", "responseHeaders", "rewrite"]),
        json!({
            "requestHeaders": {"set": {"x-a": "own"}, "add": {"x-c": "own"}, "remove": ["x-r"]},
            "responseHeaders": {"set": {}, "add": {"x-b": "1"}, "remove": []},
            "rewrite": {"authority": "rewritten"},
        })
    );
}

#[test]
fn several_destinations_carry_their_own_operations() {
    let snapshot = reviews(
        "
  - route:
    - {destination: {host: reviews, subset: v1}, weight: 1, headers: {response: {set: {x-v: '1'}}}}
    - {destination: {host: reviews, subset: v2}, weight: 2}
    - {destination: {host: reviews, subset: v3}, weight: 0}
",
    );
    let answer = ask(&snapshot, "http://reviews:9080/", &[]);
    assert!(answer.get("responseHeaders").is_none());
    let to = answer["destinations"].as_array().expect("a list");
    assert_eq!(to.len(), 2, "zero weights are left out");
    assert_eq!(to[0]["responseHeaders"]["set"], json!({"x-v": "1"}));
    assert!(to[1].get("responseHeaders").is_none());
    assert_eq!((&to[0]["weight"], &to[1]["weight"]), (&json!(1), &json!(2)));
}

#[test]
fn answers_of_the_mesh_itself() {
    let snapshot = reviews(
        "
  - match: [{uri: {prefix: /moved}}]
    redirect: {uri: /new, redirectCode: 302}
  - match: [{uri: {prefix: /closed}}]
    directResponse: {status: 503, body: {string: later}}
  - match: [{uri: {prefix: /lost}}]
    route: [{destination: {host: reviews, subset: v9}}]
  - match: [{uri: {prefix: /nobody}}]
    route: [{destination: {host: nobody}}]
  - match: [{uri: {prefix: /port}}]
    route: [{destination: {host: reviews, port: {number: 1}}}]
",
    );
    let answer = |path: &str| ask(&snapshot, &format!("http://reviews:9080{path}"), &[]);
    let fields = ["action", "routeIndex", "redirect", "directResponse", "tls"];
    assert_eq!(
        only(&answer("/moved"), &fields),
        json!({
            "action": "redirect", "routeIndex": 0, "directResponse": null, "tls": null,
            "redirect": {"code": 302, "location": "http://reviews:9080/new"},
        })
    );
    assert_eq!(
        only(&answer("/closed"), &fields),
        json!({
            "action": "directResponse", "routeIndex": 1, "redirect": null, "tls": null,
            "directResponse": {"status": 503, "body": "later"},
        })
    );
    for path in ["/lost", "/nobody", "/port"] {
        let answer = answer(path);
        assert_eq!(answer["action"], "noHealthyUpstream", "{path}");
        assert_eq!(answer["destinations"][0]["endpoints"], json!([]), "{path}");
        assert!(
            answer["reason"].as_str().unwrap().contains("NC"),
            "{answer}"
        );
    }
    let unmatched = answer("/else");
    let fields = ["action", "virtualService", "routeIndex", "retries"];
    assert_eq!(
        only(&unmatched, &fields),
        json!({
            "action": "notFound", "virtualService": "default/reviews", "routeIndex": null,
            "retries": null,
        })
    );
}

#[test]
fn what_is_no_service_of_the_mesh_passes() {
    let snapshot = reviews("  - route: [{destination: {host: reviews}}]\n");
    for (url, part) in [
        (
            "http://10.0.0.11:9080/",
            "own address of pod default/reviews-v1",
        ),
        ("http://example.com/", "does not know example.com"),
        ("http://192.0.2.1:8080/", "does not know 192.0.2.1"),
        ("http://reviews:81/", "has no TCP port 81; it has 9080"),
        ("https://example.com/", "does not know example.com"),
    ] {
        let answer = ask(&snapshot, url, &[]);
        assert_eq!(
            only(&answer, &["way", "action", "service", "protocol", "tls"]),
            json!({
                "way": "pass", "action": "passthrough", "service": null, "protocol": null,
                "tls": "none",
            }),
            "{url}"
        );
        let reason = answer["reason"].as_str().unwrap();
        assert!(reason.contains(part), "{url}: {reason}");
    }
}

#[test]
fn a_bare_name_of_another_namespace_gets_a_hint() {
    let snapshot = Mesh::bookinfo()
        .service("shop/cart", "10.96.9.9", &[("http", 80)])
        .snapshot();
    let answer = ask(&snapshot, "http://cart/", &[]);
    let reason = answer["reason"].as_str().unwrap();
    assert!(reason.contains("did you mean cart.shop?"), "{reason}");
    assert_eq!(
        ask(&snapshot, "http://cart.shop/", &[])["service"],
        "cart.shop.svc.cluster.local"
    );
}

#[test]
fn tls_and_plain_tcp_see_no_http_routes() {
    let snapshot = reviews("  - route: [{destination: {host: reviews, subset: v2}}]\n");
    for url in ["https://reviews:9080/", "tcp://reviews:9080"] {
        let answer = ask(&snapshot, url, &[]);
        let fields = ["way", "action", "virtualService", "retries", "port"];
        assert_eq!(
            only(&answer, &fields),
            json!({
                "way": "agent", "action": "route", "virtualService": null, "retries": null,
                "port": 9080,
            }),
            "{url}"
        );
        assert_eq!(
            answer["destinations"][0]["endpoints"]
                .as_array()
                .map(Vec::len),
            Some(3)
        );
    }
}

#[test]
fn the_host_header_says_the_authority_where_the_agent_reads_it() {
    let snapshot = reviews("  - route: [{destination: {host: reviews, subset: v2}}]\n");
    let by_agent = ask(&snapshot, "http://reviews:9080/", &[("Host", "ratings")]);
    assert_eq!(by_agent["service"], "ratings.default.svc.cluster.local");
    assert!(by_agent.get("virtualService").is_none());
    let unknown = ask(
        &snapshot,
        "http://reviews:9080/",
        &[("host", "example.com")],
    );
    assert_eq!(
        only(&unknown, &["way", "action"]),
        json!({"way": "agent", "action": "passthrough"})
    );
    let by_kernel = ask(&snapshot, "http://details:9080/", &[("Host", "reviews")]);
    assert_eq!(
        only(&by_kernel, &["way", "service"]),
        json!({"way": "direct", "service": "details.default.svc.cluster.local"}),
        "the kernel goes by the address"
    );
}

#[test]
fn tcp_routes_are_told_like_http_ones() {
    let snapshot = Mesh::bookinfo()
        .service("default/mongodb", "10.96.0.9", &[("mongo", 27017)])
        .pod("default/mongodb-v1", "10.0.0.9", "app=mongodb")
        .yaml(
            "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: mongodb}
spec:
  hosts: [mongodb]
  tcp: [{match: [{port: 27017}], route: [{destination: {host: mongodb}}]}]
",
        )
        .snapshot();
    let answer = ask(&snapshot, "tcp://mongodb:27017", &[]);
    let fields = [
        "protocol",
        "way",
        "virtualService",
        "routeIndex",
        "matchIndex",
        "action",
    ];
    assert_eq!(
        only(&answer, &fields),
        json!({
            "protocol": "tcp", "way": "agent", "virtualService": "default/mongodb", "routeIndex": 0,
            "matchIndex": 0, "action": "route",
        })
    );
    assert_eq!(
        answer["destinations"][0]["endpoints"],
        json!(["10.0.0.9:27017"])
    );
}

#[test]
fn retries_that_are_off_say_so() {
    let snapshot =
        reviews("  - route: [{destination: {host: reviews}}]\n    retries: {attempts: 0}\n");
    let answer = ask(&snapshot, "http://reviews:9080/", &[]);
    assert_eq!(answer["retries"], json!({"attempts": 0, "retryOn": []}));
}

#[test]
fn a_service_whose_address_was_forgotten_answers_by_name() {
    let mesh = |address: &str| {
        Mesh::default()
            .pod("default/productpage-v1", "10.0.0.1", "app=web")
            .yaml(&format!(
                "
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec: {{ {address} selector: {{app: web}}, ports: [{{name: http, port: 80}}] }}
---
{}",
                http("web", "  - route: [{destination: {host: web}}]\n")
            ))
            .snapshot()
    };
    let forgotten = ask(&mesh(""), "http://web/", &[]);
    assert_eq!(
        only(&forgotten, &["way", "action", "virtualService"]),
        json!({"way": "agent", "action": "route", "virtualService": "default/web"})
    );
    assert!(forgotten["reason"].as_str().unwrap().contains("clusterIP"));
    let headless = ask(&mesh("clusterIP: None,"), "http://web/", &[]);
    assert_eq!(
        only(&headless, &["way", "action", "service"]),
        json!({
            "way": "direct", "action": "passthrough", "service": "web.default.svc.cluster.local",
        })
    );
}

#[test]
fn a_host_without_a_service_answers_on_port_80() {
    let snapshot = Mesh::bookinfo()
        .yaml(
            "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: outside}
spec:
  hosts: [api.example.com]
  http: [{route: [{destination: {host: reviews, subset: v1}}]}]
",
        )
        .snapshot();
    let answer = ask(&snapshot, "http://api.example.com/x", &[]);
    assert_eq!(
        only(
            &answer,
            &["way", "action", "virtualService", "service", "port"]
        ),
        json!({
            "way": "agent", "action": "route", "virtualService": "default/outside", "service": null,
            "port": 80,
        })
    );
    let elsewhere = ask(&snapshot, "http://api.example.com:8080/x", &[]);
    assert_eq!(elsewhere["action"], "passthrough");
}

fn authorized(spec: &str) -> Snapshot {
    Mesh::bookinfo()
        .yaml(&format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: it}}\n\
             spec: {spec}\n"
        ))
        .snapshot()
}

#[test]
fn a_denial_names_the_policy_that_decided() {
    let deny = "{action: DENY, selector: {matchLabels: {app: details}}, rules: [{}]}";
    let answer = ask(&authorized(deny), "http://details:9080/", &[]);
    assert_eq!(
        only(&answer, &["way", "action", "status"]),
        json!({"way": "deny", "action": "denied", "status": null})
    );
    assert_eq!(
        only(&answer["authorization"], &["decision", "policy"]),
        json!({"decision": "deny", "policy": "default/it"})
    );
    // By the pod's own address too, and nothing is said of a workload that nobody selects.
    let answer = ask(&authorized(deny), "tcp://10.0.0.2:9080", &[]);
    assert_eq!(answer["authorization"]["policy"], "default/it");
    assert_eq!(answer["action"], "denied");
    let answer = ask(&authorized(deny), "http://ratings:9080/", &[]);
    assert_eq!(answer["action"], "route");
    assert!(answer.get("authorization").is_none());
}

#[test]
fn an_implicit_deny_names_none_and_an_allow_does() {
    let answer = ask(&authorized("{}"), "http://details:9080/", &[]);
    assert_eq!(answer["authorization"]["decision"], "deny");
    assert!(answer["authorization"].get("policy").is_none());
    let allow = "{rules: [{from: [{source: {namespaces: [default]}}]}]}";
    let answer = ask(&authorized(allow), "http://details:9080/", &[]);
    assert_eq!(
        only(&answer["authorization"], &["decision", "policy"]),
        json!({"decision": "allow", "policy": "default/it"})
    );
    assert_eq!(answer["action"], "route");
}

#[test]
fn the_agent_answers_a_denied_request_with_403() {
    let deny = "{action: DENY, selector: {matchLabels: {version: v1}}, rules: [{}]}";
    let mesh = Mesh::bookinfo().yaml(&format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: it}}\n\
         spec: {deny}\n---\n{}",
        http(
            "reviews",
            "  - route: [{destination: {host: reviews, subset: v1}}]\n"
        )
    ));
    let answer = ask(&mesh.snapshot(), "http://reviews:9080/", &[]);
    assert_eq!(
        only(&answer, &["way", "action", "status"]),
        json!({"way": "agent", "action": "denied", "status": 403})
    );
}
