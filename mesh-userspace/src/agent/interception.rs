//! What the proxy needs of the kernel.

use std::{io, net::SocketAddr, sync::Arc};

use socket2::Socket;

use crate::{
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
        let netns = pod
            .handle
            .as_deref()
            .and_then(|handle| handle.downcast_ref::<Netns>())
            .ok_or_else(|| io::Error::other(format!("pod {} has no network namespace", pod.pod)))?;
        self.kernel.upstream_socket(netns, destination)
    }
}
