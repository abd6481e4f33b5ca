//! What happened, as Istio's metrics and an access log.
//!
//! Workers count in shards of their own ([`WorkerTelemetry`]); [`Telemetry::render`] sums them when it is
//! scraped. The number of series is bounded: what is new beyond [`SERIES_LIMIT`] per worker is counted
//! under labels that say `overflow`, so that totals stay true. Label values come from the configuration
//! and from status codes only, never from what a client sends.

pub mod access_log;
pub mod flags;
pub mod hash;
pub mod record;
mod render;
pub mod series;
mod worker;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

pub use self::{
    access_log::{AccessLog, AccessLogFormat},
    flags::ResponseFlags,
    record::{ConnectionRecord, RequestLine, RequestRecord, Target},
    series::{Peers, ServiceLabels, TcpKey, TcpTotals},
    worker::{HttpLabels, WorkerTelemetry},
};
use self::{
    render::Renderer,
    series::{HttpKey, HttpTotals},
    worker::{Shard, lock},
};
use crate::mesh::model::WorkloadLabels;

/// A label's value where nothing is known.
pub const UNKNOWN: &str = "unknown";
/// The value of all peers' labels in the series that takes what exceeds [`SERIES_LIMIT`].
pub const OVERFLOW: &str = "overflow";
/// HTTP series, and TCP series, per worker. An HTTP series takes 0.5 KiB.
pub const SERIES_LIMIT: usize = 10_000;

/// All that was counted, in all workers and by the kernel.
#[derive(Debug)]
pub struct Telemetry {
    shards: Mutex<Vec<Arc<Shard>>>,
    kernel_tcp: Mutex<HashMap<TcpKey, TcpTotals>>,
    access_log: Option<AccessLog>,
    series_limit: usize,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self::new(None)
    }
}

impl Telemetry {
    /// Nothing counted yet. Without an access log no line is ever formatted.
    pub fn new(access_log: Option<AccessLog>) -> Self {
        Self::with_series_limit(access_log, SERIES_LIMIT)
    }

    /// As [`Telemetry::new`] with a bound other than [`SERIES_LIMIT`].
    pub fn with_series_limit(access_log: Option<AccessLog>, series_limit: usize) -> Self {
        Self {
            shards: Mutex::default(),
            kernel_tcp: Mutex::default(),
            access_log,
            series_limit,
        }
    }

    /// A worker's own counters; call it once per worker.
    pub fn worker(&self) -> WorkerTelemetry {
        let shard = Arc::new(Shard::default());
        lock(&self.shards).push(shard.clone());
        WorkerTelemetry::new(shard, self.access_log.clone(), self.series_limit)
    }

    /// Sets what the kernel counted for a pair of workloads: totals since the maps exist, not increments.
    /// They are added to what the workers counted under the same labels.
    pub fn set_tcp(&self, key: TcpKey, totals: TcpTotals) {
        let mut kernel = lock(&self.kernel_tcp);
        if kernel.len() < self.series_limit || kernel.contains_key(&key) {
            kernel.insert(key, totals);
        }
    }

    /// Drops the kernel's totals for which `keep` is false (their workloads are gone).
    pub fn retain_tcp(&self, keep: impl FnMut(&TcpKey, &mut TcpTotals) -> bool) {
        lock(&self.kernel_tcp).retain(keep);
    }

    /// Appends every family, in Prometheus' text format or in `OpenMetrics`' without its `# EOF`.
    pub fn render(&self, out: &mut String, openmetrics: bool) {
        let mut renderer = Renderer { out, openmetrics };
        renderer.http(&self.http_totals());
        renderer.tcp(&self.tcp_totals());
        renderer.counter(
            "zerohop_access_log_dropped_total",
            "Lines of the access log that were dropped because its writer was behind.",
            self.access_log.as_ref().map_or(0, AccessLog::dropped),
        );
    }

    fn http_totals(&self) -> Vec<(HttpKey, HttpTotals)> {
        let mut totals: HashMap<HttpKey, HttpTotals> = HashMap::new();
        for shard in lock(&self.shards).iter() {
            for (key, series) in lock(&shard.http).iter() {
                totals.entry(key.clone()).or_default().add(series);
            }
        }
        totals.into_iter().collect()
    }

    fn tcp_totals(&self) -> Vec<(TcpKey, TcpTotals)> {
        let mut totals = lock(&self.kernel_tcp).clone();
        for shard in lock(&self.shards).iter() {
            for (key, series) in lock(&shard.tcp).iter() {
                totals
                    .entry(key.clone())
                    .or_default()
                    .add((&**series).into());
            }
        }
        totals.into_iter().collect()
    }
}

/// Labels of a workload that all say the same.
pub fn same_labels(value: &str) -> WorkloadLabels {
    let value: Arc<str> = value.into();
    WorkloadLabels {
        workload: value.clone(),
        canonical_service: value.clone(),
        canonical_revision: value.clone(),
        namespace: value.clone(),
        principal: value.clone(),
        app: value.clone(),
        version: value,
    }
}

#[cfg(test)]
mod tests;
