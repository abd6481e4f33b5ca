//! Paths to answers: a pure function of the request and the state.

use std::net::IpAddr;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header, request::Parts, uri::Authority};

use super::{AdminState, answer::Answer, page, query};

/// What is served: path, method, one line for people. The page and the 404 are made from it.
pub const ENDPOINTS: &[(&str, &str, &str)] = &[
    ("/healthz", "GET", "200 while the process is alive"),
    (
        "/readyz",
        "GET",
        "200 once the configuration is in effect on every local pod; else 503 and why",
    ),
    (
        "/metrics",
        "GET",
        "Prometheus text, or OpenMetrics where the Accept header asks for it",
    ),
    (
        "/status",
        "GET",
        "the agent: version, uptime, pods, acceleration, programs",
    ),
    (
        "/config",
        "GET",
        "what became of each document: applied, rejected, ignored, and why",
    ),
    (
        "/config_dump",
        "GET",
        "the snapshot in force, and what became of each document",
    ),
    (
        "/services",
        "GET",
        "services with their ports, endpoints and the way to them",
    ),
    ("/workloads", "GET", "pods, local or not"),
    (
        "/routes",
        "GET",
        "the rules of each namespace's clients, resolved",
    ),
    ("/connections", "GET", "open connections"),
    (
        "/events",
        "POST",
        r#"connections opened, closed, failed, denied: {"after":0,"waitMs":1000}"#,
    ),
    ("/explain", "POST", "what would happen to a request"),
    (
        "/acceleration",
        "POST",
        r#"the kill switch: {"state":"on"} or {"state":"off"}"#,
    ),
];

/// A request with its body.
#[derive(Debug)]
pub struct Call {
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Bytes,
    listens_on: IpAddr,
}

impl Call {
    /// A request that came to the server's address `listens_on`.
    pub fn new(head: Parts, body: Bytes, listens_on: IpAddr) -> Self {
        let path = head.uri.path().to_owned();
        Self {
            method: head.method,
            path,
            headers: head.headers,
            body,
            listens_on,
        }
    }
}

/// Answers a request. May block for as long as the state does.
pub fn answer(state: &dyn AdminState, call: &Call) -> Answer {
    if let Some(refusal) = foreign(call) {
        return refusal;
    }
    let allowed = match call.path.as_str() {
        "/" => "GET",
        path => match ENDPOINTS.iter().find(|(known, ..)| *known == path) {
            Some((_, method, _)) => method,
            None => return unknown(path),
        },
    };
    if call.method != allowed {
        return Answer::failure(
            StatusCode::METHOD_NOT_ALLOWED,
            format!("{} {}: not a method of this path", call.method, call.path),
            format!("use {allowed}"),
        )
        .allowing(allowed);
    }
    match call.path.as_str() {
        "/" => Answer::new(
            StatusCode::OK,
            "text/html; charset=utf-8",
            page::render(&state.status()),
        ),
        "/healthz" => Answer::text(StatusCode::OK, "ok\n"),
        "/readyz" => match state.ready() {
            Ok(()) => Answer::text(StatusCode::OK, "ready\n"),
            Err(reason) => Answer::text(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
        },
        "/metrics" => metrics(state, &call.headers),
        "/explain" => query::explain(state, &call.body),
        "/events" => query::events(state, &call.body),
        "/acceleration" => query::set_acceleration(state, &call.body),
        path => query::read(state, path).unwrap_or_else(|| unknown(path)),
    }
}

fn unknown(path: &str) -> Answer {
    let paths: Vec<_> = ENDPOINTS.iter().map(|(path, ..)| *path).collect();
    Answer::failure(
        StatusCode::NOT_FOUND,
        format!("{path}: no such path"),
        format!("use one of {}", paths.join(", ")),
    )
}

/// Scrapers that know `OpenMetrics` name it in Accept (Prometheus: `application/openmetrics-text;…`).
fn metrics(state: &dyn AdminState, headers: &HeaderMap) -> Answer {
    let openmetrics = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|range| {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default();
            let refused = parts.any(|p| {
                p.strip_prefix("q=")
                    .is_some_and(|q| q.parse::<f32>().is_ok_and(|q| q <= 0.0))
            });
            media.eq_ignore_ascii_case("application/openmetrics-text") && !refused
        });
    let content_type = if openmetrics {
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    } else {
        "text/plain; version=0.0.4; charset=utf-8"
    };
    Answer::new(StatusCode::OK, content_type, state.metrics(openmetrics))
}

/// A web page that somebody on this machine looks at must not reach the agent through the browser:
/// neither by a request across origins, nor by a name that it made point at the loopback address.
fn foreign(call: &Call) -> Option<Answer> {
    let host = call
        .headers
        .get(header::HOST)
        .and_then(|value| value.to_str().ok());
    if call.listens_on.is_loopback()
        && let Some(host) = host
        && !is_local_name(host)
    {
        return Some(Answer::failure(
            StatusCode::FORBIDDEN,
            format!("Host {host}: not a name of the agent, which listens on loopback only"),
            "ask by address, or by localhost",
        ));
    }
    let origin = call.headers.get(header::ORIGIN)?;
    let same = host.is_some_and(|host| origin.as_bytes() == format!("http://{host}").as_bytes());
    (call.method != Method::GET && !same).then(|| {
        Answer::failure(
            StatusCode::FORBIDDEN,
            "a page of another origin sent this request",
            "send it from the command line: `meshctl`, or `curl`",
        )
    })
}

fn is_local_name(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else {
        return false;
    };
    let name = authority
        .host()
        .trim_start_matches('[')
        .trim_end_matches(']');
    name.parse::<IpAddr>().is_ok() || name.eq_ignore_ascii_case("localhost")
}
