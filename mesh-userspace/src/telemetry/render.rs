//! The text that Prometheus scrapes.

use std::fmt::Write as _;

use super::series::{BUCKETS, HistogramTotal, HttpKey, HttpTotals, Peers, TcpKey, TcpTotals};
use crate::mesh::model::WorkloadLabels;

/// Writes the families in one of the two text formats.
pub struct Renderer<'a> {
    /// Where to.
    pub out: &'a mut String,
    /// `OpenMetrics` names a counter's family without `_total`.
    pub openmetrics: bool,
}

impl Renderer<'_> {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let family = if self.openmetrics {
            name.strip_suffix("_total").unwrap_or(name)
        } else {
            name
        };
        // Writing to a String can't fail.
        let _ = writeln!(self.out, "# HELP {family} {help}");
        let _ = writeln!(self.out, "# TYPE {family} {kind}");
    }

    /// A counter without labels.
    pub fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, "counter", help);
        let _ = writeln!(self.out, "{name} {value}");
    }

    /// `istio_requests_total` and the histograms.
    pub fn http(&mut self, series: &[(HttpKey, HttpTotals)]) {
        let labelled: Vec<(String, &HttpTotals)> = series
            .iter()
            .map(|(key, totals)| (http_labels(key), totals))
            .collect();
        self.family(
            "istio_requests_total",
            "counter",
            "Requests, by their answer.",
        );
        for (labels, totals) in &labelled {
            let count = totals.duration.count();
            let _ = writeln!(self.out, "istio_requests_total{{{labels}}} {count}");
        }
        self.histograms(
            "istio_request_duration_milliseconds",
            "From the request's head to the last byte of its answer.",
            labelled.iter().map(|(l, t)| (l.as_str(), &t.duration)),
        );
        self.histograms(
            "istio_request_bytes",
            "Size of requests, heads included.",
            labelled.iter().map(|(l, t)| (l.as_str(), &t.request_bytes)),
        );
        self.histograms(
            "istio_response_bytes",
            "Size of answers, heads included.",
            labelled
                .iter()
                .map(|(l, t)| (l.as_str(), &t.response_bytes)),
        );
    }

    fn histograms<'s>(
        &mut self,
        name: &str,
        help: &str,
        series: impl Iterator<Item = (&'s str, &'s HistogramTotal)>,
    ) {
        self.family(name, "histogram", help);
        for (labels, total) in series {
            let mut cumulative = 0;
            for (bucket, bound) in total.buckets.iter().zip(BUCKETS) {
                cumulative += bucket;
                let le = Thousandths(bound);
                let _ = writeln!(
                    self.out,
                    "{name}_bucket{{{labels},le=\"{le}\"}} {cumulative}"
                );
            }
            let (sum, count) = (Thousandths(total.sum), total.count());
            let _ = writeln!(self.out, "{name}_bucket{{{labels},le=\"+Inf\"}} {count}");
            let _ = writeln!(self.out, "{name}_sum{{{labels}}} {sum}");
            let _ = writeln!(self.out, "{name}_count{{{labels}}} {count}");
        }
    }

    /// `istio_tcp_*`.
    pub fn tcp(&mut self, series: &[(TcpKey, TcpTotals)]) {
        type Pick = fn(&TcpTotals) -> u64;
        let families: [(&str, &str, Pick); 4] = [
            (
                "istio_tcp_connections_opened_total",
                "Connections opened.",
                |t| t.opened,
            ),
            (
                "istio_tcp_connections_closed_total",
                "Connections closed.",
                |t| t.closed,
            ),
            (
                "istio_tcp_sent_bytes_total",
                "Bytes sent to the client.",
                |t| t.sent,
            ),
            (
                "istio_tcp_received_bytes_total",
                "Bytes received from the client.",
                |t| t.received,
            ),
        ];
        let labelled: Vec<(String, TcpTotals)> = series
            .iter()
            .map(|(key, totals)| (tcp_labels(key), *totals))
            .collect();
        for (name, help, pick) in families {
            self.family(name, "counter", help);
            for (labels, totals) in &labelled {
                let _ = writeln!(self.out, "{name}{{{labels}}} {}", pick(totals));
            }
        }
    }
}

/// Thousandths as a decimal number without a float in between.
struct Thousandths(u64);

impl std::fmt::Display for Thousandths {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.0 / 1000, self.0 % 1000) {
            (whole, 0) => write!(f, "{whole}"),
            (whole, 500) => write!(f, "{whole}.5"),
            (whole, rest) => write!(f, "{whole}.{rest:03}"),
        }
    }
}

fn http_labels(key: &HttpKey) -> String {
    let mut labels = peer_labels(&key.peers);
    label(&mut labels, "request_protocol", key.protocol.as_str());
    let _ = write!(labels, ",response_code=\"{}\"", key.code);
    match key.grpc_status {
        Some(status) => {
            let _ = write!(labels, ",grpc_response_status=\"{status}\"");
        }
        None => label(&mut labels, "grpc_response_status", ""),
    }
    let _ = write!(labels, ",response_flags=\"{}\"", key.flags);
    label(&mut labels, "connection_security_policy", super::UNKNOWN);
    labels
}

fn tcp_labels(key: &TcpKey) -> String {
    let mut labels = peer_labels(&key.peers);
    label(&mut labels, "request_protocol", "tcp");
    let _ = write!(labels, ",response_flags=\"{}\"", key.flags);
    label(&mut labels, "connection_security_policy", super::UNKNOWN);
    labels
}

fn peer_labels(peers: &Peers) -> String {
    let mut labels = String::with_capacity(768);
    labels.push_str("reporter=\"source\"");
    workload_labels(&mut labels, "source", &peers.source);
    workload_labels(&mut labels, "destination", &peers.destination);
    label(&mut labels, "destination_service", &peers.service.host);
    label(&mut labels, "destination_service_name", &peers.service.name);
    label(
        &mut labels,
        "destination_service_namespace",
        &peers.service.namespace,
    );
    labels
}

fn workload_labels(out: &mut String, side: &str, workload: &WorkloadLabels) {
    let values: [(&str, &str); 8] = [
        ("workload", &workload.workload),
        ("canonical_service", &workload.canonical_service),
        ("canonical_revision", &workload.canonical_revision),
        ("workload_namespace", &workload.namespace),
        ("principal", &workload.principal),
        ("app", &workload.app),
        ("version", &workload.version),
        ("cluster", super::UNKNOWN),
    ];
    for (name, value) in values {
        let _ = write!(out, ",{side}_{name}=\"");
        escaped(out, value);
        out.push('"');
    }
}

fn label(out: &mut String, name: &str, value: &str) {
    let _ = write!(out, ",{name}=\"");
    escaped(out, value);
    out.push('"');
}

fn escaped(out: &mut String, value: &str) {
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
}
