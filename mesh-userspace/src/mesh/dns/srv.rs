//! Named ports of Services: `_PORT._PROTOCOL.SERVICE` in its four forms (Kubernetes DNS-Based Service
//! Discovery, 2.3.2).

use std::sync::Arc;

use super::name::service_host;
use crate::mesh::model::Snapshot;

/// The only one.
pub const PRIORITY: u16 = 0;

/// Among one record any number says the same; this one is what clients of Kubernetes' DNS know.
pub const WEIGHT: u16 = 100;

/// Where a named port is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The Service's own port.
    pub port: u16,
    /// The Service's full host.
    pub host: Arc<str>,
}

/// The place of a name, lower case and without a trailing dot, as a pod of `namespace` means it. None: not
/// the mesh's, or a headless Service's: there every pod has a name of its own, which the mesh does not know.
pub fn lookup(snapshot: &Snapshot, namespace: &str, name: &str) -> Option<Place> {
    let (port_name, rest) = name.strip_prefix('_')?.split_once('.')?;
    let (protocol, rest) = rest.strip_prefix('_')?.split_once('.')?;
    let host = service_host(rest, namespace, &snapshot.domain)?;
    let service = snapshot.services.get(host.as_str())?;
    if service.headless || service.addresses.is_empty() {
        return None;
    }
    // Kubernetes allows capitals in no port name.
    let port = match protocol {
        "tcp" => {
            let mut ports = service.ports.iter();
            ports.find(|port| *port.name == *port_name)?.number
        }
        "udp" => {
            let mut ports = service.datagram_ports.iter();
            ports.find(|port| *port.name == *port_name)?.number
        }
        _ => return None,
    };
    Some(Place {
        port,
        host: Arc::clone(&service.host),
    })
}
