//! What the mesh answers to a query for a name: bytes in, bytes out, no I/O.
//!
//! Known are the Services of the snapshot, in the four forms that Kubernetes' DNS specification has
//! (`name`, `name.ns`, `name.ns.svc`, `name.ns.svc.DOMAIN`), as a pod of a namespace means them. All else,
//! what is no proper query included, is the pod's own resolver's affair.

mod message;
mod name;

use std::net::{IpAddr, SocketAddr};

pub use self::message::{Decision, Transport, decide, failure, is_query};
pub use self::name::{Addresses, lookup};
use super::model::Snapshot;

/// Where a query for `dialled` goes on to: a name server that is a Service of the mesh has no socket of
/// its own behind its address, so one of the ready endpoints is taken, by `draw`.
///
/// The snapshot has the TCP port only. UDP takes the same endpoint: Kubernetes' DNS serves both.
pub fn resolver(snapshot: &Snapshot, dialled: SocketAddr, draw: u32) -> SocketAddr {
    let Some(frontend) = snapshot.frontends.get(&dialled) else {
        return dialled;
    };
    let ready: Vec<SocketAddr> = frontend
        .service_port()
        .endpoints
        .iter()
        .filter(|endpoint| endpoint.ready)
        .map(|endpoint| endpoint.address)
        .filter(|address| matches!(address.ip(), IpAddr::V4(_)))
        .collect();
    if ready.is_empty() {
        return dialled;
    }
    ready[draw as usize % ready.len()]
}

#[cfg(test)]
mod tests;
