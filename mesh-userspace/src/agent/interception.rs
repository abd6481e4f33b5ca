//! What the proxy and the names need of the kernel.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use socket2::Socket;

use super::events::Events;
use crate::{
    config::model::ObjectName,
    dns::PodNetwork,
    kernel::{
        netns::Netns,
        node::{Kernel, OwnDenial},
    },
    proxy::interception::{Interception, PodSockets},
};

/// Original destinations from the maps, upstream sockets from the pods' namespaces.
pub struct KernelInterception {
    kernel: Arc<Kernel>,
    events: Arc<Events>,
}

impl KernelInterception {
    /// By these maps; refusals are told to `events`.
    pub fn new(kernel: Arc<Kernel>, events: Arc<Events>) -> Self {
        Self { kernel, events }
    }
}

impl Interception for KernelInterception {
    fn original_destination(
        &self,
        pod: &PodSockets,
        peer: SocketAddr,
    ) -> io::Result<Option<SocketAddr>> {
        self.kernel.take_origin(pod.cookie, peer)
    }

    fn upstream_socket(&self, pod: &PodSockets, destination: &SocketAddr) -> io::Result<Socket> {
        let netns = netns_of(pod)?;
        self.kernel.upstream_socket(netns, destination)
    }

    fn denied(&self, source: &ObjectName, destination: &ObjectName, policy: &str) {
        let denial = OwnDenial {
            source: source.to_string(),
            destination: destination.to_string(),
            policy: policy.to_owned(),
        };
        self.events.denied_by_agent(&denial);
        self.kernel.count_own_denial(denial);
    }
}

impl PodNetwork for KernelInterception {
    fn nameserver(&self, pod: &PodSockets, slot: u32) -> io::Result<Option<IpAddr>> {
        self.kernel.nameserver(pod.cookie, slot)
    }

    fn datagram_socket(&self, pod: &PodSockets, to: &SocketAddr) -> io::Result<Socket> {
        self.kernel.datagram_socket(netns_of(pod)?, to)
    }

    fn stream_socket(&self, pod: &PodSockets, to: &SocketAddr) -> io::Result<Socket> {
        self.kernel.upstream_socket(netns_of(pod)?, to)
    }
}

fn netns_of(pod: &PodSockets) -> io::Result<&Netns> {
    pod.handle
        .as_deref()
        .and_then(|handle| handle.downcast_ref())
        .ok_or_else(|| io::Error::other(format!("pod {} has no network namespace", pod.pod)))
}
