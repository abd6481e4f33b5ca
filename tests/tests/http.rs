//! What HTTP must come through as it is: HTTP/2, streams, trailers, upgrades, 100-continue.

use anyhow::{Context, Result};
use lab::Stage;
use lab::stage::{DEADLINE, SUBSETS, header};

/// Every request by the agent, whatever the port.
fn by_agent() -> String {
    format!(
        "{SUBSETS}---\n\
         apiVersion: networking.istio.io/v1\n\
         kind: VirtualService\n\
         metadata: {{name: echo}}\n\
         spec:\n  hosts: [echo]\n  http:\n    - route: [{{destination: {{host: echo, subset: v1}}}}]\n"
    )
}

fn stage(name: &str) -> Result<Stage> {
    Stage::ruled(name, &["v1"], &by_agent())
}

#[test]
fn http2_by_prior_knowledge_is_spoken_on_both_sides() -> Result<()> {
    let stage = stage("http2")?;
    let answers = stage.send(&["--http2", "-n", "20", "-c", "2", "http://echo:82/path?q=1"])?;
    for answer in &answers {
        assert_eq!(answer["status"], 200, "{answer:#}");
        assert_eq!(answer["version"], "HTTP/2.0");
        assert_eq!(answer["body"]["version"], "HTTP/2.0");
        let uri = answer["body"]["uri"].as_str().unwrap_or_default();
        assert!(uri.ends_with("/path?q=1"), "{uri}");
    }
    stage.metric_until("istio_requests_total", &[("response_code", "200")], 20.0)
}

#[test]
fn http2_is_recognised_where_the_port_does_not_say() -> Result<()> {
    let stage = stage("sniffed")?;
    for mode in [
        &["--http2", "http://echo:83/"][..],
        &["http://echo:83/"][..],
    ] {
        let answer = stage.ask(mode)?;
        assert_eq!(answer["status"], 200, "{mode:?}: {answer:#}");
        assert_eq!(answer["body"]["server"], "v1");
    }
    stage.metric_until("istio_requests_total", &[("response_code", "200")], 2.0)
}

#[test]
fn many_streams_of_one_http2_connection_all_end_well() -> Result<()> {
    let stage = stage("h2load")?;
    let arguments = ["-n", "2000", "-c", "4", "-m", "32", "http://echo:82/"];
    let output = stage
        .client
        .exec("h2load", arguments, DEADLINE * 2)?
        .success()?;
    assert!(
        output
            .stdout
            .contains("2000 succeeded, 0 failed, 0 errored, 0 timeout"),
        "{}",
        output.stdout
    );
    stage.metric_until("istio_requests_total", &[("response_code", "200")], 2000.0)
}

#[test]
fn big_bodies_pass_byte_by_byte_in_both_directions() -> Result<()> {
    let stage = stage("bodies")?;
    for protocol in [&["http://echo:80"][..], &["--http2", "http://echo:82"][..]] {
        let (flags, base) = (
            &protocol[..protocol.len() - 1],
            protocol[protocol.len() - 1],
        );
        let ask = |tail: &[&str], path: &str| -> Result<serde_json::Value> {
            let url = format!("{base}{path}");
            let mut words = flags.to_vec();
            words.extend(tail);
            words.push(&url);
            stage.ask(&words)
        };
        let down = ask(&[], "/?bytes=5000000")?;
        assert_eq!(
            (&down["length"], &down["stampedTo"]),
            (&5_000_000.into(), &5_000_000.into())
        );
        let up = ask(&["-X", "POST", "--body-bytes", "5000000"], "/")?;
        let seen = &up["body"];
        assert_eq!(
            (&seen["length"], &seen["stampedTo"]),
            (&5_000_000.into(), &5_000_000.into())
        );
        let both = ask(&["-X", "POST", "--body-bytes", "3000000"], "/stream")?;
        assert_eq!(
            (&both["length"], &both["stampedTo"]),
            (&3_000_000.into(), &3_000_000.into())
        );
    }
    Ok(())
}

#[test]
fn trailers_come_through_in_both_directions() -> Result<()> {
    let stage = stage("trailers")?;
    for protocol in [
        &["http://echo:80/?trailers=1"][..],
        &["--http2", "http://echo:82/?trailers=1"],
    ] {
        let mut words = vec![
            "-X",
            "POST",
            "--body",
            "hello",
            "-H",
            "te: trailers",
            "--trailer",
            "x-digest: abc",
        ];
        words.extend(protocol);
        let answer = stage.ask(&words)?;
        assert_eq!(answer["status"], 200, "{answer:#}");
        assert_eq!(
            header(&answer["body"]["trailers"], "x-digest"),
            Some("abc"),
            "{answer:#}"
        );
        assert_eq!(answer["body"]["body"], "hello");
        assert_eq!(
            header(&answer["trailers"], "x-checksum"),
            Some("of-the-end"),
            "{answer:#}"
        );
        assert_eq!(
            header(&answer["trailers"], "grpc-status"),
            Some("0"),
            "{answer:#}"
        );
    }
    Ok(())
}

#[test]
fn an_upgraded_connection_carries_bytes_until_each_side_ends() -> Result<()> {
    let stage = stage("upgrade")?;
    let command = lab::Pod::peer(["upgrade", "http://echo:80/chat", "--bytes", "3000000"])?;
    let report = stage.client.run(command, DEADLINE)?.json()?;
    assert_eq!(report["status"], 101, "{report:#}");
    assert_eq!(report["received"], 3_000_000, "{report:#}");
    assert_eq!(report["stampedTo"], 3_000_000, "{report:#}");
    Ok(())
}

#[test]
fn a_client_that_asks_before_it_sends_hears_from_the_server() -> Result<()> {
    let stage = stage("expect")?;
    let curl = |url: &str| -> Result<(String, String)> {
        let arguments = [
            "-sv",
            "--http1.1",
            "--expect100-timeout",
            "20",
            "-H",
            "Expect: 100-continue",
            "-d",
            "the body",
            url,
        ];
        let output = stage.client.exec("curl", arguments, DEADLINE)?.success()?;
        Ok((output.stdout, output.stderr))
    };
    let (body, log) = curl("http://echo/")?;
    assert!(log.contains("< HTTP/1.1 100 Continue"), "{log}");
    let report: serde_json::Value = serde_json::from_str(&body).context("the echo's report")?;
    assert_eq!(report["body"], "the body");
    // A server that refuses at once is not sent the body, and nobody else says "continue" for it. Not with
    // 417: to that curl answers with the same request once more.
    let (_, log) = curl("http://echo/?status=413&unread=1")?;
    assert!(log.contains("< HTTP/1.1 413"), "{log}");
    assert!(!log.contains("100 Continue"), "{log}");
    Ok(())
}

#[test]
fn hop_by_hop_headers_stop_and_all_others_pass() -> Result<()> {
    let stage = stage("headers")?;
    let answer = stage.ask(&[
        "-H",
        "connection: x-private, keep-alive",
        "-H",
        "x-private: 1",
        "-H",
        "x-twice: a",
        "-H",
        "x-twice: b",
        "-H",
        "x-empty:",
        "-H",
        "host: echo.default.svc.cluster.local",
        "http://echo/",
    ])?;
    let headers = &answer["body"]["headers"];
    assert_eq!(header(headers, "x-private"), None, "{headers:#}");
    assert_eq!(header(headers, "x-empty"), Some(""));
    assert_eq!(
        header(headers, "host"),
        Some("echo.default.svc.cluster.local")
    );
    let list = headers.as_array().context("no headers")?;
    let twice: Vec<_> = list
        .iter()
        .filter(|pair| pair[0] == "x-twice")
        .map(|pair| &pair[1])
        .collect();
    assert_eq!(twice, ["a", "b"]);
    Ok(())
}

#[test]
fn head_and_empty_answers_keep_the_connection() -> Result<()> {
    let stage = stage("head")?;
    for (method, url) in [
        ("HEAD", "http://echo/"),
        ("GET", "http://echo/?status=204"),
        ("GET", "http://echo/?status=304"),
    ] {
        let answers = stage.send(&["-n", "3", "-X", method, url])?;
        let locals: std::collections::BTreeSet<_> = answers
            .iter()
            .map(|answer| answer["local"].to_string())
            .collect();
        assert_eq!(locals.len(), 1, "{method} {url}: {answers:#?}");
        assert!(
            answers.iter().all(|answer| answer["length"] == 0),
            "{answers:#?}"
        );
    }
    Ok(())
}
