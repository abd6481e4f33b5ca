//! Which server a request goes to: headers, paths, methods, weights, subsets, rewrites.

use anyhow::Result;
use lab::Stage;
use lab::stage::{SUBSETS, by_server, server_of};

/// A VirtualService of echo with these `http` routes, and the subsets.
fn routes(http: &str) -> String {
    format!(
        "{SUBSETS}---\n\
         apiVersion: networking.istio.io/v1\n\
         kind: VirtualService\n\
         metadata: {{name: echo}}\n\
         spec:\n  hosts: [echo]\n  http:\n{http}"
    )
}

fn to(subset: &str) -> String {
    format!("      route: [{{destination: {{host: echo, subset: {subset}}}}}]\n")
}

#[test]
fn without_rules_the_kernel_spreads_connections_over_the_endpoints() -> Result<()> {
    let stage = Stage::new("no-rules", &["v1", "v2"])?;
    let answers = stage.send(&["-n", "60", "-c", "2", "--reconnect", "http://echo/"])?;
    let counts = by_server(&answers);
    assert_eq!(counts.len(), 2, "{counts:?}");
    assert_eq!(counts.values().sum::<usize>(), 60, "{counts:?}");
    let answer = stage.agent.explain("default/client", &[], "http://echo/")?;
    assert_eq!(answer["way"], "direct", "{answer:#}");
    Ok(())
}

#[test]
fn a_header_picks_the_subset() -> Result<()> {
    let http = format!(
        "    - match: [{{headers: {{end-user: {{exact: jason}}}}}}]\n{}    - name: rest\n{}",
        to("v2"),
        to("v1")
    );
    let stage = Stage::ruled("header", &["v1", "v2", "v3"], &routes(&http))?;
    let jason = stage.send(&["-n", "50", "-H", "end-user: jason", "http://echo/"])?;
    assert_eq!(by_server(&jason), [("v2".to_owned(), 50)].into());
    for header in ["end-user: jasonx", "end-user: Jason", "other: jason"] {
        let others = stage.send(&["-n", "20", "-H", header, "http://echo/"])?;
        assert_eq!(
            by_server(&others),
            [("v1".to_owned(), 20)].into(),
            "{header}"
        );
    }
    // On one connection, request by request: it is not the connection that is routed.
    let mixed = stage.send(&["-n", "40", "-H", "end-user: user-{n}", "http://echo/"])?;
    assert_eq!(by_server(&mixed), [("v1".to_owned(), 40)].into());
    Ok(())
}

#[test]
fn paths_methods_and_queries_pick_too_and_the_first_route_wins() -> Result<()> {
    let http = format!(
        "    - match:\n\
         \x20       - {{uri: {{exact: /exact}}, method: {{exact: POST}}}}\n\
         \x20       - {{uri: {{prefix: /two/}}}}\n{}\
         \x20   - match: [{{uri: {{regex: '/r[0-9]+'}}, ignoreUriCase: true}}]\n{}\
         \x20   - match: [{{uri: {{prefix: /}}}}]\n{}",
        to("v2"),
        to("v3"),
        to("v1")
    );
    let stage = Stage::ruled("match", &["v1", "v2", "v3"], &routes(&http))?;
    for (method, path, expected) in [
        ("POST", "/exact", "v2"),
        ("GET", "/exact", "v1"),
        ("POST", "/exact/more", "v1"),
        ("GET", "/two/x", "v2"),
        ("GET", "/two", "v1"),
        ("GET", "/r12", "v3"),
        ("GET", "/r12x", "v1"),
        ("GET", "/", "v1"),
    ] {
        let answer = stage.ask(&["-X", method, &format!("http://echo{path}")])?;
        assert_eq!(server_of(&answer), expected, "{method} {path}: {answer:#}");
    }
    Ok(())
}

#[test]
fn weights_split_the_requests() -> Result<()> {
    let http = "    - route:\n\
                \x20       - {destination: {host: echo, subset: v1}, weight: 80}\n\
                \x20       - {destination: {host: echo, subset: v3}, weight: 20}\n";
    let stage = Stage::ruled("weights", &["v1", "v2", "v3"], &routes(http))?;
    let counts = by_server(&stage.send(&["-n", "1000", "-c", "4", "http://echo/"])?);
    assert_eq!(counts.get("v2"), None, "{counts:?}");
    assert_eq!(counts.values().sum::<usize>(), 1000);
    // 200 are due; the standard deviation is 12.6, and this is six of them.
    let v3 = counts.get("v3").copied().unwrap_or_default();
    assert!((124..=276).contains(&v3), "{counts:?}");
    Ok(())
}

#[test]
fn a_rewrite_is_what_the_server_sees() -> Result<()> {
    let http = format!(
        "    - match: [{{uri: {{prefix: /old/}}}}]\n\
         \x20     rewrite: {{uri: /new/, authority: elsewhere.example}}\n{}",
        to("v1")
    );
    let stage = Stage::ruled("rewrite", &["v1"], &routes(&http))?;
    let answer = stage.ask(&["http://echo/old/page?x=1&y=%2F"])?;
    assert_eq!(answer["body"]["uri"], "/new/page?x=1&y=%2F", "{answer:#}");
    let host = lab::stage::header(&answer["body"]["headers"], "host");
    assert_eq!(host, Some("elsewhere.example"), "{answer:#}");
    Ok(())
}

#[test]
fn a_request_that_no_route_takes_is_not_found() -> Result<()> {
    let http = format!("    - match: [{{uri: {{prefix: /only}}}}]\n{}", to("v1"));
    let stage = Stage::ruled("unrouted", &["v1"], &routes(&http))?;
    assert_eq!(stage.ask(&["http://echo/only"])?["status"], 200);
    assert_eq!(stage.ask(&["http://echo/else"])?["status"], 404);
    let flags = [("response_code", "404"), ("response_flags", "NR")];
    stage.metric_until("istio_requests_total", &flags, 1.0)
}

#[test]
fn an_unknown_subset_or_host_is_unavailable_and_is_said_so() -> Result<()> {
    let http = "    - match: [{uri: {prefix: /subset}}]\n\
                \x20     route: [{destination: {host: echo, subset: v9}}]\n\
                \x20   - match: [{uri: {prefix: /host}}]\n\
                \x20     route: [{destination: {host: nobody.nowhere.svc.cluster.local}}]\n\
                \x20   - route: [{destination: {host: echo, subset: v1}}]\n";
    let stage = Stage::ruled("unknown", &["v1"], &routes(http))?;
    for path in ["/subset", "/host"] {
        let answer = stage.ask(&[&format!("http://echo{path}")])?;
        assert_eq!(answer["status"], 503, "{path}: {answer:#}");
        let answer = stage
            .agent
            .explain("default/client", &[], &format!("http://echo{path}"))?;
        assert_eq!(answer["action"], "noHealthyUpstream", "{answer:#}");
    }
    assert_eq!(stage.ask(&["http://echo/"])?["status"], 200);
    stage.metric_until("istio_requests_total", &[("response_flags", "NC")], 2.0)
}

#[test]
fn a_subset_without_pods_is_unavailable_until_one_comes() -> Result<()> {
    let stage = Stage::ruled(
        "empty",
        &["v1"],
        &routes(&format!("    - name: only\n{}", to("v2"))),
    )?;
    assert_eq!(stage.ask(&["http://echo/"])?["status"], 503);
    let late = stage
        .lab
        .pod(lab::PodSpec::new("echo-v2").app("echo", "v2"))?;
    late.serve(
        lab::Pod::peer(["echo", "--port", "8080", "--name", "late"])?,
        8080,
    )?;
    let answer = stage.ask_until(&["http://echo/"], |answer| answer["status"] == 200)?;
    assert_eq!(server_of(&answer), "late");
    Ok(())
}

#[test]
fn the_application_sees_the_addresses_that_it_would_without_a_mesh() -> Result<()> {
    let stage = Stage::ruled(
        "addresses",
        &["v1"],
        &routes(&format!("    - name: only\n{}", to("v1"))),
    )?;
    let dialled = format!("{}:80", stage.service.address);
    let client = stage.client.address().to_string();
    let by_agent = stage.ask(&["http://echo/"])?;
    assert_eq!(by_agent["peer"], dialled.as_str(), "{by_agent:#}");
    let seen = by_agent["body"]["client"].as_str().unwrap_or_default();
    assert!(
        seen.starts_with(&client),
        "the server sees {seen}, the client is {client}"
    );
    stage.rules(SUBSETS)?;
    let direct = stage.ask_until(&["http://echo/"], |_| {
        let answer = stage.agent.query("default/client", &[], "http://echo/");
        answer.is_ok_and(|answer| answer["way"] == "direct")
    })?;
    assert_eq!(direct["peer"], dialled.as_str(), "{direct:#}");
    let seen = direct["body"]["client"].as_str().unwrap_or_default();
    assert!(
        seen.starts_with(&client),
        "the server sees {seen}, the client is {client}"
    );
    Ok(())
}

#[test]
fn requests_are_counted_with_both_ends_and_their_code() -> Result<()> {
    let stage = Stage::ruled(
        "counted",
        &["v1"],
        &routes(&format!("    - name: only\n{}", to("v1"))),
    )?;
    stage.send(&["-n", "30", "http://echo/"])?;
    stage.send(&["-n", "7", "http://echo/?status=418"])?;
    let ends = [
        ("source_workload", "client"),
        ("destination_service", "echo.default.svc.cluster.local"),
        ("destination_service_name", "echo"),
        ("destination_version", "v1"),
        ("reporter", "source"),
        ("request_protocol", "http"),
    ];
    for (code, count) in [("200", 30.0), ("418", 7.0)] {
        let mut labels = ends.to_vec();
        labels.push(("response_code", code));
        stage.metric_until("istio_requests_total", &labels, count)?;
    }
    stage.metric_until("istio_request_duration_milliseconds_count", &ends, 37.0)
}
