//! Where a service port ends: its `EndpointSlices` if there are any, else the pods that its selector matches.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::{objects::Objects, workloads::PodEntry};
use crate::{
    config::model::{EndpointSlice, Labels, ObjectName, Service, ServicePort, TargetPort},
    mesh::model::{Endpoint, Workload},
};

/// Whether `labels` have all that `selector` asks for.
pub fn selector_matches(selector: &Labels, labels: &Labels) -> bool {
    selector
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value))
}

/// Finds endpoints without walking all pods for each service.
pub struct EndpointFinder<'a, 'o> {
    pods: &'a [PodEntry<'o>],
    /// By namespace, label and value: indexes into `pods`.
    by_label: HashMap<(&'a str, &'a str, &'a str), Vec<usize>>,
    by_name: HashMap<&'a ObjectName, usize>,
    by_address: &'a HashMap<IpAddr, Arc<Workload>>,
    /// By namespace and service.
    slices: HashMap<(&'o str, &'o str), Vec<&'o EndpointSlice>>,
}

impl<'a, 'o> EndpointFinder<'a, 'o> {
    /// Indexes the pods and slices once.
    pub fn new(
        objects: &Objects<'o>,
        pods: &'a [PodEntry<'o>],
        by_address: &'a HashMap<IpAddr, Arc<Workload>>,
    ) -> Self {
        let mut by_label: HashMap<_, Vec<usize>> = HashMap::new();
        for (index, pod) in pods.iter().enumerate() {
            for (label, value) in &pod.workload.labels {
                let key = (
                    pod.workload.name.namespace.as_ref(),
                    label.as_str(),
                    value.as_str(),
                );
                by_label.entry(key).or_default().push(index);
            }
        }
        let mut slices: HashMap<_, Vec<&'o EndpointSlice>> = HashMap::new();
        for slice in &objects.slices {
            let key = (
                slice.meta.name.namespace.as_ref(),
                slice.spec.service.as_str(),
            );
            slices.entry(key).or_default().push(slice.spec);
        }
        Self {
            pods,
            by_label,
            by_name: pods
                .iter()
                .enumerate()
                .map(|(index, pod)| (&pod.workload.name, index))
                .collect(),
            by_address,
            slices,
        }
    }

    /// The endpoints of one port of a service: sorted, each address once, not-ready ones marked.
    pub fn of_port(
        &self,
        name: &ObjectName,
        service: &Service,
        port: &ServicePort,
    ) -> Arc<[Endpoint]> {
        let ipv4 = service
            .cluster_ips
            .iter()
            .any(IpAddr::is_ipv4)
            .then_some(true);
        let ipv4 = ipv4.or(service.cluster_ips.first().map(IpAddr::is_ipv4));
        self.of_family(name, service, port, ipv4)
    }

    /// The IPv6 endpoints of one port of a service that has both families.
    pub fn of_second_family(
        &self,
        name: &ObjectName,
        service: &Service,
        port: &ServicePort,
    ) -> Arc<[Endpoint]> {
        let ips = &service.cluster_ips;
        if ips.iter().any(IpAddr::is_ipv4) && ips.iter().any(IpAddr::is_ipv6) {
            self.of_family(name, service, port, Some(false))
        } else {
            Arc::default()
        }
    }

    fn of_family(
        &self,
        name: &ObjectName,
        service: &Service,
        port: &ServicePort,
        ipv4: Option<bool>,
    ) -> Arc<[Endpoint]> {
        let mut found = BTreeMap::new();
        if let Some(slices) = self.slices.get(&(&*name.namespace, &*name.name)) {
            self.add_slices(name, slices, port, ipv4, &mut found);
        } else if !service.selector.is_empty() {
            self.add_pods(name, &service.selector, port, ipv4, &mut found);
        }
        found.into_values().collect()
    }

    fn add_slices(
        &self,
        name: &ObjectName,
        slices: &[&EndpointSlice],
        port: &ServicePort,
        ipv4: Option<bool>,
        found: &mut BTreeMap<SocketAddr, Endpoint>,
    ) {
        for slice in slices {
            let Some(slice_port) = slice.ports.iter().find(|candidate| {
                candidate.name == port.name && candidate.transport == port.transport
            }) else {
                continue;
            };
            for endpoint in &slice.endpoints {
                // The addresses of one endpoint are interchangeable.
                let Some(address) = first_of_family(&endpoint.addresses, ipv4) else {
                    continue;
                };
                let workload = endpoint
                    .pod
                    .as_ref()
                    .and_then(|pod| {
                        let pod = ObjectName::new(Arc::clone(&name.namespace), pod.as_str());
                        self.by_name.get(&pod)
                    })
                    .map(|index| &self.pods[*index].workload)
                    .or_else(|| self.by_address.get(&address));
                let address = SocketAddr::new(address, slice_port.port);
                add(found, address, workload.cloned(), endpoint.ready);
            }
        }
    }

    fn add_pods(
        &self,
        name: &ObjectName,
        selector: &Labels,
        port: &ServicePort,
        ipv4: Option<bool>,
        found: &mut BTreeMap<SocketAddr, Endpoint>,
    ) {
        let none = Vec::new();
        let candidates = selector
            .iter()
            .map(|(label, value)| {
                let key = (name.namespace.as_ref(), label.as_str(), value.as_str());
                self.by_label.get(&key).unwrap_or(&none)
            })
            .min_by_key(|pods| pods.len())
            .unwrap_or(&none);
        for index in candidates {
            let pod = &self.pods[*index];
            if !selector_matches(selector, &pod.workload.labels) {
                continue;
            }
            let number = match &port.target {
                TargetPort::Number(number) => Some(*number),
                TargetPort::Name(name) => pod.object.named_ports.get(name).copied(),
            };
            let (Some(address), Some(number)) =
                (first_of_family(&pod.workload.addresses, ipv4), number)
            else {
                continue;
            };
            let address = SocketAddr::new(address, number);
            let workload = Some(Arc::clone(&pod.workload));
            add(found, address, workload, pod.workload.ready);
        }
    }
}

/// The first address that a service of this family can be answered by; any for a headless one.
fn first_of_family(addresses: &[IpAddr], ipv4: Option<bool>) -> Option<IpAddr> {
    addresses
        .iter()
        .find(|address| ipv4.is_none_or(|ipv4| address.is_ipv4() == ipv4))
        .copied()
}

/// While endpoints move from one slice to another an address can be in both: ready wins.
fn add(
    found: &mut BTreeMap<SocketAddr, Endpoint>,
    address: SocketAddr,
    workload: Option<Arc<Workload>>,
    ready: bool,
) {
    let endpoint = found.entry(address).or_insert_with(|| Endpoint {
        address,
        workload: None,
        ready: false,
        weight: 1,
    });
    if ready && !endpoint.ready || endpoint.workload.is_none() {
        endpoint.workload = workload.or_else(|| endpoint.workload.take());
    }
    endpoint.ready |= ready;
}
