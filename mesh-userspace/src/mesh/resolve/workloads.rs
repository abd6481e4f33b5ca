//! Pods to workloads: who they are, whether they run here, and what is set for them.

use std::sync::Arc;

use super::{access::AccessPolicies, objects::Objects, workload_labels};
use crate::{
    config::model::{FailurePolicy, Pod, PodDefaults},
    mesh::model::Workload,
};

/// A workload and the Pod that it was made from.
pub struct PodEntry<'o> {
    /// As the manifest says.
    pub object: &'o Pod,
    /// Resolved.
    pub workload: Arc<Workload>,
}

/// One entry per Pod, by namespace and name. Local is what runs on `node_name`, and what names no node
/// but a place.
pub fn build<'o>(
    objects: &Objects<'o>,
    access: &AccessPolicies<'_>,
    node_name: &str,
    domain: &str,
) -> Vec<PodEntry<'o>> {
    let nothing = PodDefaults::default();
    let mut entries = Vec::with_capacity(objects.pods.len());
    for pod in &objects.pods {
        let (meta, spec) = (pod.meta, pod.spec);
        let defaults = objects
            .pod_defaults
            .get(meta.name.namespace.as_ref())
            .copied()
            .unwrap_or(&nothing);
        let local = match &spec.node_name {
            Some(node) => node == node_name,
            None => spec.place.is_some(),
        };
        let principal: Arc<str> = format!(
            "spiffe://{domain}/ns/{}/sa/{}",
            meta.name.namespace, spec.service_account
        )
        .into();
        let access = access.of(&meta.name.namespace, &meta.labels);
        let workload = Workload {
            name: meta.name.clone(),
            addresses: spec.addresses.clone(),
            labels: meta.labels.clone(),
            service_account: spec.service_account.as_str().into(),
            principal: Arc::clone(&principal),
            local,
            place: spec.place.clone().filter(|_| local),
            ready: spec.ready,
            acceleration: setting(spec, defaults, |pod| pod.acceleration, |ns| ns.acceleration),
            acceleration_exclude_ports: setting(
                spec,
                defaults,
                |pod| pod.acceleration_exclude_ports.clone(),
                |ns| ns.acceleration_exclude_ports.clone(),
            ),
            // Where somebody cares who may connect, rules that are not applied are no small thing.
            failure_policy: spec.failure_policy.or(defaults.failure_policy).unwrap_or(
                match access {
                    Some(_) => FailurePolicy::Closed,
                    None => FailurePolicy::Open,
                },
            ),
            access,
            telemetry: workload_labels::of(&meta.name, &meta.labels, principal),
        };
        entries.push(PodEntry {
            object: spec,
            workload: Arc::new(workload),
        });
    }
    entries
}

/// The Pod's own word, else its Namespace's, else the default.
fn setting<T: Default>(
    pod: &Pod,
    namespace: &PodDefaults,
    own: impl Fn(&Pod) -> Option<T>,
    shared: impl Fn(&PodDefaults) -> Option<T>,
) -> T {
    own(pod).or_else(|| shared(namespace)).unwrap_or_default()
}
