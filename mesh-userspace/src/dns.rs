//! Names: what pods ask at port 53, answered from the snapshot or passed on to whom they asked.
//!
//! The programs turn a pod's queries to listeners in the pod's own namespace (`mesh_common::dns`). What
//! is answered is decided by `mesh::dns`; all else goes to the name server that was dialled, from the
//! pod's namespace, and its answer comes back byte for byte.
//!
//! One thread for all pods, beside the workers: a flood of queries delays no request.

mod counters;
mod datagrams;
mod pod;
mod streams;

#[cfg(test)]
mod tests;

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use socket2::Socket;
use tokio::{
    runtime::{Builder, LocalOptions},
    sync::{Notify, mpsc, oneshot},
};

pub use self::counters::DnsCounters;
use self::pod::Pod;
use crate::{config::model::ObjectName, mesh::model::Snapshot, proxy::PodSockets};

/// How long queries that were passed on may take once the agent is told to stop.
const DRAIN: Duration = Duration::from_secs(2);

/// What the kernel's part does for names. Tests implement it on loopback, without any privilege.
pub trait PodNetwork: Send + Sync + 'static {
    /// The name server that a slot of a pod stands for; None: the pod has dialled none.
    fn nameserver(&self, pod: &PodSockets, slot: u32) -> io::Result<Option<Ipv4Addr>>;

    /// A non-blocking UDP socket in the pod's network namespace that the programs let pass.
    fn datagram_socket(&self, pod: &PodSockets) -> io::Result<Socket>;

    /// A non-blocking TCP socket of that kind.
    fn stream_socket(&self, pod: &PodSockets, destination: &SocketAddr) -> io::Result<Socket>;
}

/// The running thread.
#[derive(Debug)]
pub struct Dns {
    commands: mpsc::UnboundedSender<Command>,
    counters: Arc<DnsCounters>,
}

/// What the thread is told.
#[derive(Debug)]
enum Command {
    /// Serve a pod: its listeners by slot.
    AddPod(PodSockets, Vec<(UdpSocket, TcpListener)>),
    /// Close a pod's listeners.
    RemovePod(ObjectName),
    /// Close all of them; answer when what was passed on has its answers.
    Drain(oneshot::Sender<()>),
}

impl Dns {
    /// Starts the thread; nobody is served before [`Self::add_pod`].
    pub fn start(
        snapshots: &Arc<ArcSwap<Snapshot>>,
        network: &Arc<dyn PodNetwork>,
    ) -> io::Result<Self> {
        let (commands, received) = mpsc::unbounded_channel();
        let counters = Arc::new(DnsCounters::default());
        let parts = (snapshots.clone(), network.clone(), counters.clone());
        let runtime = Builder::new_current_thread();
        std::thread::Builder::new()
            .name("dns".into())
            .spawn(move || serve(runtime, parts, received))?;
        Ok(Self { commands, counters })
    }

    /// Serves a pod, or replaces how it is served. The listeners are non-blocking, by slot.
    pub fn add_pod(&self, pod: &PodSockets, slots: Vec<(UdpSocket, TcpListener)>) {
        self.tell(Command::AddPod(pod.clone(), slots));
    }

    /// Closes a pod's listeners.
    pub fn remove_pod(&self, pod: &ObjectName) {
        self.tell(Command::RemovePod(pod.clone()));
    }

    /// Closes all listeners, and waits a moment for the answers to what was passed on.
    pub async fn drain(&self) {
        let (done, wait) = oneshot::channel();
        self.tell(Command::Drain(done));
        // A thread that is gone waits for nothing.
        let _ = wait.await;
    }

    /// What became of the queries.
    pub fn counters(&self) -> &Arc<DnsCounters> {
        &self.counters
    }

    fn tell(&self, command: Command) {
        if self.commands.send(command).is_err() {
            tracing::error!("the thread for names is gone: restart the agent");
        }
    }
}

type Parts = (
    Arc<ArcSwap<Snapshot>>,
    Arc<dyn PodNetwork>,
    Arc<DnsCounters>,
);

fn serve(mut runtime: Builder, parts: Parts, commands: mpsc::UnboundedReceiver<Command>) {
    let runtime = match runtime.enable_all().build_local(LocalOptions::default()) {
        Ok(runtime) => runtime,
        Err(error) => {
            // The listeners are dropped with the commands, so pods' queries go untouched.
            tracing::error!(%error, "names are not answered: the thread has no runtime");
            return;
        }
    };
    let (snapshots, network, counters) = parts;
    let server = Server {
        shared: Rc::new(Shared {
            snapshots,
            network,
            counters,
            passed_on: Cell::default(),
            came_back: Notify::new(),
        }),
        pods: RefCell::default(),
    };
    runtime.block_on(server.run(commands));
}

/// What all pods share.
struct Shared {
    snapshots: Arc<ArcSwap<Snapshot>>,
    network: Arc<dyn PodNetwork>,
    counters: Arc<DnsCounters>,
    /// Datagrams that wait for their answer.
    passed_on: Cell<usize>,
    came_back: Notify,
}

struct Server {
    shared: Rc<Shared>,
    pods: RefCell<HashMap<ObjectName, Rc<Pod>>>,
}

impl Server {
    async fn run(self, mut commands: mpsc::UnboundedReceiver<Command>) {
        while let Some(command) = commands.recv().await {
            match command {
                Command::AddPod(sockets, slots) => self.add(sockets, slots),
                Command::RemovePod(name) => self.remove(&name),
                Command::Drain(done) => {
                    let names: Vec<_> = self.pods.borrow().keys().cloned().collect();
                    for name in &names {
                        self.remove(name);
                    }
                    // What takes longer is lost, as a datagram may be.
                    let _ = tokio::time::timeout(DRAIN, self.until_idle()).await;
                    // Nobody may wait for it any more.
                    let _ = done.send(());
                }
            }
        }
    }

    fn add(&self, sockets: PodSockets, slots: Vec<(UdpSocket, TcpListener)>) {
        let name = sockets.pod.clone();
        self.remove(&name);
        match Pod::serve(sockets, slots, self.shared.clone()) {
            Ok(pod) => {
                self.pods.borrow_mut().insert(name, pod);
            }
            Err(error) => {
                tracing::error!(pod = %name, %error, "names are not answered: the listeners can't be used");
            }
        }
    }

    fn remove(&self, name: &ObjectName) {
        if let Some(pod) = self.pods.borrow_mut().remove(name) {
            pod.close();
        }
    }

    async fn until_idle(&self) {
        loop {
            let came_back = self.shared.came_back.notified();
            if self.shared.passed_on.get() == 0 {
                return;
            }
            came_back.await;
        }
    }
}
