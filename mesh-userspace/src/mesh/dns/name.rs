//! A name, as a pod means it, to the addresses behind it.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use crate::mesh::{
    model::{Service, Snapshot},
    names,
};

/// What stands behind a name; a known name may have none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses {
    /// For A.
    pub v4: Vec<Ipv4Addr>,
    /// For AAAA.
    pub v6: Vec<Ipv6Addr>,
}

/// The addresses of a Service by one of its names, lower case and without a trailing dot, as a pod of
/// `namespace` means it. None: not the mesh's.
pub fn lookup(snapshot: &Snapshot, namespace: &str, name: &str) -> Option<Addresses> {
    let host = service_host(name, namespace, &snapshot.domain)?;
    addresses(snapshot.services.get(host.as_str())?)
}

/// The full host that a name stands for, were it a Service's.
pub(super) fn service_host(name: &str, namespace: &str, domain: &str) -> Option<String> {
    let cluster = name
        .strip_suffix(domain)
        .and_then(|rest| rest.strip_suffix(".svc."));
    let (name, of) = match cluster.or_else(|| name.strip_suffix(".svc")) {
        // Of these two forms the namespace is a part.
        Some(rest) => rest.split_once('.')?,
        None => name.split_once('.').unwrap_or((name, namespace)),
    };
    let whole = !name.is_empty() && !of.is_empty() && !of.contains('.');
    whole.then(|| names::service_host(name, of, domain))
}

/// None: the mesh was not told where the Service is.
fn addresses(service: &Service) -> Option<Addresses> {
    let all: BTreeSet<IpAddr> = if !service.headless {
        service.addresses.iter().copied().collect()
    } else if service.ports.is_empty() && service.datagram_ports.is_empty() {
        // Of a Service without ports of TCP and UDP the snapshot has no endpoints.
        return None;
    } else {
        let streams = service.ports.iter().map(|port| &port.endpoints);
        let datagrams = service.datagram_ports.iter().map(|port| &port.endpoints);
        streams
            .chain(datagrams)
            .flat_map(|endpoints| endpoints.iter())
            .filter(|endpoint| endpoint.ready)
            .map(|endpoint| endpoint.address.ip())
            .collect()
    };
    if all.is_empty() && !service.headless {
        return None;
    }
    let mut addresses = Addresses::default();
    for address in all {
        match address {
            IpAddr::V4(address) => addresses.v4.push(address),
            IpAddr::V6(address) => addresses.v6.push(address),
        }
    }
    Some(addresses)
}
