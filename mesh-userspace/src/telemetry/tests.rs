//! Counting and rendering, without a proxy.

use std::{rc::Rc, sync::Arc, time::Duration};

use super::*;
use crate::mesh::{
    model::Workload,
    testing::{Mesh, object_name},
};

fn source() -> Arc<Workload> {
    let snapshot = Mesh::bookinfo().snapshot();
    snapshot.workloads[&object_name("default/productpage-v1")].clone()
}

fn line() -> RequestLine {
    RequestLine {
        method: http::Method::GET,
        path: "/\"quoted\"".into(),
        version: http::Version::HTTP_11,
        authority: "reviews:9080".into(),
    }
}

fn finish(worker: &Rc<WorkerTelemetry>, source: &Arc<Workload>, code: u16) {
    let mut record = RequestRecord::start(worker.clone(), source.clone(), line);
    record.code = code;
    record.complete = true;
}

fn rendered(telemetry: &Telemetry) -> String {
    let mut out = String::new();
    telemetry.render(&mut out, false);
    out
}

fn values(text: &str, family: &str) -> Vec<u64> {
    let of_family = |line: &&str| line.starts_with(&format!("{family}{{"));
    let value = |line: &str| line.rsplit(' ').next().unwrap().parse().unwrap();
    text.lines().filter(of_family).map(value).collect()
}

#[test]
fn workers_are_summed_and_codes_are_not() {
    let telemetry = Telemetry::default();
    let source = source();
    for _ in 0..2 {
        let worker = Rc::new(telemetry.worker());
        for code in [200, 200, 503] {
            finish(&worker, &source, code);
        }
    }
    let text = rendered(&telemetry);
    let mut requests = values(&text, "istio_requests_total");
    requests.sort_unstable();
    assert_eq!(requests, [2, 4]);
    assert_eq!(
        values(&text, "istio_request_duration_milliseconds_count").len(),
        2
    );
    assert!(
        text.contains(r#"source_workload="productpage-v1""#),
        "{text}"
    );
    assert!(text.contains(r#"source_principal="spiffe://cluster.local/ns/default/sa/default""#));
    assert!(text.contains(r#"response_code="503",grpc_response_status="",response_flags="-""#));
}

#[test]
fn a_dropped_record_counts_once_and_says_that_the_client_left() {
    let telemetry = Telemetry::default();
    let worker = Rc::new(telemetry.worker());
    drop(RequestRecord::start(worker, source(), line));
    let text = rendered(&telemetry);
    assert_eq!(values(&text, "istio_requests_total"), [1]);
    assert!(text.contains(r#"response_code="0",grpc_response_status="",response_flags="DC""#));
}

#[test]
fn series_beyond_the_bound_are_counted_together() {
    let telemetry = Telemetry::with_series_limit(None, 3);
    let worker = Rc::new(telemetry.worker());
    let source = source();
    for code in 200..210 {
        finish(&worker, &source, code);
    }
    let text = rendered(&telemetry);
    assert_eq!(
        values(&text, "istio_requests_total").iter().sum::<u64>(),
        10,
        "none is lost"
    );
    let overflow = text
        .lines()
        .filter(|line| line.contains("source_workload=\"overflow\""));
    assert!(overflow.count() > 0, "{text}");
}

#[test]
fn what_the_kernel_counted_is_set_not_added() {
    let telemetry = Telemetry::default();
    let labels = same_labels("x");
    let key = TcpKey {
        peers: Peers {
            source: labels.clone(),
            destination: labels,
            service: ServiceLabels::unknown(),
        },
        flags: ResponseFlags::NONE,
    };
    for sent in [10, 30] {
        let totals = TcpTotals {
            opened: 1,
            closed: 0,
            sent,
            received: 5,
        };
        telemetry.set_tcp(key.clone(), totals);
    }
    let text = rendered(&telemetry);
    assert_eq!(values(&text, "istio_tcp_sent_bytes_total"), [30]);
    assert_eq!(values(&text, "istio_tcp_connections_opened_total"), [1]);
    telemetry.retain_tcp(|_, _| false);
    assert!(values(&rendered(&telemetry), "istio_tcp_sent_bytes_total").is_empty());
}

#[test]
fn openmetrics_names_a_counters_family_without_total() {
    let telemetry = Telemetry::default();
    finish(&Rc::new(telemetry.worker()), &source(), 200);
    let mut text = String::new();
    telemetry.render(&mut text, true);
    assert!(text.contains("# TYPE istio_requests counter\n"));
    assert!(text.contains("\nistio_requests_total{"));
    assert!(rendered(&telemetry).contains("# TYPE istio_requests_total counter\n"));
}

struct Lines(std::sync::mpsc::Sender<Vec<u8>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.send(bytes.to_vec()).map_err(std::io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_line_of_the_access_log_is_json_where_json_is_asked_for() {
    let (lines, written) = std::sync::mpsc::channel();
    let log = AccessLog::start(AccessLogFormat::Json, Lines(lines)).unwrap();
    let telemetry = Telemetry::new(Some(log));
    finish(&Rc::new(telemetry.worker()), &source(), 200);
    let line = written.recv_timeout(Duration::from_secs(30)).unwrap();
    let line: serde_json::Value = serde_json::from_slice(&line).unwrap();
    assert_eq!(line["response_code"], 200);
    assert_eq!(line["path"], "/\"quoted\"");
    assert_eq!(line["source"], "default/productpage-v1");
    assert_eq!(line["response_flags"], "-");
}

/// Blocks its writer's thread until the test lets go.
struct Stuck(std::sync::mpsc::Receiver<()>);

impl std::io::Write for Stuck {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        // An error means that the test is over.
        let _ = self.0.recv();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_log_that_nobody_reads_drops_lines_and_counts_them() {
    let (let_go, stuck) = std::sync::mpsc::channel();
    let log = AccessLog::start(AccessLogFormat::Text, Stuck(stuck)).unwrap();
    let telemetry = Telemetry::new(Some(log));
    let worker = Rc::new(telemetry.worker());
    let source = source();
    for _ in 0..20_000 {
        finish(&worker, &source, 200);
    }
    let text = rendered(&telemetry);
    let dropped = text
        .lines()
        .find_map(|line| line.strip_prefix("zerohop_access_log_dropped_total "))
        .unwrap();
    assert!(dropped.parse::<u64>().unwrap() > 10_000, "{dropped}");
    drop(let_go);
}
