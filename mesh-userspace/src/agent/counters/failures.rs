//! `zerohop_connect_failures_total`: connects that came to nothing.

use std::fmt::Write as _;

use mesh_common::{failure::cause_name, names::NameKind};

use super::{escaped, family};
use crate::{kernel::node::Kernel, telemetry::UNKNOWN};

/// Appends the family.
pub fn render(kernel: &Kernel, out: &mut String, openmetrics: bool) {
    let mut failures = match kernel.failures() {
        Ok(failures) => failures,
        Err(error) => {
            tracing::warn!(%error, "reading the kernel's count of failed connects");
            return;
        }
    };
    failures.sort_unstable_by_key(|(key, _)| (key.source, key.destination, key.service, key.cause));
    family(
        out,
        "zerohop_connect_failures",
        "Connects of enrolled pods that failed, by cause.",
        openmetrics,
    );
    let name = |kind, id| escaped(&kernel.name(kind, id).unwrap_or_else(|| UNKNOWN.into()));
    for (key, count) in failures {
        let _ = writeln!(
            out,
            "zerohop_connect_failures_total{{source=\"{}\",destination=\"{}\",service=\"{}\",\
             cause=\"{}\"}} {count}",
            name(NameKind::Workload, key.source),
            name(NameKind::Workload, key.destination),
            name(NameKind::Service, key.service),
            cause_name(key.cause),
        );
    }
}
