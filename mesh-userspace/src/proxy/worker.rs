//! A worker: one thread, one runtime, its own listeners, connections and counters.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::TcpListener,
    pin::pin,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use arc_swap::{ArcSwap, Guard};
use rand::{Rng, rngs::SmallRng};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{Instant, MissedTickBehavior},
};

use super::{
    client,
    interception::{Interception, PodSockets},
    upstream::Upstreams,
    watch::Watch,
};
use crate::{
    config::model::{Acceleration, FailurePolicy, Labels, ObjectName},
    mesh::model::{Snapshot, Workload},
    telemetry::{UNKNOWN, WorkerTelemetry, hash::FastMap, same_labels},
};

/// How often idle connections are looked for.
pub const SWEEP: Duration = Duration::from_secs(5);

/// After an accept that failed for lack of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What may be set.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long a client on a port of unknown protocol may be silent before it is taken for one that
    /// waits for the server to speak.
    pub detection_timeout: Duration,
    /// Field names of HTTP/1.1 keep their case; otherwise they are written in lower case, as Envoy does.
    pub preserve_header_case: bool,
}

/// What a worker is told.
pub enum Command {
    /// Serve a pod's clients.
    AddPod {
        /// The pod.
        sockets: PodSockets,
        /// Its name in the snapshot.
        source: ObjectName,
        /// This worker's own listeners in the pod's namespace.
        listeners: Vec<TcpListener>,
    },
    /// Accept no more for a pod; its connections end after the requests under way.
    RemovePod(ObjectName),
    /// Accept no more at all; answer when the last connection has ended, at the deadline at the latest.
    Drain {
        /// What is open then is dropped.
        deadline: Instant,
        /// How those end that have nothing under way.
        idle: Idle,
        /// Told when all is done.
        done: oneshot::Sender<()>,
    },
}

/// What becomes of a connection that has no request under way when the worker drains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Idle {
    /// It is closed.
    Close,
    /// It may send one more, or be silent for a while: somebody else serves the new connections.
    Leave,
}

/// Everything of one worker that its connections share.
pub struct Worker {
    snapshots: Arc<ArcSwap<Snapshot>>,
    /// Address and version of the snapshot that was seen last.
    seen: Cell<(usize, u64)>,
    generation: Cell<u64>,
    /// The kernel's part.
    pub interception: Arc<dyn Interception>,
    /// This worker's counters.
    pub telemetry: Rc<WorkerTelemetry>,
    /// See [`Settings`].
    pub settings: Settings,
    rng: RefCell<SmallRng>,
    pods: RefCell<HashMap<ObjectName, Rc<Pod>>>,
    connections: RefCell<FastMap<u64, Connection>>,
    next_connection: Cell<u64>,
    /// Told whenever a connection has ended.
    ended: tokio::sync::Notify,
}

struct Connection {
    watch: Rc<Watch>,
    pod: ObjectName,
}

/// A local pod as this worker serves it.
pub struct Pod {
    /// As the kernel knows it.
    pub sockets: PodSockets,
    /// As the snapshot knows it.
    pub name: ObjectName,
    /// Its connections to servers.
    pub upstreams: Upstreams,
    acceptors: RefCell<Vec<JoinHandle<()>>>,
}

impl Pod {
    /// The pod in a snapshot; with nothing but its name where the snapshot does not have it (yet).
    pub fn workload(&self, snapshot: &Snapshot) -> Arc<Workload> {
        match snapshot.workloads.get(&self.name) {
            Some(workload) => workload.clone(),
            None => Arc::new(nameless(&self.name)),
        }
    }
}

fn nameless(name: &ObjectName) -> Workload {
    let mut telemetry = same_labels(UNKNOWN);
    telemetry.namespace = name.namespace.clone();
    Workload {
        name: name.clone(),
        addresses: Vec::new(),
        labels: Labels::new(),
        service_account: UNKNOWN.into(),
        principal: UNKNOWN.into(),
        local: true,
        place: None,
        ready: true,
        acceleration: Acceleration::default(),
        acceleration_exclude_ports: Vec::new(),
        failure_policy: FailurePolicy::default(),
        access: None,
        telemetry,
    }
}

impl Worker {
    /// Nothing served yet.
    pub fn new(
        snapshots: Arc<ArcSwap<Snapshot>>,
        interception: Arc<dyn Interception>,
        telemetry: WorkerTelemetry,
        settings: Settings,
    ) -> Self {
        Self {
            snapshots,
            seen: Cell::new((0, 0)),
            generation: Cell::new(0),
            interception,
            telemetry: Rc::new(telemetry),
            settings,
            rng: RefCell::new(rand::make_rng()),
            pods: RefCell::default(),
            connections: RefCell::default(),
            next_connection: Cell::new(0),
            ended: tokio::sync::Notify::new(),
        }
    }

    /// What is in force. On the first look at a new snapshot, what was made for the older one is let go.
    pub fn snapshot(&self) -> Guard<Arc<Snapshot>> {
        let snapshot = self.snapshots.load();
        let seen = (Arc::as_ptr(&snapshot).addr(), snapshot.version);
        if seen != self.seen.get() {
            self.seen.set(seen);
            self.generation.set(self.generation.get() + 1);
            self.telemetry.forget_objects();
            for pod in self.pods.borrow().values() {
                pod.upstreams.forget_destinations();
            }
        }
        snapshot
    }

    /// Grows with each snapshot that this worker saw.
    pub fn generation(&self) -> u64 {
        self.generation.get()
    }

    /// Uniform.
    pub fn random_u32(&self) -> u32 {
        self.rng.borrow_mut().next_u32()
    }

    /// Lends the generator.
    pub fn with_rng<R>(&self, draw: impl FnOnce(&mut SmallRng) -> R) -> R {
        draw(&mut self.rng.borrow_mut())
    }

    /// Serves until the commands' sender is gone.
    pub async fn run(self: Rc<Self>, mut commands: mpsc::UnboundedReceiver<Command>) {
        let mut beat = tokio::time::interval(SWEEP);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.obey(command),
                    None => return,
                },
                _ = beat.tick() => self.sweep(),
            }
        }
    }

    fn obey(self: &Rc<Self>, command: Command) {
        match command {
            Command::AddPod {
                sockets,
                source,
                listeners,
            } => self.add_pod(sockets, source, listeners),
            Command::RemovePod(name) => self.remove_pod(&name, Idle::Close),
            Command::Drain {
                deadline,
                idle,
                done,
            } => {
                let names: Vec<_> = self.pods.borrow().keys().cloned().collect();
                for name in &names {
                    self.remove_pod(name, idle);
                }
                if idle == Idle::Close {
                    // Those that might have stayed a little longer, too.
                    let connections = self.connections.borrow();
                    connections.values().for_each(|open| open.watch.close());
                }
                let worker = self.clone();
                tokio::task::spawn_local(async move {
                    worker.until_idle(deadline).await;
                    // Nobody may wait for it any more.
                    let _ = done.send(());
                });
            }
        }
    }

    fn add_pod(
        self: &Rc<Self>,
        sockets: PodSockets,
        source: ObjectName,
        listeners: Vec<TcpListener>,
    ) {
        let name = sockets.pod.clone();
        self.remove_pod(&name, Idle::Close);
        let pod = Rc::new(Pod {
            upstreams: Upstreams::new(sockets.clone(), self.interception.clone()),
            sockets,
            name: source,
            acceptors: RefCell::default(),
        });
        for listener in listeners {
            match listener
                .set_nonblocking(true)
                .and_then(|()| tokio::net::TcpListener::from_std(listener))
            {
                Ok(listener) => {
                    let accepting = self.clone().accept(pod.clone(), listener);
                    pod.acceptors
                        .borrow_mut()
                        .push(tokio::task::spawn_local(accepting));
                }
                Err(error) => {
                    tracing::error!(pod = %name, %error, "a listener of the pod can't be used: its connections are not served");
                }
            }
        }
        self.pods.borrow_mut().insert(name, pod);
    }

    fn remove_pod(&self, name: &ObjectName, idle: Idle) {
        let Some(pod) = self.pods.borrow_mut().remove(name) else {
            return;
        };
        for acceptor in pod.acceptors.take() {
            acceptor.abort();
        }
        for connection in self.connections.borrow().values() {
            if connection.pod == *name {
                match idle {
                    Idle::Close => connection.watch.close(),
                    Idle::Leave => connection.watch.leave(),
                }
            }
        }
    }

    async fn accept(self: Rc<Self>, pod: Rc<Pod>, listener: tokio::net::TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let watch = Rc::new(Watch::default());
                    let place = Registered::new(self.clone(), &pod, watch.clone());
                    let served = client::serve(self.clone(), pod.clone(), stream, peer, watch);
                    tokio::task::spawn_local(async move {
                        served.await;
                        drop(place);
                    });
                }
                Err(error) => {
                    // ECONNABORTED and its like are the client's business; the others pass.
                    tracing::warn!(pod = %pod.name, %error, "accept failed, trying again");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn until_idle(&self, deadline: Instant) {
        let idle = async {
            loop {
                let ended = self.ended.notified();
                if self.connections.borrow().is_empty() {
                    break;
                }
                ended.await;
            }
        };
        if tokio::time::timeout_at(deadline, pin!(idle)).await.is_err() {
            let open = self.connections.borrow();
            tracing::info!(
                connections = open.len(),
                "drain deadline: what is still open is dropped"
            );
            open.values().for_each(|connection| connection.watch.kill());
        }
    }

    fn sweep(&self) {
        for pod in self.pods.borrow().values() {
            pod.upstreams.sweep();
        }
        for connection in self.connections.borrow().values() {
            connection.watch.beat();
        }
    }
}

/// A connection's place in the worker's list, until it is dropped.
struct Registered {
    worker: Rc<Worker>,
    number: u64,
}

impl Registered {
    fn new(worker: Rc<Worker>, pod: &Pod, watch: Rc<Watch>) -> Self {
        let number = worker.next_connection.get();
        worker.next_connection.set(number + 1);
        let pod = pod.sockets.pod.clone();
        worker
            .connections
            .borrow_mut()
            .insert(number, Connection { watch, pod });
        Self { worker, number }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.worker.connections.borrow_mut().remove(&self.number);
        self.worker.ended.notify_one();
    }
}
