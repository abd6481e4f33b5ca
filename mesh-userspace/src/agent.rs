//! The composition root of `mesh-agent`: builds every part, binds them together, ends them in order.
//!
//! | thread | does |
//! |---|---|
//! | main | signals and the admin server |
//! | control | configuration → snapshot → pods → kernel ([`control`]) |
//! | worker-N | connections (`proxy`) |
//! | dns | pods' queries for names (`dns`) |
//! | events | what the programs tell of single connections ([`events`]) |
//! | heartbeat | tells the programs that the agent lives |

mod control;
mod counters;
mod events;
mod handover;
mod heartbeat;
mod interception;
mod logging;
mod only_one;
mod pods;
mod signals;
mod state;
mod stop;

use std::{mem, sync::Arc, time::Duration};

use arc_swap::ArcSwap;

use crate::{
    admin::{AdminError, Server},
    cli::{
        agent_args::{RunArgs, Source, Switch, UninstallArgs, UsageError},
        exit::ExitStatus,
    },
    config::{FolderError, FolderSource},
    dns::{Dns, PodNetwork},
    kernel::{
        loader::{self, LoadError},
        node::{self, Kernel, KernelOptions},
    },
    mesh::model::Snapshot,
    proxy::{Proxy, ProxyConfig, ProxyError, interception::Interception},
    telemetry::Telemetry,
};

use self::{
    control::{Control, ControlError},
    events::{Events, EventsThread},
    handover::{HandoverError, take::Predecessor},
    interception::KernelInterception,
    only_one::{AlreadyRunning, OnlyOne},
    signals::Signals,
    state::AgentState,
    stop::Running,
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
    #[error("taking over from the agent that runs: {0}")]
    Takeover(#[source] HandoverError),
    #[error("taking over from the agent that runs, which goes on: {0}")]
    NotInForce(String),
    #[error(
        "another agent began to take over and did not end it: start an agent for this node ({0})"
    )]
    Displaced(#[source] HandoverError),
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
            | Self::Takeover(_)
            | Self::NotInForce(_)
            | Self::Displaced(_)
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
        let layout = args.layout.clone().unwrap_or_else(loader::own_layout);
        let (only_one, mut predecessor) = claim(args, &node, &layout)?;
        let admin = match predecessor.as_mut().and_then(|old| old.admin.take()) {
            Some((address, listener)) if address == args.admin => {
                Server::adopt(listener).map_err(system("taking over the admin address"))?
            }
            _ => Server::bind(args.admin).await?,
        };
        let address = admin.address();
        let listener = admin
            .again()
            .map_err(system("duplicating the admin socket"))?;
        let kernel = Arc::new(Kernel::start(&KernelOptions {
            bpffs: args.bpffs.clone(),
            node: node.clone(),
            cgroup: args.cgroup.clone(),
            acceleration: args.acceleration,
            capacities: args.map_capacity.clone(),
            layout: Some(layout.clone()),
            takeover: predecessor.is_some(),
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
        let events = Arc::new(Events::new(Arc::clone(&kernel)));
        let events_thread =
            EventsThread::start(&events).map_err(system("reading the ring of events"))?;
        let interception: Arc<dyn Interception> = Arc::new(KernelInterception::new(
            Arc::clone(&kernel),
            Arc::clone(&events),
        ));
        let config = ProxyConfig {
            workers: workers.map_or(1, std::num::NonZero::get),
            drain: DRAIN,
            ..ProxyConfig::default()
        };
        let proxy = Proxy::start(&config, &snapshot, &interception, &telemetry)?;
        let proxy = Arc::new(proxy);
        let dns = start_dns(args.dns, &snapshot, &kernel, &events)?;
        let state = Arc::new(AgentState::new(
            node,
            Arc::clone(&kernel),
            telemetry,
            Arc::clone(&snapshot),
            dns.clone(),
            events,
        ));
        let (in_force, is_in_force) = tokio::sync::oneshot::channel();
        let control = control
            .start(
                initial,
                control::Parts {
                    kernel: Arc::clone(&kernel),
                    proxy: Arc::clone(&proxy),
                    state: Arc::clone(&state),
                    dns: dns.clone(),
                    inherited: predecessor
                        .as_mut()
                        .map(|old| mem::take(&mut old.pods))
                        .unwrap_or_default(),
                },
                in_force,
            )
            .map_err(system("starting the control thread"))?;

        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let serving = tokio::spawn(admin.run(state, async {
            let _ = stopped.await;
        }));
        let mut signals = Signals::new().map_err(system("waiting for signals"))?;
        if let Some(predecessor) = predecessor {
            match is_in_force.await {
                Ok(None) => predecessor.release().map_err(AgentError::Takeover)?,
                Ok(Some(error)) => return Err(AgentError::NotInForce(error)),
                Err(_) => {
                    return Err(AgentError::NotInForce("the control thread is gone".into()));
                }
            }
            tracing::info!("taken over");
        }
        let running = Running {
            bpffs: args.bpffs.clone(),
            layout,
            handed_over: args.handed_over,
            only_one,
            admin: (address, listener),
            control,
            kernel,
            dns,
            proxy,
            events: events_thread,
            admin_server: (stop, serving),
        };
        running.until_the_end(&mut signals).await
    })
}

/// The node's claim, from the agent that runs where this one is to take over from it.
fn claim(
    args: &RunArgs,
    node: &str,
    layout: &str,
) -> Result<(OnlyOne, Option<Predecessor>), AgentError> {
    let holder = if args.takeover {
        OnlyOne::holder(&args.bpffs, node)
            .map_err(system("looking for another agent of this node"))?
    } else {
        None
    };
    let Some(stream) = holder else {
        return Ok((OnlyOne::of(&args.bpffs, node)?, None));
    };
    let predecessor =
        Predecessor::ask(stream, &args.bpffs, layout).map_err(AgentError::Takeover)?;
    let claim = predecessor
        .claim
        .try_clone()
        .map_err(system("duplicating the node's claim"))?;
    Ok((OnlyOne::inherited(claim), Some(predecessor)))
}

fn start_dns(
    wanted: Switch,
    snapshot: &Arc<ArcSwap<Snapshot>>,
    kernel: &Arc<Kernel>,
    events: &Arc<Events>,
) -> Result<Option<Arc<Dns>>, AgentError> {
    if wanted == Switch::Off {
        return Ok(None);
    }
    let network: Arc<dyn PodNetwork> = Arc::new(KernelInterception::new(
        Arc::clone(kernel),
        Arc::clone(events),
    ));
    let dns = Dns::start(snapshot, &network).map_err(system("starting the thread for names"))?;
    Ok(Some(Arc::new(dns)))
}
