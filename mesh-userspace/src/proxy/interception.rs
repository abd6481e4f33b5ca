//! The seam to the kernel: where an intercepted connection wanted to go, and sockets that it lets pass.

use std::{any::Any, fmt, io, net::SocketAddr, os::fd::OwnedFd, sync::Arc};

use crate::config::model::ObjectName;

/// What the kernel's part does for the proxy. Tests implement it on loopback, without any privilege.
///
/// All calls are made on a worker's thread for each connection: they must not block.
pub trait Interception: Send + Sync + 'static {
    /// Where the client of an accepted connection, whose own address is `peer`, wanted to go. `None`: the
    /// kernel's programs did not bring it here, and it is closed.
    fn original_destination(
        &self,
        pod: &PodSockets,
        peer: SocketAddr,
    ) -> io::Result<Option<SocketAddr>>;

    /// A non-blocking TCP socket of the destination's family in the pod's network namespace, marked as the
    /// agent's own so that the programs pass its connect.
    fn upstream_socket(
        &self,
        pod: &PodSockets,
        destination: &SocketAddr,
    ) -> io::Result<socket2::Socket>;

    /// A policy refused a connection or a request of `source` to `destination`, which the agent carries.
    fn denied(&self, _source: &ObjectName, _destination: &ObjectName, _policy: &str) {}
}

/// A local pod as the kernel knows it.
#[derive(Clone)]
pub struct PodSockets {
    /// The pod.
    pub pod: ObjectName,
    /// Its network namespace; absent for a pod in the host's.
    pub netns: Option<Arc<OwnedFd>>,
    /// Cookie of its network namespace, or whatever else identifies the pod in the kernel's maps.
    pub cookie: u64,
    /// What the implementation of [`Interception`] wants to find again.
    pub handle: Option<Arc<dyn Any + Send + Sync>>,
}

impl PodSockets {
    /// A pod of which nothing but the name is known.
    pub fn new(pod: ObjectName) -> Self {
        Self {
            pod,
            netns: None,
            cookie: 0,
            handle: None,
        }
    }
}

impl fmt::Debug for PodSockets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PodSockets")
            .field("pod", &self.pod)
            .field("cookie", &self.cookie)
            .finish_non_exhaustive()
    }
}
