//! A folder of manifests, read once: what `explain --config-dir` answers from.

use std::{
    io::{self, Write},
    net::{IpAddr, Ipv4Addr},
    path::Path,
    sync::Arc,
};

use super::error::CliError;
use crate::config::{
    self,
    model::{Object, Report, Spec, State},
};

/// The mesh's domain, unless its `ConfigMap` says otherwise.
pub const DOMAIN: &str = "cluster.local";

/// From 240.0.0.0/4, which nobody can have (RFC 1112, section 4).
const FIRST_ADDRESS: Ipv4Addr = Ipv4Addr::new(240, 0, 0, 1);

/// Reads the objects of a folder. What is rejected in it is mentioned on standard error, for it may be
/// what the question is about.
pub fn read(directory: &Path) -> Result<Vec<Arc<Object>>, CliError> {
    directory.read_dir().map_err(|source| CliError::Folder {
        path: directory.to_owned(),
        source,
    })?;
    let mut outcome = config::load_paths(&[directory.to_owned()]);
    let rejected = |report: &&Report| report.state == State::Rejected;
    for report in outcome.reports.iter().filter(rejected) {
        // Nowhere is left to say that standard error is closed.
        let _ = writeln!(io::stderr(), "meshctl: left out: {}", rejection(report));
    }
    allot_addresses(&mut outcome.objects);
    Ok(outcome.objects)
}

fn rejection(report: &Report) -> String {
    let reason = report.reason.as_deref().unwrap_or("rejected");
    format!(
        "{}:{}: {} {}: {reason}",
        report.file, report.line, report.kind, report.name
    )
}

/// Manifests that were written for a cluster leave a Service's address to its API server; without one
/// nobody could dial the service. So does this what the API server would do.
fn allot_addresses(objects: &mut [Arc<Object>]) {
    let mut next = u32::from(FIRST_ADDRESS);
    for object in objects {
        let lacks_address = matches!(
            &object.spec,
            Spec::Service(service)
                if service.cluster_ips.is_empty() && !service.headless && !service.selector.is_empty()
        );
        if lacks_address && let Spec::Service(service) = &mut Arc::make_mut(object).spec {
            service.cluster_ips.push(IpAddr::V4(next.into()));
            next += 1;
        }
    }
}
