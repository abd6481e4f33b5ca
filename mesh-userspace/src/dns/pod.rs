//! One pod's listeners: a UDP socket and a TCP listener for each name server that it may dial.

use std::{
    cell::{Cell, RefCell},
    io,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use mesh_common::dns::{PORT, SLOTS};
use tokio::{sync::Semaphore, task::JoinHandle};

use super::{Shared, Slots, datagrams, streams};
use crate::{
    mesh::dns::{self, Decision, Transport},
    proxy::PodSockets,
};

/// How many datagrams of one pod may wait for their answers; more are lost, as datagrams may be.
const DATAGRAMS: usize = 512;

/// How many connections of one pod there may be; more are closed.
const STREAMS: usize = 64;

/// After an accept or receive that failed for lack of descriptors or memory.
pub const PAUSE: Duration = Duration::from_millis(50);

/// A pod that is served.
pub struct Pod {
    /// As the kernel knows it.
    pub sockets: PodSockets,
    /// What all pods share.
    pub shared: Rc<Shared>,
    /// For datagrams that are passed on.
    pub datagrams: Arc<Semaphore>,
    /// For connections.
    pub streams: Arc<Semaphore>,
    /// A slot never changes while the pod is there.
    nameservers: [Cell<Option<IpAddr>>; SLOTS as usize],
    listening: RefCell<Vec<JoinHandle<()>>>,
}

impl Pod {
    /// Serves it until [`Self::close`].
    pub fn serve(
        sockets: PodSockets,
        families: Vec<Slots>,
        shared: Rc<Shared>,
    ) -> io::Result<Rc<Self>> {
        let pod = Rc::new(Self {
            sockets,
            shared,
            datagrams: Arc::new(Semaphore::new(DATAGRAMS)),
            streams: Arc::new(Semaphore::new(STREAMS)),
            nameservers: <[Cell<_>; SLOTS as usize]>::default(),
            listening: RefCell::default(),
        });
        for (slot, (udp, tcp)) in families.into_iter().flat_map(|slots| (0..SLOTS).zip(slots)) {
            let udp = Rc::new(tokio::net::UdpSocket::from_std(udp)?);
            let tcp = tokio::net::TcpListener::from_std(tcp)?;
            let tasks = [
                tokio::task::spawn_local(datagrams::serve(pod.clone(), slot, udp)),
                tokio::task::spawn_local(streams::serve(pod.clone(), slot, tcp)),
            ];
            pod.listening.borrow_mut().extend(tasks);
        }
        Ok(pod)
    }

    /// Closes the listeners.
    pub fn close(&self) {
        for task in self.listening.take() {
            task.abort();
        }
    }

    /// What becomes of a query.
    pub fn decide(&self, query: &[u8], transport: Transport) -> Decision {
        let snapshot = self.shared.snapshots.load();
        dns::decide(&snapshot, &self.sockets.pod.namespace, query, transport)
    }

    /// Where a query that came to a slot goes on to.
    pub fn resolver(&self, slot: u32, transport: Transport) -> io::Result<SocketAddr> {
        let known = &self.nameservers[slot as usize];
        if known.get().is_none() {
            let network = &self.shared.network;
            known.set(network.nameserver(&self.sockets, slot)?);
        }
        let address = known.get().ok_or_else(|| {
            // Somebody dialled the listener itself.
            io::Error::new(io::ErrorKind::NotFound, "no name server was dialled")
        })?;
        let snapshot = self.shared.snapshots.load();
        let dialled = SocketAddr::from((address, PORT));
        Ok(dns::resolver(&snapshot, dialled, transport, rand::random()))
    }
}
