//! The snapshot for people and programs: what `/config_dump` and `meshctl services|workloads|routes` show.
//!
//! Field names are part of the contract: add, never rename.

mod policies;
mod routes;
mod services;
mod workloads;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use self::{
    policies::PolicyView,
    routes::{RouteDestinationView, RouteEntryView, RouteView},
    services::{EndpointView, PortView, ServiceView},
    workloads::WorkloadView,
};
use super::model::Snapshot;

/// Everything in force.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotView {
    /// Grows by one with each change.
    pub version: u64,
    /// `cluster.local` unless configured.
    pub domain: String,
    /// By host.
    pub services: Vec<ServiceView>,
    /// By namespace and name.
    pub workloads: Vec<WorkloadView>,
    /// By host and rule.
    pub routes: Vec<RouteView>,
    /// By kind, then in order of precedence.
    #[serde(default)]
    pub policies: Vec<PolicyView>,
}

impl SnapshotView {
    /// A view of a snapshot.
    pub fn of(snapshot: &Snapshot) -> Self {
        Self {
            version: snapshot.version,
            domain: snapshot.domain.to_string(),
            services: services(snapshot),
            workloads: workloads(snapshot),
            routes: routes(snapshot),
            policies: snapshot.policies.iter().map(PolicyView::of).collect(),
        }
    }
}

/// All services, by host.
pub fn services(snapshot: &Snapshot) -> Vec<ServiceView> {
    let services = snapshot.services.values();
    services.map(|service| ServiceView::of(service)).collect()
}

/// All pods, by namespace and name.
pub fn workloads(snapshot: &Snapshot) -> Vec<WorkloadView> {
    let workloads = snapshot.workloads.values();
    workloads.map(|pod| WorkloadView::of(pod)).collect()
}

/// The rules that act, by host and rule, each with the namespaces whose clients get it so.
pub fn routes(snapshot: &Snapshot) -> Vec<RouteView> {
    routes::of(snapshot)
}
