//! Time series: what identifies one, and its counters.
//!
//! Each worker has counters of its own and is the only one that writes them, so that adding is a plain
//! load and store; a scrape reads them from another thread and sums over the workers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use super::flags::ResponseFlags;
use crate::mesh::model::{Service, WorkloadLabels};

/// Names a service in metrics.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceLabels {
    /// `destination_service`: the full host.
    pub host: Arc<str>,
    /// `destination_service_name`.
    pub name: Arc<str>,
    /// `destination_service_namespace`.
    pub namespace: Arc<str>,
}

impl ServiceLabels {
    /// The labels of a service.
    pub fn of(service: &Service) -> Self {
        Self {
            host: service.host.clone(),
            name: service.name.name.clone(),
            namespace: service.name.namespace.clone(),
        }
    }

    /// `unknown` in every place.
    pub fn unknown() -> Self {
        let unknown: Arc<str> = super::UNKNOWN.into();
        Self {
            host: unknown.clone(),
            name: unknown.clone(),
            namespace: unknown,
        }
    }

    /// Istio's name for what is sent to an address that belongs to no service.
    pub fn passthrough() -> Self {
        Self {
            host: super::UNKNOWN.into(),
            name: "PassthroughCluster".into(),
            namespace: super::UNKNOWN.into(),
        }
    }
}

/// `request_protocol` of an HTTP series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RequestProtocol {
    /// HTTP/1.x and HTTP/2.
    Http,
    /// `content-type: application/grpc…`.
    Grpc,
}

impl RequestProtocol {
    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
        }
    }
}

/// Who talked to whom.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Peers {
    /// The client's workload.
    pub source: WorkloadLabels,
    /// The server's workload, `unknown` where no endpoint was chosen.
    pub destination: WorkloadLabels,
    /// The service that was asked for.
    pub service: ServiceLabels,
}

/// What identifies a series of `istio_requests_total` and its siblings.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HttpKey {
    /// Who and whom.
    pub peers: Peers,
    /// `request_protocol`.
    pub protocol: RequestProtocol,
    /// `response_code`; 0 where the client left before there was one.
    pub code: u16,
    /// `grpc_response_status`.
    pub grpc_status: Option<u16>,
    /// `response_flags`.
    pub flags: ResponseFlags,
}

/// What identifies a series of `istio_tcp_*`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TcpKey {
    /// Who and whom.
    pub peers: Peers,
    /// `response_flags`.
    pub flags: ResponseFlags,
}

/// A counter with one writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds; only the owning worker may call it.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Upper bounds of Envoy's default histogram buckets, which Istio uses for milliseconds and bytes alike,
/// times 1000.
pub const BUCKETS: [u64; 19] = [
    500,
    1_000,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
    600_000_000,
    1_800_000_000,
    3_600_000_000,
];

/// A histogram with one writer. Values are in thousandths (microseconds for a duration in ms).
#[derive(Debug, Default)]
pub struct Histogram {
    /// Not cumulative; the last one is everything above the last bound.
    buckets: [Counter; BUCKETS.len() + 1],
    sum: Counter,
}

impl Histogram {
    /// Adds one observation, in thousandths.
    pub fn observe(&self, thousandths: u64) {
        let bucket = BUCKETS.iter().position(|bound| thousandths <= *bound);
        self.buckets[bucket.unwrap_or(BUCKETS.len())].add(1);
        self.sum.add(thousandths);
    }

    /// Adds what this one holds to `total`.
    pub fn add_to(&self, total: &mut HistogramTotal) {
        for (bucket, counter) in total.buckets.iter_mut().zip(&self.buckets) {
            *bucket += counter.get();
        }
        total.sum += self.sum.get();
    }
}

/// A histogram summed over the workers.
#[derive(Debug, Clone, Default)]
pub struct HistogramTotal {
    /// Not cumulative.
    pub buckets: [u64; BUCKETS.len() + 1],
    /// In thousandths.
    pub sum: u64,
}

impl HistogramTotal {
    /// How many observations.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

/// The counters of one HTTP series in one worker. Requests are counted by `duration`.
#[derive(Debug, Default)]
pub struct HttpSeries {
    /// `istio_request_duration_milliseconds`.
    pub duration: Histogram,
    /// `istio_request_bytes`.
    pub request_bytes: Histogram,
    /// `istio_response_bytes`.
    pub response_bytes: Histogram,
}

impl HttpSeries {
    /// Counts one request.
    pub fn observe(&self, duration: Duration, request_bytes: u64, response_bytes: u64) {
        self.duration
            .observe(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
        self.request_bytes
            .observe(request_bytes.saturating_mul(1000));
        self.response_bytes
            .observe(response_bytes.saturating_mul(1000));
    }
}

/// An HTTP series summed over the workers.
#[derive(Debug, Clone, Default)]
pub struct HttpTotals {
    /// `istio_request_duration_milliseconds`, in microseconds.
    pub duration: HistogramTotal,
    /// `istio_request_bytes`, in thousandths.
    pub request_bytes: HistogramTotal,
    /// `istio_response_bytes`, in thousandths.
    pub response_bytes: HistogramTotal,
}

impl HttpTotals {
    /// Adds a worker's counters.
    pub fn add(&mut self, series: &HttpSeries) {
        series.duration.add_to(&mut self.duration);
        series.request_bytes.add_to(&mut self.request_bytes);
        series.response_bytes.add_to(&mut self.response_bytes);
    }
}

/// The counters of one TCP series in one worker.
#[derive(Debug, Default)]
pub struct TcpSeries {
    /// `istio_tcp_connections_opened_total`.
    pub opened: Counter,
    /// `istio_tcp_connections_closed_total`.
    pub closed: Counter,
    /// `istio_tcp_sent_bytes_total`: to the client.
    pub sent: Counter,
    /// `istio_tcp_received_bytes_total`: from the client.
    pub received: Counter,
}

/// A TCP series summed over the workers, or as the kernel counted it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TcpTotals {
    /// Connections opened.
    pub opened: u64,
    /// Connections closed.
    pub closed: u64,
    /// Bytes to the client.
    pub sent: u64,
    /// Bytes from the client.
    pub received: u64,
}

impl TcpTotals {
    /// Adds another's counts.
    pub fn add(&mut self, other: Self) {
        self.opened += other.opened;
        self.closed += other.closed;
        self.sent += other.sent;
        self.received += other.received;
    }
}

impl From<&TcpSeries> for TcpTotals {
    fn from(series: &TcpSeries) -> Self {
        Self {
            opened: series.opened.get(),
            closed: series.closed.get(),
            sent: series.sent.get(),
            received: series.received.get(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_observation_on_a_bound_counts_below_it() {
        let histogram = Histogram::default();
        for value in [500, 501, 1_000, 3_600_000_001] {
            histogram.observe(value);
        }
        let mut total = HistogramTotal::default();
        histogram.add_to(&mut total);
        assert_eq!((total.buckets[0], total.buckets[1]), (1, 2));
        assert_eq!(total.buckets[BUCKETS.len()], 1);
        assert_eq!((total.count(), total.sum), (4, 3_600_002_002));
    }
}
