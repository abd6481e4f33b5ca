//! The control thread: what the manifests say becomes a snapshot, and the snapshot what the proxy and
//! the kernel do, in one order.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{
    config::{self, FolderError, FolderSource, Outcome, SourceFile, Store, model::State},
    dns::Dns,
    kernel::node::Kernel,
    mesh::{analyze, model::Snapshot, resolve::BuildOptions},
    proxy::Proxy,
};

use super::{heartbeat::Heartbeat, pods::Pods, state::AgentState};

/// How often pods that could not be enrolled are tried again, and namespaces looked at.
const TICK: Duration = Duration::from_secs(1);

/// Why there is nothing to start with.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nothing in the folder can be used.
    #[error(
        "{folder}: no usable object among {documents} documents{first}: \
         `meshctl analyze --config-dir {folder}` shows every one"
    )]
    NothingUsable {
        /// `--config-dir`.
        folder: String,
        /// How many were read.
        documents: usize,
        /// The first rejection.
        first: String,
    },
    /// The folder cannot be read.
    #[error(transparent)]
    Folder(#[from] FolderError),
}

/// What the control thread is told.
enum Message {
    Files(Result<Vec<SourceFile>, FolderError>),
    Stop,
}

/// The configuration before it is put in force.
pub struct Control {
    source: FolderSource,
    store: Store,
    node: String,
    domain: &'static str,
    host_netns: PathBuf,
}

/// The running thread.
pub struct ControlThread {
    messages: mpsc::Sender<Message>,
    thread: JoinHandle<()>,
}

/// How long connections that the kernel sent to the agent just before it was told to stop may take to
/// reach the listeners: a handshake inside one namespace, many times over.
const GRACE: Duration = Duration::from_millis(250);

impl Control {
    /// Reads the folder for the first time.
    pub fn read(
        mut source: FolderSource,
        node: &str,
        domain: &'static str,
        host_netns: &Path,
    ) -> Result<(Self, Outcome), ControlError> {
        let mut store = Store::default();
        let outcome = store.load(source.read()?);
        if outcome.objects.is_empty() {
            let rejected = outcome
                .reports
                .iter()
                .find(|report| report.state == State::Rejected);
            return Err(ControlError::NothingUsable {
                folder: source.folder().display().to_string(),
                documents: outcome.reports.len(),
                first: rejected
                    .map(|report| format!(", first: {}", report.rejection()))
                    .unwrap_or_default(),
            });
        }
        Ok((
            Self {
                source,
                store,
                node: node.to_owned(),
                domain,
                host_netns: host_netns.to_owned(),
            },
            outcome,
        ))
    }

    /// Puts the first reading in force and follows the folder from then on.
    pub fn start(
        self,
        initial: Outcome,
        kernel: Arc<Kernel>,
        proxy: Arc<Proxy>,
        state: Arc<AgentState>,
        dns: Option<Arc<Dns>>,
    ) -> io::Result<ControlThread> {
        let (messages, inbox) = mpsc::channel();
        let Self {
            source,
            store,
            node,
            domain,
            host_netns,
        } = self;
        let mut mesh = Mesh {
            store,
            options: BuildOptions {
                node_name: node,
                domain: domain.to_owned(),
                version: 0,
            },
            pods: Pods::new(dns, host_netns),
            kernel,
            proxy,
            state,
        };
        let events = messages.clone();
        let thread = thread::Builder::new()
            .name("control".into())
            .spawn(move || {
                mesh.put_in_force(&initial);
                // Not earlier: the maps name the listeners of the agent before this one until now.
                let heartbeat = Heartbeat::start(Arc::clone(&mesh.kernel));
                if let Err(error) = &heartbeat {
                    tracing::error!(%error, "no heartbeat: connections that need the agent do without");
                }
                let watcher = config::watch(source, move |files| {
                    // The other end is gone only when the agent stops.
                    let _ = events.send(Message::Files(files));
                });
                if let Err(error) = &watcher {
                    tracing::error!(%error, "the folder is not watched: changes need a restart");
                }
                loop {
                    match inbox.recv_timeout(TICK) {
                        Ok(Message::Files(files)) => mesh.change(files),
                        Ok(Message::Stop) | Err(mpsc::RecvTimeoutError::Disconnected) => break,
                        Err(mpsc::RecvTimeoutError::Timeout) => mesh.look_after_pods(),
                    }
                }
                drop(watcher);
                if let Ok(heartbeat) = heartbeat {
                    heartbeat.stop();
                }
            })?;
        Ok(ControlThread { messages, thread })
    }
}

impl ControlThread {
    /// Ends the thread, and tells the programs that the agent is gone. What is in force stays. The
    /// listeners must stay open until this returns.
    pub async fn stop(self) {
        let _ = self.messages.send(Message::Stop);
        let _ = self.thread.join();
        tokio::time::sleep(GRACE).await;
    }
}

/// Everything that a change goes through.
struct Mesh {
    store: Store,
    options: BuildOptions,
    pods: Pods,
    kernel: Arc<Kernel>,
    proxy: Arc<Proxy>,
    state: Arc<AgentState>,
}

impl Mesh {
    fn change(&mut self, files: Result<Vec<SourceFile>, FolderError>) {
        match files {
            Ok(files) => {
                let outcome = self.store.load(files);
                self.state.set_source_error(None);
                if outcome.changed {
                    self.put_in_force(&outcome);
                } else {
                    self.publish_reports(&outcome);
                }
            }
            Err(error) => {
                tracing::error!(%error, "the last good configuration stays in force");
                self.state.set_source_error(Some(error.to_string()));
            }
        }
    }

    fn put_in_force(&mut self, outcome: &Outcome) {
        let started = Instant::now();
        self.options.version += 1;
        let snapshot = Arc::new(Snapshot::build(&outcome.objects, &self.options));
        // The proxy knows the rules before the kernel sends it the first connection that needs them.
        self.state.set_snapshot(Arc::clone(&snapshot));
        self.pods.reconcile(&snapshot, &self.proxy, &self.kernel);
        self.write_maps(&snapshot);
        self.publish_reports(outcome);
        tracing::info!(
            snapshot = snapshot.version,
            services = snapshot.services.len(),
            workloads = snapshot.workloads.len(),
            took_ms = started.elapsed().as_millis(),
            "configuration in force"
        );
    }

    fn look_after_pods(&mut self) {
        let snapshot = self.state.snapshot_now();
        if self.pods.reconcile(&snapshot, &self.proxy, &self.kernel) {
            self.write_maps(&snapshot);
        }
        tell_cut(self.kernel.cut_again(&self.pods.namespaces(&snapshot)));
        self.state.set_pods(&self.pods);
    }

    fn write_maps(&mut self, snapshot: &Snapshot) {
        let written = self.kernel.apply(snapshot, &self.pods.enrolled());
        if let Err(error) = &written {
            tracing::error!(%error, "not everything could be written to the maps");
        }
        // Before anybody can learn that the agent is ready: until the heartbeat's own thread runs, connections
        // that need the agent would do without.
        if let Err(error) = self.kernel.beat() {
            tracing::error!(%error, "writing the heartbeat");
        }
        // New connections are judged by the new policies from here on; now the old ones.
        tell_cut(self.kernel.cut(&self.pods.namespaces(snapshot)));
        // Pods first: with the maps the agent is ready, unless a pod is not.
        self.state.set_pods(&self.pods);
        self.state
            .set_maps_error(written.err().map(|error| error.to_string()));
    }

    fn publish_reports(&self, outcome: &Outcome) {
        let mut reports = outcome.reports.clone();
        analyze::annotate(&mut reports, &outcome.objects, &self.options.domain);
        for report in reports
            .iter()
            .filter(|report| report.state == State::Rejected)
        {
            tracing::warn!("rejected: {}", report.rejection());
        }
        self.state.set_reports(reports);
    }
}

fn tell_cut(outcome: io::Result<usize>) {
    match outcome {
        Ok(0) => {}
        Ok(closed) => tracing::info!(closed, "closed connections that policies forbid"),
        Err(error) => {
            tracing::error!(%error, "connections that policies forbid may still be open");
        }
    }
}
