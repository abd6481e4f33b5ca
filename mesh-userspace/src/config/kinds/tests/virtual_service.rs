use std::time::Duration;

use super::{assert_refused, good, good_without_remarks};
use crate::config::model::{HttpMatch, HttpRoute, Report, Spec, StringMatch, VirtualService};

/// The spec begins on line 4.
fn rule(spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: a}}\nspec:\n\
         {spec}\n"
    )
}

/// A rule with one HTTP route, whose fields begin on line 7.
fn with_route(route: &str) -> String {
    rule(&format!(
        "  hosts: [a]\n  http:\n  - {}",
        route.replace('\n', "\n    ")
    ))
}

/// A rule whose route goes to `b` after these fields, which begin on line 7.
fn with_fields(fields: &str) -> String {
    with_route(&format!("{fields}\nroute: [{{destination: {{host: b}}}}]"))
}

fn virtual_service(text: &str) -> (VirtualService, Report) {
    let (object, report) = good(text);
    match object.spec.clone() {
        Spec::VirtualService(rule) => (rule, report),
        other => panic!("{other:?}"),
    }
}

fn good_fields(fields: &str) -> HttpRoute {
    let text = with_fields(fields);
    good_without_remarks(&text);
    virtual_service(&text).0.http.remove(0)
}

fn good_match(fields: &str) -> HttpMatch {
    good_fields(&format!("match: [{{{fields}}}]"))
        .matches
        .remove(0)
}

fn refused(fields: &str, field: &str, words: &str) {
    assert_refused(
        &with_fields(fields),
        &format!("spec.http[0].{field}"),
        7,
        words,
    );
}

fn remarks(text: &str) -> (Vec<String>, Vec<String>) {
    let report = virtual_service(text).1;
    (report.warnings, report.unsupported)
}

fn is_regex(found: Option<&StringMatch>, pattern: &str) -> bool {
    matches!(found, Some(StringMatch::Regex(regex)) if regex.as_str() == pattern)
}

fn assert_percentage(found: f64, expected: f64) {
    assert!((found - expected).abs() < f64::EPSILON, "{found}");
}

#[test]
fn a_route_s_actions_are_read() {
    let route = good_fields(
        "name: n\ntimeout: 1.5s\nretries: {attempts: 3, perTryTimeout: 250ms, retryOn: '5xx, 503', \
         backoff: 10ms}\nrewrite: {uri: /x, authority: 'c:80'}\nfault: {delay: {fixedDelay: 2s, \
         percentage: {value: 0.5}}, abort: {httpStatus: 418, percentage: {value: 100}}}",
    );
    assert_eq!(route.name.as_deref(), Some("n"));
    assert_eq!(route.location.line, 7);
    assert_eq!(route.timeout, Some(Duration::from_millis(1500)));
    let retries = route.retries.unwrap();
    assert_eq!(
        (retries.attempts, retries.retry_on),
        (3, vec!["5xx".to_owned(), "503".to_owned()])
    );
    assert_eq!(retries.per_try_timeout, Some(Duration::from_millis(250)));
    assert_eq!(retries.backoff, Some(Duration::from_millis(10)));
    let rewrite = route.rewrite.unwrap();
    assert_eq!(
        (rewrite.uri.as_deref(), rewrite.authority.as_deref()),
        (Some("/x"), Some("c:80"))
    );
    let fault = route.fault.unwrap();
    let delay = fault.delay.unwrap();
    assert_eq!(delay.duration, Duration::from_secs(2));
    assert_percentage(delay.percentage, 0.5);
    let abort = fault.abort.unwrap();
    assert_eq!(abort.status, 418);
    assert_percentage(abort.percentage, 100.0);
}

#[test]
fn destinations_are_read_with_weights_and_headers() {
    let text = with_route(
        "route:\n- destination: {host: b, subset: v1, port: {number: 80}}\n  weight: 90\n  headers: \
         {request: {set: {Host: c, X-A: '1'}, add: {x-b: '2'}, remove: [X-C]}}\n- destination: \
         {host: b.ns}\n  weight: 10",
    );
    good_without_remarks(&text);
    let route = virtual_service(&text).0.http.remove(0);
    let first = &route.destinations[0];
    assert_eq!(first.destination.location.line, 8);
    assert_eq!(first.destination.subset.as_deref(), Some("v1"));
    assert_eq!((first.destination.port, first.weight), (Some(80), 90));
    let operations = &first.headers.request;
    assert_eq!(operations.authority.as_deref(), Some("c"));
    assert_eq!(
        (operations.set[0].0.as_str(), operations.set[0].1.as_bytes()),
        ("x-a", &b"1"[..])
    );
    assert_eq!(
        (operations.add[0].0.as_str(), operations.remove[0].as_str()),
        ("x-b", "x-c")
    );
    assert_eq!(route.destinations[1].weight, 10);
}

#[test]
fn a_match_is_read() {
    let found = good_match(
        "name: m, uri: {prefix: /a}, ignoreUriCase: true, scheme: {exact: http}, method: {exact: \
         GET}, authority: {regex: 'a.*|b'}, headers: {End-User: {exact: jason}, x-any: {}}, \
         withoutHeaders: {x-b: {regex: '*'}, x-c: {prefix: d}}, queryParams: {Q: {exact: '1'}}, \
         port: 80, sourceLabels: {app: web}, sourceNamespace: ns, gateways: [mesh, ns/gw]",
    );
    assert_eq!(found.name.as_deref(), Some("m"));
    assert!(matches!(&found.uri, Some(StringMatch::Prefix(prefix)) if prefix == "/a"));
    assert!(found.ignore_uri_case);
    assert!(is_regex(found.authority.as_ref(), "^(?:a.*|b)$"));
    assert!(matches!(&found.headers[0], (name, Some(StringMatch::Exact(_))) if name == "end-user"));
    assert!(found.headers[1].1.is_none());
    assert!(
        found.without_headers[0].1.is_none(),
        "`*` there means present"
    );
    assert!(found.without_headers[1].1.is_some());
    assert_eq!(found.query_params[0].0, "Q");
    assert_eq!(
        (found.port, found.source_namespace.as_deref()),
        (Some(80), Some("ns"))
    );
    assert_eq!(found.source_labels["app"], "web");
    assert_eq!(found.gateways, ["mesh", "ns/gw"]);
    assert!(!found.is_catch_all());
    assert!(good_match("").is_catch_all());
}

#[test]
fn a_regular_expression_matches_the_whole_value() {
    let Some(StringMatch::Regex(regex)) = good_match("uri: {regex: 'a|b+'}").uri else {
        panic!("a regex");
    };
    assert!(regex.is_match("bb") && !regex.is_match("ab") && !regex.is_match("xa"));
}

#[test]
fn bad_matches_are_refused() {
    refused(
        "match: [{headers: {a: {regex: '*'}}}]",
        "match[0].headers[a].regex",
        "write `.*`",
    );
    refused(
        "match: [{uri: {regex: 'a)(b'}}]",
        "match[0].uri.regex",
        "no regular expression",
    );
    refused(
        "match: [{uri: {regex: '(?=a)'}}]",
        "match[0].uri.regex",
        "RE2 syntax",
    );
    refused(
        "match: [{uri: {regex: 'a{1000}{1000}'}}]",
        "match[0].uri.regex",
        "too large",
    );
    refused(
        "match: [{uri: {exact: /, prefix: /}}]",
        "match[0].uri",
        "more than one of",
    );
    refused(
        "match: [{uri: {exat: /}}]",
        "match[0].uri.exat",
        "use `exact`, `prefix` or `regex`",
    );
    refused(
        "match: [{uri: /a}]",
        "match[0].uri",
        "one of `exact`, `prefix`, `regex`",
    );
    refused(
        "match: [{headers: {a: }}]",
        "match[0].headers[a]",
        "write `{}` to match any",
    );
    refused(
        "match: [{headers: {'a b': {}}}]",
        "match[0].headers[a b]",
        "no name of a header",
    );
    refused(
        "match: [{headers: {a: {exact: 1}}}]",
        "match[0].headers[a].exact",
        "in quotes",
    );
    refused("match: [{port: 70000}]", "match[0].port", "from 1 to 65535");
    refused(
        "match: {uri: {exact: /}}",
        "match",
        "begin each item with `- `",
    );
    refused(
        "match: [{gateways: [a/b/c]}]",
        "match[0].gateways[0]",
        "no gateway",
    );
}

#[test]
fn header_keys_that_are_no_headers_are_ignored_with_a_warning() {
    let text = with_fields("match: [{headers: {uri: {exact: /a}, x: {}}}]");
    let (rule, report) = virtual_service(&text);
    assert_eq!(rule.http[0].matches[0].headers.len(), 1);
    assert!(
        report.warnings[0].contains("use the field `uri` beside `headers`"),
        "{report:?}"
    );
}

#[test]
fn both_spellings_of_a_percentage_are_read_and_the_old_one_is_warned_about() {
    let text = with_fields("fault: {delay: {fixedDelay: 1s, percent: 10}}");
    let (rule, report) = virtual_service(&text);
    let fault = rule.http[0].fault.as_ref().unwrap();
    assert_percentage(fault.delay.as_ref().unwrap().percentage, 10.0);
    assert_eq!(
        report.warnings,
        [
            "`spec.http[0].fault.delay.percent` (line 7) is deprecated: write `percentage: \
             {value: …}`"
        ]
    );
    let text = with_fields("fault: {abort: {httpStatus: 500}}");
    assert!(remarks(&text).0[0].contains("has no `percentage`: it is never injected"));
    refused(
        "fault: {abort: {httpStatus: 500, percentage: {value: 101}}}",
        "fault.abort.percentage.value",
        "a number from 0 to 100",
    );
    refused(
        "fault: {abort: {httpStatus: 500, percentage: 10}}",
        "fault.abort.percentage",
        "`percentage: {value: 10}`",
    );
}

#[test]
fn bad_actions_are_refused() {
    refused(
        "timeout: 0s",
        "timeout",
        "at least 1ms: leave the field out",
    );
    refused("timeout: 5", "timeout", "give it a unit, `5s`");
    refused("timeout: 1.0001s", "timeout", "finer than a millisecond");
    refused(
        "retries: {attempts: 0, perTryTimeout: 1s}",
        "retries.attempts",
        "switches retries off",
    );
    refused(
        "retries: {retryOn: 5xx}",
        "retries.attempts",
        "switches retries off",
    );
    refused("retries: {attempts: -1}", "retries.attempts", "from 0");
    refused(
        "retries: {attempts: 1, retryOn: conect-failure}",
        "retries.retryOn",
        "did you mean `connect-failure`?",
    );
    refused("fault: {}", "fault", "injects nothing");
    refused(
        "fault: {delay: {percentage: {value: 1}}}",
        "fault.delay.fixedDelay",
        "is missing",
    );
    refused(
        "fault: {abort: {httpStatus: 99}}",
        "fault.abort.httpStatus",
        "from 200 to 599",
    );
    refused(
        "fault: {abort: {percentage: {value: 1}}}",
        "fault.abort.httpStatus",
        "is missing",
    );
    refused("rewrite: {}", "rewrite", "changes nothing");
    refused(
        "rewrite: {uri: /, uriRegexRewrite: {match: a, rewrite: b}}",
        "rewrite.uriRegexRewrite",
        "can't be combined with `uri`",
    );
    refused(
        "rewrite: {uriRegexRewrite: {match: (a), rewrite: '\\2'}}",
        "rewrite.uriRegexRewrite.rewrite",
        "names group \\2, but `match` has 1",
    );
    refused(
        "headers: {request: {set: {'a b': c}}}",
        "headers.request.set[a b]",
        "no name",
    );
    refused(
        "redirect: {uri: /}",
        "redirect",
        "can't be combined with `route`",
    );
    refused(
        "delegate: {name: x}",
        "delegate",
        "can't be combined with `route`",
    );
}

#[test]
fn back_references_are_turned_into_the_regex_crate_s() {
    let route =
        good_fields("rewrite: {uriRegexRewrite: {match: '/(a)(b)', rewrite: '/\\2x$\\1\\\\'}}");
    let (pattern, replacement) = route.rewrite.unwrap().uri_regex.unwrap();
    assert_eq!(replacement, "/${2}x$$${1}\\");
    assert_eq!(pattern.replace("/ab", replacement.as_str()), "/bx$a\\");
}

#[test]
fn redirects_and_direct_responses_are_read() {
    let text = with_route(
        "redirect: {uri: /x, authority: c, scheme: https, port: 8443, redirectCode: 308}",
    );
    good_without_remarks(&text);
    let redirect = virtual_service(&text).0.http.remove(0).redirect.unwrap();
    assert_eq!((redirect.code, redirect.port), (308, Some(8443)));
    let text = with_route("redirect: {uri: /x}");
    assert_eq!(
        virtual_service(&text).0.http[0]
            .redirect
            .as_ref()
            .unwrap()
            .code,
        301
    );
    let text = with_route("directResponse: {status: 503, body: {string: no}}");
    let response = virtual_service(&text)
        .0
        .http
        .remove(0)
        .direct_response
        .unwrap();
    assert_eq!(
        (response.status, response.body.as_deref()),
        (503, Some("no"))
    );
}

#[test]
fn bad_redirects_and_direct_responses_are_refused() {
    let refused = |route: &str, field: &str, words| {
        assert_refused(
            &with_route(route),
            &format!("spec.http[0].{field}"),
            7,
            words,
        );
    };
    refused(
        "redirect: {uri: /, redirectCode: 304}",
        "redirect.redirectCode",
        "301, 302, 303",
    );
    refused("redirect: {}", "redirect", "changes nothing");
    refused(
        "redirect: {uri: /, scheme: ftp}",
        "redirect.scheme",
        "one of http, https",
    );
    refused(
        "{redirect: {uri: /}, fault: {abort: {httpStatus: 500, percentage: {value: 1}}}}",
        "fault",
        "can't be combined with `redirect`",
    );
    refused(
        "{redirect: {uri: /}, directResponse: {status: 200}}",
        "directResponse",
        "can't be combined with `redirect`",
    );
    refused(
        "directResponse: {status: 100}",
        "directResponse.status",
        "from 200 to 599",
    );
    refused(
        "directResponse: {body: {string: x}}",
        "directResponse.status",
        "is missing",
    );
}

#[test]
fn a_route_that_says_nothing_to_do_is_refused() {
    let text = with_route("name: x");
    assert_refused(&text, "spec.http[0]", 7, "it needs `route`, `redirect`");
    let text = with_route("destination: {host: b}");
    assert_refused(
        &text,
        "spec.http[0]",
        7,
        "`destination` (line 7) belongs to an item of `route`",
    );
}

#[test]
fn weights_are_checked_as_a_whole() {
    let route = |first: &str, second: &str| {
        with_route(&format!(
            "route:\n- {{destination: {{host: b}}{first}}}\n- {{destination: {{host: c}}{second}}}"
        ))
    };
    assert_refused(
        &route("", ""),
        "spec.http[0].route",
        7,
        "give each its `weight`",
    );
    assert_refused(
        &route(", weight: 0", ""),
        "spec.http[0].route",
        7,
        "no weight",
    );
    assert_refused(
        &route(", weight: -1", ""),
        "spec.http[0].route[0].weight",
        8,
        "from 0",
    );
    good_without_remarks(&route(", weight: 1", ""));
    good_without_remarks(&with_route("route: [{destination: {host: b}, weight: 0}]"));
}

#[test]
fn bad_destinations_are_refused() {
    let refused = |destination: &str, field: &str, words| {
        let text = with_route(&format!("route: [{{destination: {destination}}}]"));
        assert_refused(
            &text,
            &format!("spec.http[0].route[0].destination{field}"),
            7,
            words,
        );
    };
    refused("{subset: v1}", ".host", "is missing");
    refused("{host: '*.a'}", ".host", "is a wildcard");
    refused("{host: a, port: 80}", ".port", "`port: {number: 9080}`");
    refused(
        "{host: a, port: {name: http}}",
        ".port.number",
        "is missing",
    );
    refused("{host: a, subset: ''}", ".subset", "must not be empty");
    refused("b", "", "is the text \"b\", but must be a block of fields");
    let missing = with_route("route: [{weight: 1}]");
    assert_refused(
        &missing,
        "spec.http[0].route[0].destination",
        7,
        "is missing",
    );
}

#[test]
fn hosts_gateways_and_visibility_are_checked() {
    let refused = |spec: &str, field: &str, words| {
        assert_refused(&rule(&format!("{spec}\n  tls: [{{}}]")), field, 5, words);
    };
    refused("  hosts: []", "spec.hosts", "name the hosts");
    refused("  hosts: [a/b]", "spec.hosts[0]", "leave the path");
    refused("  hosts: ['*']", "spec.hosts", "for gateways only");
    refused("  hosts: a", "spec.hosts", "begin each item");
    assert_refused(
        &rule("  gateways: [mesh]\n  http: []"),
        "spec.hosts",
        4,
        "is missing or empty",
    );
    good(&rule("  hosts: ['*']\n  gateways: [gw]\n  tls: [{}]"));
    let (_, report) = good(&rule("  hosts: [a, a]\n  tls: [{}]"));
    assert!(report.warnings[0].contains("names a twice"), "{report:?}");
}

#[test]
fn a_rule_without_routes_is_refused_and_told_about_strays() {
    assert_refused(
        &rule("  hosts: [a]"),
        "spec",
        4,
        "it needs `http`, `tls` or `tcp`",
    );
    assert_refused(
        &rule("  hosts: [a]\n  route: [{destination: {host: b}}]"),
        "spec",
        4,
        "`route` (line 6) belongs to an item of `http`",
    );
    let text = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\n\
                spec:\nhosts: [a]\nhttp: []\n";
    assert_refused(
        text,
        "spec",
        4,
        "`hosts` (line 5), `http` (line 6) at the top level",
    );
}

#[test]
fn strayed_and_misspelt_fields_are_warned_about() {
    let text = with_fields("uri: {prefix: /}\nretires: {attempts: 1}\nmatch: [{exact: x}]");
    assert_eq!(
        remarks(&text).0,
        [
            "unknown field `spec.http[0].match[0].exact` (line 9): ignored; it belongs below `uri` \
             or a header's name: indent it",
            "unknown field `spec.http[0].uri` (line 7): ignored; it belongs to an item of `match`: \
             indent it below one",
            "unknown field `spec.http[0].retires` (line 8): ignored; did you mean `retries`?",
        ]
    );
    let text = format!("{}host: x\nhttp: []\n", with_fields("timeout: 1s"));
    assert!(
        remarks(&text)
            .0
            .iter()
            .any(|warning| warning.contains("indent it below `spec`"))
    );
}

#[test]
fn every_known_field_without_effect_is_listed() {
    let text = with_fields(
        "mirror: {host: m}\nmirrors: []\nmirrorPercent: 1\nmirrorPercentage: {value: 1}\n\
         corsPolicy: {}\nretries: {attempts: 1, retryRemoteLocalities: true, \
         retryIgnorePreviousHosts: true}\nfault: {delay: {exponentialDelay: 1s, percentage: \
         {value: 1}}, abort: {grpcStatus: UNAVAILABLE, percentage: {value: 1}}}\nmatch: \
         [{statPrefix: x}]",
    );
    let (warnings, unsupported) = remarks(&text);
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(unsupported.len(), 10, "{unsupported:?}");
    assert!(unsupported.contains(&"spec.http[0].corsPolicy (line 11)".to_owned()));
}

#[test]
fn a_route_that_would_be_wrong_without_the_unsupported_is_left_out() {
    for (route, words) in [
        ("delegate: {name: x}", "`delegate` is not supported"),
        (
            "redirect: {uri: /, prefixRewrite: /x}",
            "its answer is not supported",
        ),
        (
            "directResponse: {status: 200, body: {bytes: eA==}}",
            "its answer is not supported",
        ),
        (
            "match: [{headers: {'@request.auth.claims[a]': {exact: b}}}]\n\
             route: [{destination: {host: b}}]",
            "none of its matches is supported",
        ),
    ] {
        let (rule, report) = virtual_service(&with_route(route));
        assert!(rule.http.is_empty(), "{route}");
        assert!(
            report.unsupported.iter().any(|field| field.contains(words)),
            "{report:?}"
        );
    }
    let text = with_fields("match: [{headers: {'@request.auth.claims[a]': {}}}, {port: 1}]");
    assert_eq!(
        virtual_service(&text).0.http[0].matches.len(),
        1,
        "the other match still counts"
    );
}

#[test]
fn tcp_routes_are_read_and_checked() {
    let text = rule(
        "  hosts: [a]\n  tcp:\n  - match: [{port: 9000, sourceLabels: {b: c}, sourceNamespace: ns, \
         gateways: [mesh]}]\n    route: [{destination: {host: b, port: {number: 1}}, weight: 1}]",
    );
    good_without_remarks(&text);
    let route = virtual_service(&text).0.tcp.remove(0);
    assert_eq!(
        (route.matches[0].port, route.location.line),
        (Some(9000), 7)
    );
    assert_eq!(route.destinations[0].destination.host, "b");
    let refused = |route: &str, field: &str, words| {
        assert_refused(
            &rule(&format!("  hosts: [a]\n  tcp:\n  - {route}")),
            field,
            7,
            words,
        );
    };
    refused("match: []", "spec.tcp[0].route", "needs destinations");
    refused("route: []", "spec.tcp[0].route", "needs destinations");
    refused(
        "route: [{destination: {host: b}}, {destination: {host: c}}]",
        "spec.tcp[0].route",
        "give each its `weight`",
    );
    let text = rule(
        "  hosts: [a]\n  tcp:\n  - match: [{sourceSubnet: 10.0.0.0/8}]\n    route: [{destination: \
         {host: b}}]",
    );
    let (rule, report) = virtual_service(&text);
    assert!(rule.tcp.is_empty());
    assert_eq!(report.unsupported.len(), 2, "{report:?}");
}

#[test]
fn headers_that_cannot_be_edited_are_left_alone_with_a_warning() {
    let text = with_fields("headers: {request: {add: {host: x}, remove: [':path', x-a]}}");
    let (rule, report) = virtual_service(&text);
    let operations = &rule.http[0].headers.request;
    assert_eq!((operations.add.len(), operations.remove.len()), (0, 1));
    assert_eq!(report.warnings.len(), 2);
}
