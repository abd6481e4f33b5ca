//! The data path that reads bytes: intercepted connections to decisions to servers.
//!
//! Each worker is a thread with a runtime, listeners and connection pools of its own; what they share is
//! the snapshot, by a pointer that is swapped. The life of a request is written in [`request`].

mod access;
mod answer;
mod attempt;
mod balance;
mod body;
mod client;
mod detect;
mod failure;
mod fault;
mod forward;
mod headers;
pub mod interception;
mod outbound;
mod pump;
mod replay;
mod request;
mod response_body;
mod retry;
mod runtime;
mod socket;
mod tcp;
mod timeout;
mod upstream;
mod watch;
mod worker;

#[cfg(test)]
mod tests;

use std::{io, net::TcpListener, rc::Rc, sync::Arc, thread::JoinHandle, time::Duration};

use arc_swap::ArcSwap;
use tokio::{
    runtime::{Builder, LocalOptions},
    sync::{mpsc, oneshot},
    time::Instant,
};

pub use self::interception::{Interception, PodSockets};
use self::worker::{Command, Idle, Settings, Worker};
use crate::{config::model::ObjectName, mesh::model::Snapshot, telemetry::Telemetry};

/// What may be set from outside.
#[derive(Debug, Clone)]
pub struct ProxyConfig {
    /// Data threads; at least one.
    pub workers: usize,
    /// How long [`Proxy::drain`] waits for requests under way.
    pub drain: Duration,
    /// The same of [`Proxy::leave`], where nobody waits for this process to end.
    pub leave: Duration,
    /// How long a client on a port of unknown protocol may be silent before it is taken for one that
    /// waits for the server to speak first.
    pub detection_timeout: Duration,
    /// Field names of HTTP/1.1 keep the case that they were written in; otherwise they are passed on in
    /// lower case, as Envoy does, which is cheaper.
    pub preserve_header_case: bool,
}

impl Default for ProxyConfig {
    fn default() -> Self {
        Self {
            workers: 1,
            drain: Duration::from_secs(30),
            leave: Duration::from_mins(1),
            detection_timeout: Duration::from_millis(300),
            preserve_header_case: false,
        }
    }
}

/// Why the proxy can't start or take a pod.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// A thread or its runtime can't be made.
    #[error(
        "start data thread {worker} of {workers}: {source}; lower --workers or raise the limits on threads and file descriptors"
    )]
    Start {
        /// Which one, from 0.
        worker: usize,
        /// Of how many.
        workers: usize,
        /// What the system said.
        source: io::Error,
    },
    /// A pod without a listener cannot be served.
    #[error("pod {pod}: no listener")]
    Listeners {
        /// The pod.
        pod: ObjectName,
    },
}

/// The running workers.
#[derive(Debug)]
pub struct Proxy {
    workers: Vec<WorkerHandle>,
    drain: Duration,
    leave: Duration,
}

#[derive(Debug)]
struct WorkerHandle {
    commands: mpsc::UnboundedSender<Command>,
    thread: JoinHandle<()>,
}

impl Proxy {
    /// Starts the workers; none serves anything before [`Self::add_pod`].
    pub fn start(
        config: &ProxyConfig,
        snapshots: &Arc<ArcSwap<Snapshot>>,
        interception: &Arc<dyn Interception>,
        telemetry: &Arc<Telemetry>,
    ) -> Result<Self, ProxyError> {
        let workers = config.workers.max(1);
        let settings = Settings {
            detection_timeout: config.detection_timeout,
            preserve_header_case: config.preserve_header_case,
        };
        let start = |worker: usize| {
            let parts = (snapshots.clone(), interception.clone(), telemetry.clone());
            start_worker(worker, settings.clone(), parts).map_err(|source| ProxyError::Start {
                worker,
                workers,
                source,
            })
        };
        Ok(Self {
            workers: (0..workers).map(start).collect::<Result<_, _>>()?,
            drain: config.drain,
            leave: config.leave,
        })
    }

    /// How many workers there are: a pod needs a listener for each, of each family.
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// Serves the clients of a pod, which the snapshot knows as `source`, or replaces how it is served.
    /// `listeners` are in the pod's network namespace: at least one per worker on one port with `SO_REUSEPORT`,
    /// and as many on another address, if there is one. An agent that had more workers may have left more.
    pub fn add_pod(
        &self,
        pod: &PodSockets,
        source: &ObjectName,
        listeners: Vec<TcpListener>,
    ) -> Result<(), ProxyError> {
        if listeners.is_empty() {
            return Err(ProxyError::Listeners {
                pod: pod.pod.clone(),
            });
        }
        let mut shares: Vec<Vec<TcpListener>> = self.workers.iter().map(|_| Vec::new()).collect();
        for (place, listener) in listeners.into_iter().enumerate() {
            shares[place % self.workers.len()].push(listener);
        }
        for (worker, listeners) in self.workers.iter().zip(shares) {
            worker.tell(Command::AddPod {
                sockets: pod.clone(),
                source: source.clone(),
                listeners,
            });
        }
        Ok(())
    }

    /// Closes the pod's listeners; its connections end after the requests under way.
    pub fn remove_pod(&self, pod: &ObjectName) {
        for worker in &self.workers {
            worker.tell(Command::RemovePod(pod.clone()));
        }
    }

    /// Accepts no more, lets the requests under way finish (HTTP/1.1 clients are told `Connection: close`,
    /// HTTP/2 clients GOAWAY), and drops what is still open after [`ProxyConfig::drain`].
    pub async fn drain(&self) {
        self.end_by(Instant::now() + self.drain, Idle::Close).await;
    }

    /// As [`Self::drain`], where another agent accepts on the same sockets: a connection without a request
    /// under way may send one more, so that no client finds it closed as it writes.
    pub async fn leave(&self) {
        self.end_by(Instant::now() + self.leave, Idle::Leave).await;
    }

    async fn end_by(&self, deadline: Instant, idle: Idle) {
        let mut drained = Vec::new();
        for worker in &self.workers {
            let (done, wait) = oneshot::channel();
            worker.tell(Command::Drain {
                deadline,
                idle,
                done,
            });
            drained.push(wait);
        }
        for wait in drained {
            // A worker that is gone has nothing open.
            let _ = wait.await;
        }
    }

    /// Ends the threads; what is still open is dropped. Blocks for the moment that takes.
    pub fn stop(self) {
        let threads: Vec<_> = self
            .workers
            .into_iter()
            .map(|worker| worker.thread)
            .collect();
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a data thread had panicked");
            }
        }
    }
}

impl WorkerHandle {
    fn tell(&self, command: Command) {
        if self.commands.send(command).is_err() {
            tracing::error!("a data thread is gone: restart the agent");
        }
    }
}

type Shared = (
    Arc<ArcSwap<Snapshot>>,
    Arc<dyn Interception>,
    Arc<Telemetry>,
);

fn start_worker(number: usize, settings: Settings, shared: Shared) -> io::Result<WorkerHandle> {
    let (commands, received) = mpsc::unbounded_channel();
    let (started, wait) = std::sync::mpsc::channel();
    let thread = std::thread::Builder::new()
        .name(format!("data-{number}"))
        .spawn(move || {
            let runtime = match Builder::new_current_thread()
                .enable_all()
                .build_local(LocalOptions::default())
            {
                Ok(runtime) => runtime,
                Err(error) => {
                    // The starter waits for exactly one message.
                    let _ = started.send(Err(error));
                    return;
                }
            };
            let _ = started.send(Ok(()));
            let (snapshots, interception, telemetry) = shared;
            let worker = Worker::new(snapshots, interception, telemetry.worker(), settings);
            runtime.block_on(Rc::new(worker).run(received));
        })?;
    wait.recv()
        .unwrap_or_else(|_| Err(io::Error::other("the thread ended at once")))?;
    Ok(WorkerHandle { commands, thread })
}
