//! Services with their ports and endpoints. How connections to them go is decided later (`ways`).

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use super::{endpoints::EndpointFinder, objects::Objects, workloads::PodEntry};
use crate::{
    config::model::{LoadBalancer, Transport},
    mesh::{
        model::{DatagramPort, Service, ServicePort, Way, Workload},
        names, protocol,
    },
};

/// One entry per Service, by namespace and name; of the ports those of TCP and UDP.
pub fn build(
    objects: &Objects<'_>,
    pods: &[PodEntry<'_>],
    workload_by_address: &HashMap<IpAddr, Arc<Workload>>,
    domain: &str,
) -> Vec<Service> {
    let finder = EndpointFinder::new(objects, pods, workload_by_address);
    let mut services = Vec::with_capacity(objects.services.len());
    for service in &objects.services {
        let (name, spec) = (&service.meta.name, service.spec);
        let ports = spec
            .ports
            .iter()
            .filter(|port| port.transport == Transport::Tcp)
            .map(|port| ServicePort {
                number: port.port,
                name: port.name.as_str().into(),
                protocol: protocol::of_port(port.port, &port.name, port.app_protocol.as_deref()),
                endpoints: finder.of_port(name, spec, port),
                ipv6_endpoints: finder.of_second_family(name, spec, port),
                way: Way::Direct,
                way_reason: "".into(),
                load_balancer: LoadBalancer::Random,
            })
            .collect();
        let datagram_ports = spec
            .ports
            .iter()
            .filter(|port| port.transport == Transport::Udp)
            .map(|port| DatagramPort {
                number: port.port,
                name: port.name.as_str().into(),
                endpoints: finder.of_port(name, spec, port),
                ipv6_endpoints: finder.of_second_family(name, spec, port),
            })
            .collect();
        services.push(Service {
            host: names::service_host(&name.name, &name.namespace, domain).into(),
            name: name.clone(),
            addresses: spec.cluster_ips.clone(),
            headless: spec.headless,
            ports,
            datagram_ports,
            session_affinity: spec.session_affinity,
        });
    }
    services
}
