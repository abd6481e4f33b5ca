//! Pods: who they are and what is set for them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    config::model::{Acceleration, FailurePolicy, PodPlace},
    mesh::model::Workload,
};

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadView {
    /// Its namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// The first is its own.
    pub addresses: Vec<String>,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// Name of the ServiceAccount.
    pub service_account: String,
    /// The SPIFFE id.
    pub principal: String,
    /// Runs on this node.
    pub local: bool,
    /// `netns:PATH` or `cgroup:PATH`; local pods only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// May get connections.
    pub ready: bool,
    /// `auto`, `on` or `off`.
    pub acceleration: String,
    /// Ports that stay plain TCP.
    pub acceleration_exclude_ports: Vec<u16>,
    /// `open` or `closed`.
    pub failure_policy: String,
    /// The owner's name, as metrics have it.
    pub workload: String,
    /// As metrics have it.
    pub canonical_service: String,
    /// As metrics have it.
    pub canonical_revision: String,
}

impl WorkloadView {
    pub(super) fn of(pod: &Workload) -> Self {
        Self {
            namespace: pod.name.namespace.to_string(),
            name: pod.name.name.to_string(),
            addresses: pod.addresses.iter().map(ToString::to_string).collect(),
            labels: pod.labels.clone(),
            service_account: pod.service_account.to_string(),
            principal: pod.principal.to_string(),
            local: pod.local,
            place: pod.place.as_ref().map(|place| match place {
                PodPlace::Netns(path) => format!("netns:{}", path.display()),
                PodPlace::Cgroup(path) => format!("cgroup:{}", path.display()),
            }),
            ready: pod.ready,
            acceleration: match pod.acceleration {
                Acceleration::Auto => "auto",
                Acceleration::On => "on",
                Acceleration::Off => "off",
            }
            .to_owned(),
            acceleration_exclude_ports: pod.acceleration_exclude_ports.clone(),
            failure_policy: match pod.failure_policy {
                FailurePolicy::Open => "open",
                FailurePolicy::Closed => "closed",
            }
            .to_owned(),
            workload: pod.telemetry.workload.to_string(),
            canonical_service: pod.telemetry.canonical_service.to_string(),
            canonical_revision: pod.telemetry.canonical_revision.to_string(),
        }
    }
}
