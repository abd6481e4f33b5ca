//! What the mesh answers to a query for a name: bytes in, bytes out, no I/O.
//!
//! Known are the Services of the snapshot, in the four forms that Kubernetes' DNS specification has
//! (`name`, `name.ns`, `name.ns.svc`, `name.ns.svc.DOMAIN`), as a pod of a namespace means them. All else,
//! what is no proper query included, is the pod's own resolver's affair.

mod message;
mod name;
mod srv;

use std::net::SocketAddr;

pub use self::message::{Decision, Transport, decide, failure, is_query};
pub use self::name::{Addresses, lookup};
use super::model::{DatagramFrontend, Frontend, Snapshot};

/// Where a query for `dialled` goes on to: a name server that is a Service of the mesh has no socket of
/// its own behind its address, so one of the ready endpoints is taken, by `draw`.
///
/// One that has the other transport's port only takes that one's: name servers serve both.
pub fn resolver(
    snapshot: &Snapshot,
    dialled: SocketAddr,
    transport: Transport,
    draw: u32,
) -> SocketAddr {
    let streams = || {
        let frontend = snapshot.frontends.get(&dialled);
        let port = frontend.map(Frontend::service_port);
        port.map(|port| (&port.endpoints, &port.ipv6_endpoints))
    };
    let datagrams = || {
        let frontend = snapshot.datagram_frontends.get(&dialled);
        let port = frontend.map(DatagramFrontend::port);
        port.map(|port| (&port.endpoints, &port.ipv6_endpoints))
    };
    let found = match transport {
        Transport::Tcp => streams().or_else(datagrams),
        Transport::Udp => datagrams().or_else(streams),
    };
    let Some((endpoints, ipv6_endpoints)) = found else {
        return dialled;
    };
    let ready: Vec<SocketAddr> = endpoints
        .iter()
        .chain(ipv6_endpoints.iter())
        .filter(|endpoint| endpoint.ready)
        .map(|endpoint| endpoint.address)
        .filter(|address| address.is_ipv4() == dialled.is_ipv4())
        .collect();
    if ready.is_empty() {
        return dialled;
    }
    ready[draw as usize % ready.len()]
}

#[cfg(test)]
mod tests;
