//! The composition root of `mesh-agent`: builds every part, binds them together, ends them in order.
//!
//! | thread | does |
//! |---|---|
//! | main | signals and the admin server |
//! | control | configuration → snapshot → pods → kernel ([`control`]) |
//! | worker-N | connections (`proxy`) |
//! | dns | pods' queries for names (`dns`) |
//! | heartbeat | tells the programs that the agent lives |

mod control;
mod counters;
mod heartbeat;
mod interception;
mod logging;
mod only_one;
mod pods;
mod state;

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    admin::{AdminError, Server},
    cli::{
        agent_args::{RunArgs, Source, Switch, UninstallArgs, UsageError},
        exit::ExitStatus,
    },
    config::{FolderError, FolderSource},
    dns::{Dns, PodNetwork},
    kernel::{
        loader::LoadError,
        node::{self, Kernel, KernelOptions},
    },
    mesh::model::Snapshot,
    proxy::{Proxy, ProxyConfig, ProxyError, interception::Interception},
    telemetry::Telemetry,
};

use self::{
    control::{Control, ControlError},
    interception::KernelInterception,
    only_one::{AlreadyRunning, OnlyOne},
    state::AgentState,
};

/// The domain of the mesh's names until a mesh configuration says another.
const DOMAIN: &str = "cluster.local";

/// How long requests that are under way may take to finish once the agent is told to stop.
const DRAIN: Duration = Duration::from_secs(10);

/// Why the agent ends, or does not start.
#[derive(Debug, thiserror::Error)]
enum AgentError {
    #[error(transparent)]
    Usage(#[from] UsageError),
    #[error(transparent)]
    Logging(#[from] logging::LoggingError),
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error(transparent)]
    AlreadyRunning(#[from] AlreadyRunning),
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error(transparent)]
    Kernel(#[from] LoadError),
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    #[error("{operation}: {source}")]
    System {
        operation: &'static str,
        source: std::io::Error,
    },
}

impl AgentError {
    /// The statuses of the contract with whoever starts the agent.
    fn status(&self) -> ExitStatus {
        match self {
            Self::Usage(_) | Self::Logging(_) => ExitStatus::Usage,
            Self::Folder(_) | Self::Control(_) => ExitStatus::Config,
            Self::Kernel(LoadError::Privilege { .. }) => ExitStatus::NoPermission,
            Self::Admin(AdminError::Bind { source, .. })
                if source.kind() == std::io::ErrorKind::PermissionDenied =>
            {
                ExitStatus::NoPermission
            }
            Self::Kernel(_)
            | Self::AlreadyRunning(_)
            | Self::Admin(_)
            | Self::Proxy(_)
            | Self::System { .. } => ExitStatus::Unavailable,
        }
    }
}

fn system(operation: &'static str) -> impl FnOnce(std::io::Error) -> AgentError {
    move |source| AgentError::System { operation, source }
}

/// `mesh-agent run`. Returns when the agent has stopped.
pub fn run(args: &RunArgs) -> ExitStatus {
    match try_run(args) {
        Ok(()) => ExitStatus::Ok,
        Err(error) => {
            // The log may be what failed, and a supervisor shows the last line of standard error.
            eprintln!("mesh-agent: {error}");
            error.status()
        }
    }
}

/// `mesh-agent uninstall`. Idempotent.
pub fn uninstall(args: &UninstallArgs) -> ExitStatus {
    let outcome = args
        .node_name()
        .map_err(AgentError::from)
        .and_then(|node| Ok((node::uninstall(&args.bpffs, &node)?, node)));
    match outcome {
        Ok((true, node)) => {
            println!("removed what was pinned for node {node}");
            ExitStatus::Ok
        }
        Ok((false, node)) => {
            println!(
                "nothing is pinned for node {node} below {}",
                args.bpffs.display()
            );
            ExitStatus::Ok
        }
        Err(error) => {
            eprintln!("mesh-agent: {error}");
            error.status()
        }
    }
}

fn try_run(args: &RunArgs) -> Result<(), AgentError> {
    let Source::Folder(folder) = args.source()?;
    let node = args.node_name()?;
    logging::start(args.log_format, &args.log_level)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(system("starting the runtime"))?;
    runtime.block_on(async {
        // What the user wrote first, then what may be taken, then the kernel: a wrong start changes
        // nothing.
        let source = FolderSource::open(&folder)?;
        let (control, initial) = Control::read(source, &node, DOMAIN, &args.host_netns)?;
        let _only_one = OnlyOne::of(&args.bpffs, &node)?;
        let admin = Server::bind(args.admin).await?;
        let kernel = Arc::new(Kernel::start(&KernelOptions {
            bpffs: args.bpffs.clone(),
            node: node.clone(),
            cgroup: args.cgroup.clone(),
            acceleration: args.acceleration,
            capacities: args.map_capacity.clone(),
        })?);
        let acceleration = kernel.acceleration();
        tracing::info!(
            node,
            programs = kernel.attached().len(),
            acceleration = acceleration.on,
            reason = acceleration.reason,
            "attached"
        );

        let snapshot = Arc::new(ArcSwap::new(Arc::new(Snapshot::default())));
        let telemetry = Arc::new(Telemetry::default());
        let workers = args
            .workers
            .or_else(|| std::thread::available_parallelism().ok());
        let interception: Arc<dyn Interception> =
            Arc::new(KernelInterception::new(Arc::clone(&kernel)));
        let config = ProxyConfig {
            workers: workers.map_or(1, std::num::NonZero::get),
            drain: DRAIN,
            ..ProxyConfig::default()
        };
        let proxy = Proxy::start(&config, &snapshot, &interception, &telemetry)?;
        let proxy = Arc::new(proxy);
        let dns = start_dns(args.dns, &snapshot, &kernel)?;
        let state = Arc::new(AgentState::new(
            node,
            Arc::clone(&kernel),
            telemetry,
            Arc::clone(&snapshot),
            dns.clone(),
        ));
        let control = control
            .start(
                initial,
                kernel,
                Arc::clone(&proxy),
                Arc::clone(&state),
                dns.clone(),
            )
            .map_err(system("starting the control thread"))?;

        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let serving = tokio::spawn(admin.run(state, async {
            let _ = stopped.await;
        }));
        let signal = wait_for_signal()
            .await
            .map_err(system("waiting for signals"))?;
        tracing::info!(signal, "stopping: requests under way are finished");
        // New connections get their failure policy before the first listener goes.
        control.stop().await;
        if let Some(dns) = dns {
            dns.drain().await;
        }
        proxy.drain().await;
        let _ = stop.send(());
        let _ = serving.await;
        Ok(())
    })
}

fn start_dns(
    wanted: Switch,
    snapshot: &Arc<ArcSwap<Snapshot>>,
    kernel: &Arc<Kernel>,
) -> Result<Option<Arc<Dns>>, AgentError> {
    if wanted == Switch::Off {
        return Ok(None);
    }
    let network: Arc<dyn PodNetwork> = Arc::new(KernelInterception::new(Arc::clone(kernel)));
    let dns = Dns::start(snapshot, &network).map_err(system("starting the thread for names"))?;
    Ok(Some(Arc::new(dns)))
}

async fn wait_for_signal() -> std::io::Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => Ok("SIGTERM"),
        _ = interrupt.recv() => Ok("SIGINT"),
    }
}
