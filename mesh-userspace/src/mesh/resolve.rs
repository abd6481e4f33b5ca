//! Objects to a [`Snapshot`]: who there is, where services end, and what each namespace's clients see.

mod access;
mod balancing;
mod destination_rules;
mod destinations;
mod differences;
mod endpoints;
mod objects;
mod rules;
mod services;
mod views;
mod virtual_services;
mod ways;
mod workload_labels;
mod workloads;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

pub(super) use self::{
    destination_rules::DestinationRules,
    destinations::{DestinationResolver, Target},
    endpoints::selector_matches,
    objects::Objects,
    virtual_services::{MeshRule, VirtualServices},
};
use super::model::{DatagramFrontend, Frontend, Service, Snapshot, View, VirtualHost, Workload};
use crate::config::model::{Object, PodPlace};

/// What a snapshot is built for.
#[derive(Debug, Clone)]
pub struct BuildOptions {
    /// Pods whose `spec.nodeName` is this are local.
    pub node_name: String,
    /// `cluster.local` unless the mesh says otherwise.
    pub domain: String,
    /// Becomes [`Snapshot::version`].
    pub version: u64,
}

impl Snapshot {
    /// Resolves everything that `objects` say. The order of `objects` does not matter.
    pub fn build(objects: &[Arc<Object>], options: &BuildOptions) -> Self {
        let domain: Arc<str> = options.domain.to_ascii_lowercase().into();
        let objects = Objects::sort(objects);
        let access = access::AccessPolicies::new(&objects);
        let pods = workloads::build(&objects, &access, &options.node_name, &domain);
        let rules = VirtualServices::new(&objects, &domain);
        let destination_rules = DestinationRules::new(&objects, &domain);

        let workload_by_address = by_address(&pods);
        let mut services = services::build(&objects, &pods, &workload_by_address, &domain);
        let clients: BTreeSet<&str> = pods
            .iter()
            .map(|pod| pod.workload.name.namespace.as_ref())
            .collect();
        ways::decide(&mut services, &rules, &clients);
        balancing::decide(&mut services, &destination_rules);
        let services: BTreeMap<Arc<str>, Arc<Service>> = services
            .into_iter()
            .map(|service| (Arc::clone(&service.host), Arc::new(service)))
            .collect();

        let destinations = DestinationResolver::new(&services, &destination_rules);
        let views = views::build(&services, &rules, destinations, &clients);
        Self {
            version: options.version,
            policies: access.summaries(&pods),
            frontends: frontends(&services),
            datagram_frontends: datagram_frontends(&services),
            workloads: pods
                .into_iter()
                .map(|pod| (pod.workload.name.clone(), pod.workload))
                .collect(),
            domain,
            services,
            workload_by_address,
            views,
        }
    }

    /// What the clients of `namespace` see; `None` where no workload is.
    pub fn view(&self, namespace: &str) -> Option<&View> {
        self.views.get(namespace).map(AsRef::as_ref)
    }

    /// What answers for `host`, in any spelling that clients of `namespace` may use (lower case).
    pub fn virtual_host(&self, namespace: &str, host: &str) -> Option<&VirtualHost> {
        let view = self.view(namespace)?;
        view.hosts.get(host).map(AsRef::as_ref).or_else(|| {
            view.wildcard_hosts
                .iter()
                .find(|(suffix, _)| super::names::wildcard_covers(suffix, host))
                .map(|(_, virtual_host)| virtual_host.as_ref())
        })
    }
}

/// Pods of the host's namespace have no address of their own. Where two pods claim one address, a ready
/// one has it, then the first by name.
fn by_address(pods: &[workloads::PodEntry<'_>]) -> HashMap<IpAddr, Arc<Workload>> {
    let mut found: HashMap<IpAddr, Arc<Workload>> = HashMap::new();
    for pod in pods {
        if matches!(pod.object.place, Some(PodPlace::Cgroup(_))) {
            continue;
        }
        for address in &pod.workload.addresses {
            let taken = found
                .get(address)
                .is_some_and(|other| other.ready || !pod.workload.ready);
            if !taken {
                found.insert(*address, Arc::clone(&pod.workload));
            }
        }
    }
    found
}

/// Where two services claim one address and port, the first by host has it.
fn frontends(services: &BTreeMap<Arc<str>, Arc<Service>>) -> HashMap<SocketAddr, Frontend> {
    let mut frontends = HashMap::new();
    for service in services.values() {
        for address in &service.addresses {
            for (port, service_port) in service.ports.iter().enumerate() {
                frontends
                    .entry(SocketAddr::new(*address, service_port.number))
                    .or_insert_with(|| Frontend {
                        service: Arc::clone(service),
                        port,
                    });
            }
        }
    }
    frontends
}

/// As [`frontends`], of UDP ports.
fn datagram_frontends(
    services: &BTreeMap<Arc<str>, Arc<Service>>,
) -> HashMap<SocketAddr, DatagramFrontend> {
    let mut frontends = HashMap::new();
    for service in services.values() {
        for address in &service.addresses {
            for (port, datagram_port) in service.datagram_ports.iter().enumerate() {
                frontends
                    .entry(SocketAddr::new(*address, datagram_port.number))
                    .or_insert_with(|| DatagramFrontend {
                        service: Arc::clone(service),
                        port,
                    });
            }
        }
    }
    frontends
}
