//! Delays, aborts, timeouts and retries.

use anyhow::Result;
use lab::Stage;
use lab::stage::{SUBSETS, by_server};

/// One route to v1 with these fields (each line indented by six).
fn route_with(fields: &str) -> String {
    format!(
        "{SUBSETS}---\n\
         apiVersion: networking.istio.io/v1\n\
         kind: VirtualService\n\
         metadata: {{name: echo}}\n\
         spec:\n  hosts: [echo]\n  http:\n    - name: only\n{fields}\
         \x20     route: [{{destination: {{host: echo, subset: v1}}}}]\n"
    )
}

fn stage(name: &str, fields: &str) -> Result<Stage> {
    Stage::ruled(name, &["v1"], &route_with(fields))
}

fn milliseconds(answer: &serde_json::Value) -> f64 {
    answer["ms"].as_f64().unwrap_or_default()
}

#[test]
fn a_delay_holds_every_request_back_and_fails_none() -> Result<()> {
    for (name, percent) in [
        ("delay-new", "percentage: {value: 100}"),
        ("delay-old", "percent: 100"),
    ] {
        let fault = format!("      fault: {{delay: {{{percent}, fixedDelay: 400ms}}}}\n");
        let stage = stage(name, &fault)?;
        let answers = stage.send(&["-n", "6", "-c", "3", "http://echo/"])?;
        assert_eq!(by_server(&answers), [("v1".to_owned(), 6)].into());
        assert!(
            answers.iter().all(|answer| milliseconds(answer) >= 400.0),
            "{answers:#?}"
        );
        stage.metric_until("istio_requests_total", &[("response_flags", "DI")], 6.0)?;
    }
    Ok(())
}

#[test]
fn an_abort_answers_by_itself_as_often_as_it_says() -> Result<()> {
    let stage = stage(
        "abort",
        "      fault: {abort: {percentage: {value: 100}, httpStatus: 555}}\n",
    )?;
    let answers = stage.send(&["-n", "20", "http://echo/?id=aborted"])?;
    assert_eq!(by_server(&answers), [("555".to_owned(), 20)].into());
    stage.metric_until("istio_requests_total", &[("response_flags", "FI")], 20.0)?;
    stage.rules(&route_with(
        "      fault: {abort: {percent: 50, httpStatus: 555}}\n",
    ))?;
    let url = "http://echo/?id=half";
    stage.ask_until(&[url], |answer| answer["status"] == 200)?;
    let answers = stage.send(&["-n", "600", url])?;
    let counts = by_server(&answers);
    let aborted = counts.get("555").copied().unwrap_or_default();
    assert_eq!(counts.values().sum::<usize>(), 600);
    assert_eq!(counts.len(), 2, "{counts:?}");
    // 300 are due; the standard deviation is 12.2, and this is six of them.
    assert!((226..=374).contains(&aborted), "{counts:?}");
    // What was aborted never came to the server.
    stage.rules(&route_with(""))?;
    let after = stage.ask_until(&["http://echo/?id=aborted"], |answer| {
        answer["status"] == 200
    })?;
    let settled = after["body"]["tries"].as_u64().unwrap_or(u64::MAX);
    assert_eq!(settled, 1, "{after:#}");
    Ok(())
}

#[test]
fn a_timeout_ends_a_request_that_takes_too_long() -> Result<()> {
    let stage = stage("timeout", "      timeout: 300ms\n")?;
    assert_eq!(stage.ask(&["http://echo/"])?["status"], 200);
    let answer = stage.ask(&["http://echo/?delay=10000"])?;
    assert_eq!(answer["status"], 504, "{answer:#}");
    let took = milliseconds(&answer);
    assert!((300.0..10_000.0).contains(&took), "{took} ms");
    stage.metric_until("istio_requests_total", &[("response_flags", "UT")], 1.0)
}

#[test]
fn a_failed_try_is_tried_again_as_often_as_it_says() -> Result<()> {
    let stage = stage("retries", "      retries: {attempts: 2, retryOn: 5xx}\n")?;
    let answer = stage.ask(&["http://echo/?fail=2&id=mended"])?;
    assert_eq!(
        (&answer["status"], &answer["body"]["tries"]),
        (&200.into(), &3.into()),
        "{answer:#}"
    );
    let answer = stage.ask(&["http://echo/?fail=9&id=hopeless"])?;
    assert_eq!(
        (&answer["status"], &answer["body"]["tries"]),
        (&503.into(), &3.into()),
        "{answer:#}"
    );
    stage.metric_until("istio_requests_total", &[("response_flags", "URX")], 1.0)?;
    // One record per request, however many tries it took.
    stage.metric_until("istio_requests_total", &[], 2.0)
}

#[test]
fn a_body_is_sent_again_with_every_try() -> Result<()> {
    let stage = stage("retry-body", "      retries: {attempts: 3, retryOn: 5xx}\n")?;
    let url = "http://echo/?fail=2&id=body";
    let answer = stage.ask(&["-X", "POST", "--body-bytes", "30000", url])?;
    assert_eq!(answer["status"], 200, "{answer:#}");
    assert_eq!(answer["body"]["tries"], 3);
    assert_eq!(answer["body"]["length"], 30_000);
    assert_eq!(answer["body"]["stampedTo"], 30_000);
    Ok(())
}

#[test]
fn by_default_an_answer_of_503_is_not_tried_again() -> Result<()> {
    let stage = stage("no-retries", "")?;
    let answer = stage.ask(&["http://echo/?fail=1&id=once"])?;
    assert_eq!(
        (&answer["status"], &answer["body"]["tries"]),
        (&503.into(), &1.into()),
        "{answer:#}"
    );
    Ok(())
}

#[test]
fn each_try_has_its_own_time() -> Result<()> {
    let retries = "      retries: {attempts: 2, perTryTimeout: 300ms, retryOn: 5xx}\n";
    let stage = stage("per-try", retries)?;
    let answer = stage.ask(&["http://echo/?delay=10000&id=slow"])?;
    assert_eq!(answer["status"], 504, "{answer:#}");
    let took = milliseconds(&answer);
    assert!(
        (900.0..10_000.0).contains(&took),
        "three tries of 300 ms took {took} ms"
    );
    let tries = stage.ask(&["http://echo/?id=slow"])?["body"]["tries"].clone();
    assert_eq!(tries, 4, "three tries and this one");
    Ok(())
}

#[test]
fn a_connection_that_is_refused_is_tried_elsewhere() -> Result<()> {
    let whole = "apiVersion: networking.istio.io/v1\n\
                 kind: VirtualService\n\
                 metadata: {name: echo}\n\
                 spec:\n  hosts: [echo]\n  http:\n    - route: [{destination: {host: echo}}]\n";
    let stage = Stage::ruled("refused", &["v1", "v2"], whole)?;
    // Its manifest stays, nobody listens any more.
    stage.servers[1].stop_servers();
    let answers = stage.send(&["-n", "40", "--reconnect", "http://echo/"])?;
    assert_eq!(by_server(&answers), [("v1".to_owned(), 40)].into());
    Ok(())
}
