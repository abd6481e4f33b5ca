//! The UDP ports of services: always direct, as nothing decides about datagrams.

use mesh_common::{balance::Balance, names::NameKind, policy::Verdict};

use super::{Frontend, Ids, Snapshot, Tables, affinity_seconds, key, slots};

const UDP: u16 = 17;

/// Adds them to the frontends.
pub(super) fn add(tables: &mut Tables, snapshot: &Snapshot, ids: &mut Ids) {
    for (address, frontend) in &snapshot.datagram_frontends {
        let port = frontend.port();
        let ready = port.endpoints.iter().chain(port.ipv6_endpoints.iter());
        let entry = Frontend {
            service: ids.id(NameKind::Service, &frontend.service.host),
            verdict: Verdict::Direct,
            balance: Balance::Random,
            affinity_seconds: affinity_seconds(&frontend.service),
            endpoints: slots(*address, ready, ids),
        };
        tables.frontends.insert(key(*address, UDP), entry);
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, net::SocketAddr};

    use mesh_common::policy::FrontendKey;

    use super::*;
    use crate::{kernel::compile, mesh::testing::Mesh};

    const NAMES: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: names, namespace: default}\n\
         spec: {clusterIPs: ['10.96.0.53', 'fd00:96::53'], ports: [{name: dns, port: 53, protocol: UDP}, \
         {name: dns-tcp, port: 53, protocol: TCP}]}\n\
         ---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n\
         metadata: {name: names-4, namespace: default, labels: {kubernetes.io/service-name: names}}\n\
         ports: [{name: dns, port: 5353, protocol: UDP}, {name: dns-tcp, port: 5354, protocol: TCP}]\n\
         endpoints: [{addresses: [10.9.0.200]}, {addresses: [10.9.0.3]}, {addresses: [10.8.255.1]}, \
         {addresses: [10.9.0.4], conditions: {ready: false}}]\n\
         ---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv6\n\
         metadata: {name: names-6, namespace: default, labels: {kubernetes.io/service-name: names}}\n\
         ports: [{name: dns, port: 5353, protocol: UDP}]\nendpoints: [{addresses: ['fd00:9::1']}]\n";

    fn compiled(yaml: &str) -> Tables {
        let snapshot = Mesh::bookinfo().yaml(yaml).snapshot();
        compile::compile(&snapshot, &BTreeMap::new(), &mut Ids::default())
    }

    fn at(text: &str, protocol: u16) -> FrontendKey {
        let address: SocketAddr = text.parse().expect("an address");
        key(address, protocol)
    }

    fn endpoints(tables: &Tables, key: &FrontendKey) -> Vec<String> {
        let frontend = tables.frontends.get(key).expect("a frontend");
        assert_eq!(frontend.verdict, Verdict::Direct);
        let spelled = frontend.endpoints.iter().map(|endpoint| {
            SocketAddr::new(endpoint.address.into(), endpoint.port.get()).to_string()
        });
        let mut spelled: Vec<String> = spelled.collect();
        spelled.sort_unstable();
        spelled
    }

    #[test]
    fn udp_and_tcp_on_one_number_have_each_their_own_ready_endpoints() {
        let tables = compiled(NAMES);
        let udp = endpoints(&tables, &at("10.96.0.53:53", UDP));
        assert_eq!(udp, ["10.8.255.1:5353", "10.9.0.200:5353", "10.9.0.3:5353"]);
        let tcp = endpoints(&tables, &at("10.96.0.53:53", 6));
        assert_eq!(tcp, ["10.8.255.1:5354", "10.9.0.200:5354", "10.9.0.3:5354"]);
        let ipv6 = endpoints(&tables, &at("[fd00:96::53]:53", UDP));
        assert_eq!(ipv6, ["[fd00:9::1]:5353"]);
    }

    #[test]
    fn a_udp_port_without_endpoints_stands_there_and_refuses() {
        let tables = compiled(
            "apiVersion: v1\nkind: Service\nmetadata: {name: nobody, namespace: default}\n\
             spec: {clusterIP: 10.96.0.54, ports: [{port: 9, protocol: UDP}]}\n",
        );
        assert!(endpoints(&tables, &at("10.96.0.54:9", UDP)).is_empty());
        assert!(!tables.frontends.contains_key(&at("10.96.0.54:9", 6)));
    }
}
