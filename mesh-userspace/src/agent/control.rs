//! The control thread: what the manifests say becomes a snapshot, and the snapshot what the proxy and
//! the kernel do, in one order.

use std::{
    collections::HashMap,
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use crate::{
    config::{self, FolderError, FolderSource, Outcome, SourceFile, Store, model::State},
    dns::Dns,
    kernel::node::Kernel,
    mesh::{analyze, model::Snapshot, resolve::BuildOptions},
    proxy::Proxy,
};

use super::{
    handover::{Label, PodListeners},
    heartbeat::Heartbeat,
    pods::Pods,
    state::AgentState,
};

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
    /// Leave the maps alone, and say what the pods' listeners are.
    Pause(oneshot::Sender<io::Result<Vec<(Label, OwnedFd)>>>),
    /// Go on: nobody has taken over.
    Resume,
    Stop,
    /// Another agent has the maps and gives the sign of life.
    Leave,
}

/// The configuration before it is put in force.
pub struct Control {
    source: FolderSource,
    store: Store,
    node: String,
    domain: &'static str,
    host_netns: PathBuf,
}

/// What the configuration is put in force with.
pub struct Parts {
    /// The programs and maps.
    pub kernel: Arc<Kernel>,
    /// The workers.
    pub proxy: Arc<Proxy>,
    /// What the admin server says.
    pub state: Arc<AgentState>,
    /// Names, where they are answered.
    pub dns: Option<Arc<Dns>>,
    /// What another agent listened on, by the cookie of the pod's namespace.
    pub inherited: HashMap<u64, PodListeners>,
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

    /// Puts the first reading in force, says so (with what could not be written), and follows the folder from
    /// then on.
    pub fn start(
        self,
        initial: Outcome,
        parts: Parts,
        in_force: oneshot::Sender<Option<String>>,
    ) -> io::Result<ControlThread> {
        let Parts {
            kernel,
            proxy,
            state,
            dns,
            inherited,
        } = parts;
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
            pods: Pods::new(dns, host_netns, inherited),
            kernel,
            proxy,
            state,
        };
        let events = messages.clone();
        let thread = thread::Builder::new()
            .name("control".into())
            .spawn(move || {
                mesh.put_in_force(&initial);
                mesh.pods.forget_inherited();
                // Only who takes over waits for it.
                let _ = in_force.send(mesh.state.maps_error());
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
                let another_serves = mesh.follow(&inbox);
                drop(watcher);
                match heartbeat {
                    Ok(heartbeat) if another_serves => heartbeat.leave(),
                    Ok(heartbeat) => heartbeat.stop(),
                    Err(_) => {}
                }
            })?;
        Ok(ControlThread { messages, thread })
    }
}

impl ControlThread {
    /// Ends the thread, and tells the programs that the agent is gone. What is in force stays. The
    /// listeners must stay open until this returns.
    pub async fn stop(self) {
        self.end(Message::Stop).await;
    }

    /// As [`Self::stop`], but another agent lives.
    pub async fn leave(self) {
        self.end(Message::Leave).await;
    }

    async fn end(self, last: Message) {
        let _ = self.messages.send(last);
        let _ = self.thread.join();
        tokio::time::sleep(GRACE).await;
    }

    /// From here on the maps are another agent's to write, until [`Self::resume`]. Gives descriptors of the
    /// pods' listeners, which are still served here.
    pub async fn pause(&self) -> io::Result<Vec<(Label, OwnedFd)>> {
        let (answer, wait) = oneshot::channel();
        let _ = self.messages.send(Message::Pause(answer));
        wait.await
            .unwrap_or_else(|_| Err(io::Error::other("the control thread is gone")))
    }

    /// Takes the maps back.
    pub fn resume(&self) {
        let _ = self.messages.send(Message::Resume);
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
    /// Follows the folder and the pods until the agent ends. True: another one serves by then.
    fn follow(&mut self, inbox: &mpsc::Receiver<Message>) -> bool {
        loop {
            match inbox.recv_timeout(TICK) {
                Ok(Message::Files(files)) => self.change(files),
                Ok(Message::Pause(answer)) => {
                    let _ = answer.send(self.pods.listeners());
                    if let Some(another_serves) = self.rest(inbox) {
                        return another_serves;
                    }
                }
                Ok(Message::Leave) => return true,
                Ok(Message::Stop) | Err(mpsc::RecvTimeoutError::Disconnected) => return false,
                Ok(Message::Resume) => {}
                Err(mpsc::RecvTimeoutError::Timeout) => self.look_after_pods(),
            }
        }
    }

    /// Touches nothing until it is known who serves. None: this agent does.
    fn rest(&mut self, inbox: &mpsc::Receiver<Message>) -> Option<bool> {
        let mut changed = None;
        loop {
            match inbox.recv() {
                Ok(Message::Files(files)) => changed = Some(files),
                Ok(Message::Pause(answer)) => {
                    let _ = answer.send(self.pods.listeners());
                }
                Ok(Message::Leave) => return Some(true),
                Ok(Message::Stop) | Err(_) => return Some(false),
                Ok(Message::Resume) => break,
            }
        }
        // The other one may have written whatever it wanted to.
        if let Err(error) = self.kernel.reread() {
            tracing::error!(%error, "reading the maps again: restart this agent");
        }
        let snapshot = self.state.snapshot_now();
        self.write_maps(&snapshot);
        if let Some(files) = changed {
            self.change(files);
        }
        None
    }

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
        } else {
            self.end_datagrams(&snapshot);
        }
        tell_cut(self.kernel.cut_again(&self.pods.namespaces(&snapshot)));
        self.state.set_pods(&self.pods);
        match self.kernel.tidy() {
            Ok(gone) => gone.iter().for_each(|folder| {
                tracing::info!(folder = %folder.display(), "removed: its last connection has ended");
            }),
            Err(error) => tracing::warn!(%error, "what another layout has left stays"),
        }
    }

    fn end_datagrams(&self, snapshot: &Snapshot) {
        match self.kernel.end_datagrams(&self.pods.namespaces(snapshot)) {
            Ok(0) => {}
            Ok(ended) => tracing::info!(ended, "ended UDP sockets whose endpoint has gone"),
            Err(error) => {
                tracing::error!(%error, "UDP sockets may still be connected to endpoints that are gone");
            }
        }
    }

    fn write_maps(&mut self, snapshot: &Snapshot) {
        if let Err(error) = self.kernel.look_for_unseen(&self.pods.namespaces(snapshot)) {
            tracing::warn!(%error, "ports that were listened on before the agent may count as open");
        }
        let written = self.kernel.apply(snapshot, &self.pods.enrolled());
        if let Err(error) = &written {
            tracing::error!(%error, "not everything could be written to the maps");
        }
        // Before anybody can learn that the agent is ready: until the heartbeat's own thread runs, connections
        // that need the agent would do without.
        if let Err(error) = self.kernel.beat() {
            tracing::error!(%error, "writing the heartbeat");
        }
        let attached = self.kernel.attach();
        match &attached {
            Ok(false) => {}
            Ok(true) => {
                // Ports that were listened on meanwhile: the other programs were told, not these.
                let pods = self.pods.namespaces(snapshot);
                let pods: Vec<_> = pods.iter().map(|(netns, _)| *netns).collect();
                if let Err(error) = self.kernel.note_listeners(&pods) {
                    tracing::warn!(%error, "listeners that were there before are not accelerated");
                }
                tracing::info!("the programs of another layout are replaced");
            }
            Err(error) => tracing::error!(%error, "the programs of another layout stay in force"),
        }
        // New connections are judged by the new policies from here on; now the old ones.
        tell_cut(self.kernel.cut(&self.pods.namespaces(snapshot)));
        self.end_datagrams(snapshot);
        match self
            .kernel
            .close_dead(snapshot, &self.pods.namespaces(snapshot))
        {
            Ok(0) => {}
            Ok(closed) => tracing::info!(closed, "closed connections to endpoints that are gone"),
            Err(error) => {
                tracing::error!(%error, "connections to endpoints that are gone may still be open");
            }
        }
        // Pods first: with the maps the agent is ready, unless a pod is not.
        self.state.set_pods(&self.pods);
        self.state.set_maps_error(
            attached
                .err()
                .map(|error| error.to_string())
                .or_else(|| written.err().map(|error| error.to_string())),
        );
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
