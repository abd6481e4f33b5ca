//! What became of queries, for metrics.

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicU64, Ordering},
};

/// Each query counts once.
#[derive(Debug, Default)]
pub struct DnsCounters {
    /// By the mesh.
    answered: AtomicU64,
    /// Passed on; by TCP, sent to the resolver, by UDP, its answer came back.
    forwarded: AtomicU64,
    /// Neither.
    failed: AtomicU64,
}

impl DnsCounters {
    /// The mesh answered.
    pub fn answered(&self) {
        self.answered.fetch_add(1, Ordering::Relaxed);
    }

    /// The pod's own resolver has it.
    pub fn forwarded(&self) {
        self.forwarded.fetch_add(1, Ordering::Relaxed);
    }

    /// There is no answer.
    pub fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// As a metrics family; OpenMetrics names the family, Prometheus' text format the sample.
    pub fn render(&self, out: &mut String, openmetrics: bool) {
        let suffix = if openmetrics { "" } else { "_total" };
        let _ = writeln!(
            out,
            "# HELP zerohop_dns_queries{suffix} Queries of enrolled pods to port 53, by what became of \
             them.\n# TYPE zerohop_dns_queries{suffix} counter"
        );
        for (outcome, count) in [
            ("answered", &self.answered),
            ("forwarded", &self.forwarded),
            ("failed", &self.failed),
        ] {
            let count = count.load(Ordering::Relaxed);
            let _ = writeln!(
                out,
                "zerohop_dns_queries_total{{outcome=\"{outcome}\"}} {count}"
            );
        }
    }
}
