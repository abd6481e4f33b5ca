//! Services with their ports and endpoints.

use serde::{Deserialize, Serialize};

use crate::config::model::LoadBalancer;
use crate::mesh::model::{DatagramPort, Endpoint, Service, ServicePort, Way};

/// A Service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceView {
    /// `reviews.default.svc.cluster.local`.
    pub host: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Cluster IPs; none for a headless one.
    pub addresses: Vec<String>,
    /// TCP ports, then UDP ports.
    pub ports: Vec<PortView>,
}

/// A port of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortView {
    /// The number.
    pub port: u16,
    /// May be empty.
    pub name: String,
    /// As `explain` spells it, or `udp`.
    pub protocol: String,
    /// `direct` or `agent`.
    pub way: String,
    /// Why.
    pub way_reason: String,
    /// How the kernel picks an endpoint, as the API spells it; where the way is direct.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_balancer: Option<String>,
    /// For how long after its last connection a client keeps its endpoint; where the way is direct.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_affinity_seconds: Option<u64>,
    /// Sorted by address.
    pub endpoints: Vec<EndpointView>,
}

/// A backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointView {
    /// `ip:port`.
    pub address: String,
    /// `namespace/pod`, where the pod is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// Only ready ones get traffic.
    pub ready: bool,
    /// Relative.
    pub weight: u32,
}

impl ServiceView {
    pub(super) fn of(service: &Service) -> Self {
        Self {
            host: service.host.to_string(),
            namespace: service.name.namespace.to_string(),
            name: service.name.name.to_string(),
            addresses: service.addresses.iter().map(ToString::to_string).collect(),
            ports: service
                .ports
                .iter()
                .map(|port| PortView::of(service, port))
                .chain(
                    service
                        .datagram_ports
                        .iter()
                        .map(|port| PortView::of_datagrams(service, port)),
                )
                .collect(),
        }
    }
}

impl PortView {
    fn of(service: &Service, port: &ServicePort) -> Self {
        let direct = port.way == Way::Direct;
        Self {
            port: port.number,
            name: port.name.to_string(),
            protocol: port.protocol.as_str().to_owned(),
            way: port.way.as_str().to_owned(),
            way_reason: port.way_reason.to_string(),
            load_balancer: direct.then(|| port.load_balancer.as_str().to_owned()),
            session_affinity_seconds: service
                .session_affinity
                .filter(|_| direct)
                .map(|timeout| timeout.as_secs()),
            endpoints: port.endpoints.iter().map(EndpointView::of).collect(),
        }
    }

    fn of_datagrams(service: &Service, port: &DatagramPort) -> Self {
        Self {
            port: port.number,
            name: port.name.to_string(),
            protocol: "udp".to_owned(),
            way: Way::Direct.as_str().to_owned(),
            way_reason: "UDP: nothing decides about datagrams, so the kernel picks the endpoint"
                .to_owned(),
            load_balancer: Some(LoadBalancer::Random.as_str().to_owned()),
            session_affinity_seconds: service.session_affinity.map(|timeout| timeout.as_secs()),
            endpoints: port.endpoints.iter().map(EndpointView::of).collect(),
        }
    }
}

impl EndpointView {
    fn of(endpoint: &Endpoint) -> Self {
        let workload = endpoint.workload.as_ref();
        Self {
            address: endpoint.address.to_string(),
            workload: workload.map(|workload| workload.name.to_string()),
            ready: endpoint.ready,
            weight: endpoint.weight,
        }
    }
}
