//! Findings about Services, their `EndpointSlices` and Pods.

use std::{collections::HashMap, net::IpAddr};

use super::{About, Finding, world::World};
use crate::{
    config::model::{Meta, PodPlace, TargetPort, Transport},
    mesh::{names, resolve::selector_matches},
};

/// Services without endpoints, addresses that two claim, slices of nobody.
pub fn check(world: &World<'_>, findings: &mut Vec<Finding>) {
    endpoints(world, findings);
    no_addresses(world, findings);
    service_addresses(world, findings);
    slices(world, findings);
    pod_addresses(world, findings);
}

fn endpoints(world: &World<'_>, findings: &mut Vec<Finding>) {
    for service in &world.objects.services {
        let (meta, spec) = (service.meta, service.spec);
        let name = &meta.name;
        let host = names::service_host(&name.name, &name.namespace, world.domain);
        let served = world
            .services
            .get(host.as_str())
            .is_some_and(|service| service.ports.iter().all(|port| !port.endpoints.is_empty()));
        let sliced = || {
            world.objects.slices.iter().any(|slice| {
                slice.meta.name.namespace == name.namespace && slice.spec.service == *name.name
            })
        };
        // Where no pods were given at all, there is nothing to select from.
        if served || spec.selector.is_empty() || world.objects.pods.is_empty() || sliced() {
            continue;
        }
        let mut about = About {
            kind: "Service",
            meta,
            findings,
        };
        let selected: Vec<_> = world
            .objects
            .pods
            .iter()
            .filter(|pod| pod.meta.name.namespace == name.namespace)
            .filter(|pod| selector_matches(&spec.selector, &pod.meta.labels))
            .collect();
        if selected.is_empty() {
            about.warn(
                &meta.location,
                "spec.selector",
                "selects no Pod and no EndpointSlice names the Service: it has no endpoints"
                    .to_owned(),
            );
            continue;
        }
        for (index, port) in spec.ports.iter().enumerate() {
            if let TargetPort::Name(target) = &port.target
                && port.transport == Transport::Tcp
                && !selected
                    .iter()
                    .any(|pod| pod.spec.named_ports.contains_key(target))
            {
                about.warn(
                    &meta.location,
                    format!("spec.ports[{index}].targetPort"),
                    format!("no selected Pod has a container port named {target}: no endpoints"),
                );
            }
        }
    }
}

/// Only where pods name their places: manifests for Kubernetes rightly leave addresses to its API server.
fn no_addresses(world: &World<'_>, findings: &mut Vec<Finding>) {
    if world
        .objects
        .pods
        .iter()
        .all(|pod| pod.spec.place.is_none())
    {
        return;
    }
    for service in &world.objects.services {
        let spec = service.spec;
        if spec.headless || !spec.cluster_ips.is_empty() || spec.ports.is_empty() {
            continue;
        }
        let mut about = About {
            kind: "Service",
            meta: service.meta,
            findings,
        };
        about.warn(
            &service.meta.location,
            "spec.clusterIP",
            "is missing: the kernel knows Services by their addresses, so connections to this one pass by \
             the mesh; outside Kubernetes nobody assigns one, so write one"
                .to_owned(),
        );
    }
}

fn service_addresses(world: &World<'_>, findings: &mut Vec<Finding>) {
    let mut taken: HashMap<(IpAddr, u16), &Meta> = HashMap::new();
    let mut services: Vec<_> = world.objects.services.iter().collect();
    // As the snapshot has it: the first by host wins.
    services.sort_by_key(|service| {
        let name = &service.meta.name;
        names::service_host(&name.name, &name.namespace, world.domain)
    });
    for service in services {
        let meta = service.meta;
        let ports = service.spec.ports.iter();
        let ports = ports.filter(|port| port.transport == Transport::Tcp);
        for port in ports {
            for address in &service.spec.cluster_ips {
                let first = *taken.entry((*address, port.port)).or_insert(meta);
                if first.name != meta.name {
                    let mut about = About {
                        kind: "Service",
                        meta,
                        findings,
                    };
                    about.warn(
                        &meta.location,
                        "spec.clusterIP",
                        format!(
                            "{address} port {} is Service {}'s already ({}): connections go there",
                            port.port, first.name, first.location
                        ),
                    );
                }
            }
        }
    }
}

fn slices(world: &World<'_>, findings: &mut Vec<Finding>) {
    for slice in &world.objects.slices {
        let namespace = &slice.meta.name.namespace;
        let host = names::service_host(&slice.spec.service, namespace, world.domain);
        if !world.services.contains_key(host.as_str()) {
            let mut about = About {
                kind: "EndpointSlice",
                meta: slice.meta,
                findings,
            };
            about.warn(
                &slice.meta.location,
                "metadata.labels.kubernetes.io/service-name",
                format!(
                    "there is no Service {} in namespace {namespace}: nothing is sent to these endpoints",
                    slice.spec.service
                ),
            );
        }
    }
}

fn pod_addresses(world: &World<'_>, findings: &mut Vec<Finding>) {
    let mut taken: HashMap<IpAddr, &Meta> = HashMap::new();
    for pod in &world.objects.pods {
        let (meta, spec) = (pod.meta, pod.spec);
        let mut about = About {
            kind: "Pod",
            meta,
            findings,
        };
        if spec.place.is_some() && spec.addresses.is_empty() {
            about.warn(
                &meta.location,
                "status.podIP",
                "is missing: the Pod is a client of the mesh, but no Service can send to it"
                    .to_owned(),
            );
        }
        // Pods of the host's namespace share its addresses; one that is not ready may be gone.
        if matches!(spec.place, Some(PodPlace::Cgroup(_))) || !spec.ready {
            continue;
        }
        for address in &spec.addresses {
            let first = *taken.entry(*address).or_insert(meta);
            if first.name != meta.name {
                about.warn(
                    &meta.location,
                    "status.podIP",
                    format!(
                        "{address} is Pod {}'s already ({}): what comes from it counts as that Pod's",
                        first.name, first.location
                    ),
                );
            }
        }
    }
}
