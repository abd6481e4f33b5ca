//! What the proxy and the names need of the kernel.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use socket2::Socket;

use crate::{
    dns::PodNetwork,
    kernel::{netns::Netns, node::Kernel},
    proxy::interception::{Interception, PodSockets},
};

/// Original destinations from the maps, upstream sockets from the pods' namespaces.
pub struct KernelInterception {
    kernel: Arc<Kernel>,
}

impl KernelInterception {
    /// By these maps.
    pub fn new(kernel: Arc<Kernel>) -> Self {
        Self { kernel }
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
}

impl PodNetwork for KernelInterception {
    fn nameserver(&self, pod: &PodSockets, slot: u32) -> io::Result<Option<Ipv4Addr>> {
        self.kernel.nameserver(pod.cookie, slot)
    }

    fn datagram_socket(&self, pod: &PodSockets) -> io::Result<Socket> {
        self.kernel.datagram_socket(netns_of(pod)?)
    }

    fn stream_socket(&self, pod: &PodSockets, destination: &SocketAddr) -> io::Result<Socket> {
        self.kernel.upstream_socket(netns_of(pod)?, destination)
    }
}

fn netns_of(pod: &PodSockets) -> io::Result<&Netns> {
    pod.handle
        .as_deref()
        .and_then(|handle| handle.downcast_ref())
        .ok_or_else(|| io::Error::other(format!("pod {} has no network namespace", pod.pod)))
}
