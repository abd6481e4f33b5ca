//! What the admin server serves, gathered from every part.

use std::{
    cell::OnceCell,
    io,
    net::{Ipv4Addr, SocketAddr},
    process,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use mesh_common::{LAYOUT, connection::Plain, names::NameKind, policy::Verdict};

use crate::{
    admin::{
        AccelerationState, AccelerationStatus, AdminState, AttachedProgram, ConfigCounts,
        ConnectionRow, ConnectionWay, EnrolledPod, EventPage, Status,
    },
    config::model::{Report, State},
    dns::Dns,
    kernel::{
        connections::{Direction, LiveConnection, why},
        node::Kernel,
    },
    mesh::model::Snapshot,
    telemetry::Telemetry,
};

use super::{counters::Counters, events::Events, pods::Pods};

/// What changes while the agent runs.
#[derive(Default)]
struct Progress {
    pods: Vec<EnrolledPod>,
    pod_failure: Option<String>,
    source_error: Option<String>,
    maps_error: Option<String>,
    /// The maps were written at least once.
    in_kernel: bool,
}

/// The agent as the admin server sees it.
pub struct AgentState {
    node: String,
    started: Instant,
    kernel: Arc<Kernel>,
    counters: Counters,
    events: Arc<Events>,
    /// Of names; absent where the pods' own resolvers have them.
    dns: Option<Arc<Dns>>,
    snapshot: Arc<ArcSwap<Snapshot>>,
    reports: ArcSwap<Vec<Report>>,
    progress: Mutex<Progress>,
    /// Once ready, always ready: a broken pod that comes later must not take the node out of service.
    was_ready: AtomicBool,
}

impl AgentState {
    /// Not ready yet.
    pub fn new(
        node: String,
        kernel: Arc<Kernel>,
        telemetry: Arc<Telemetry>,
        snapshot: Arc<ArcSwap<Snapshot>>,
        dns: Option<Arc<Dns>>,
        events: Arc<Events>,
    ) -> Self {
        Self {
            node,
            started: Instant::now(),
            counters: Counters::new(
                Arc::clone(&kernel),
                telemetry,
                Arc::clone(&events),
                dns.as_ref().map(|dns| Arc::clone(dns.counters())),
            ),
            events,
            dns,
            kernel,
            snapshot,
            reports: ArcSwap::default(),
            progress: Mutex::default(),
            was_ready: AtomicBool::new(false),
        }
    }

    fn progress(&self) -> std::sync::MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The snapshot in force.
    pub fn snapshot_now(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Puts a snapshot in force for the proxy: from here on every request sees it.
    pub fn set_snapshot(&self, snapshot: Arc<Snapshot>) {
        self.counters.remember(&snapshot);
        self.snapshot.store(snapshot);
    }

    /// What became of each document.
    pub fn set_reports(&self, reports: Vec<Report>) {
        self.reports.store(Arc::new(reports));
    }

    /// Why the source cannot be read; None where it can.
    pub fn set_source_error(&self, error: Option<String>) {
        self.progress().source_error = error;
    }

    /// What could not be written to the maps; None: all of it was.
    pub fn set_maps_error(&self, error: Option<String>) {
        self.counters.set_incomplete(error.is_some());
        let mut progress = self.progress();
        progress.maps_error = error;
        progress.in_kernel = true;
    }

    /// See [`Self::set_maps_error`].
    pub fn maps_error(&self) -> Option<String> {
        self.progress().maps_error.clone()
    }

    /// Which pods are enrolled.
    pub fn set_pods(&self, pods: &Pods) {
        let rows = pods.rows().into_iter().map(|pod| EnrolledPod {
            name: pod.name.to_string(),
            netns: pod.netns,
            listener: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, pod.listener))),
            dns: (pod.dns != 0).then(|| SocketAddr::from((Ipv4Addr::LOCALHOST, pod.dns))),
        });
        let mut progress = self.progress();
        progress.pods = rows.collect();
        progress.pod_failure = pods.failure();
    }

    /// `holders`: who else holds sockets, for people; asked where one was refused.
    fn row(&self, connection: &LiveConnection, holders: &dyn Fn() -> String) -> ConnectionRow {
        let name = |kind, id| self.kernel.name(kind, id);
        let accelerated = connection.request == Direction::Redirected
            || connection.response == Direction::Redirected;
        let reason = match (connection.request, connection.response) {
            (Direction::Redirected, Direction::Plain(why)) => {
                Some(format!("responses are plain TCP: {why}"))
            }
            (Direction::Plain(why), Direction::Redirected) => {
                Some(format!("requests are plain TCP: {why}"))
            }
            _ if accelerated => None,
            (Direction::Plain(why), _) | (Direction::Idle, Direction::Plain(why)) => {
                Some(why.to_owned())
            }
            _ => Some("nothing was sent yet".to_owned()),
        };
        let reason = reason.map(|reason| {
            if reason.contains(why(Plain::Refused as u32)) {
                return format!("{reason}{}", holders());
            }
            reason
        });
        ConnectionRow {
            source: name(NameKind::Workload, connection.source).unwrap_or_else(|| "unknown".into()),
            destination: name(NameKind::Workload, connection.destination),
            service: name(NameKind::Service, connection.service),
            way: match connection.way {
                way if way == Verdict::Direct as u32 => ConnectionWay::Direct,
                way if way == Verdict::Agent as u32 => ConnectionWay::Agent,
                _ => ConnectionWay::Pass,
            },
            accelerated,
            reason,
            local: connection.client,
            remote: connection.server,
            bytes_sent: connection.sent,
            bytes_received: connection.received,
            bytes_redirected: connection.redirected,
            age_ms: u64::try_from(connection.age.as_millis()).unwrap_or(u64::MAX),
            rtt_us: known_micros(connection.rtt),
            min_rtt_us: known_micros(connection.min_rtt),
            retransmits: connection.retransmits,
        }
    }
}

impl AdminState for AgentState {
    fn ready(&self) -> Result<(), String> {
        if self.was_ready.load(Ordering::Relaxed) {
            return Ok(());
        }
        let progress = self.progress();
        if !progress.in_kernel {
            return Err("the configuration is not in force yet".into());
        }
        if let Some(reason) = progress
            .maps_error
            .as_ref()
            .or(progress.pod_failure.as_ref())
        {
            return Err(reason.clone());
        }
        self.was_ready.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot_now()
    }

    fn reports(&self) -> Arc<Vec<Report>> {
        self.reports.load_full()
    }

    fn status(&self) -> Status {
        let acceleration = self.kernel.acceleration();
        let reports = self.reports.load();
        let progress = self.progress();
        let rejected = reports
            .iter()
            .find(|report| report.state == State::Rejected)
            .map(|report| {
                let reason = report.reason.as_deref().unwrap_or_default();
                format!("{}:{}: {reason}", report.file, report.line)
            });
        Status {
            version: env!("CARGO_PKG_VERSION").into(),
            layout: LAYOUT,
            node: self.node.clone(),
            pid: process::id(),
            uptime_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            snapshot: self.snapshot.load().version,
            pods: progress.pods.clone(),
            acceleration: AccelerationStatus {
                state: if acceleration.on {
                    AccelerationState::On
                } else {
                    AccelerationState::Off
                },
                reason: acceleration.reason,
            },
            dns: self.dns.is_some(),
            programs: self
                .kernel
                .attached()
                .iter()
                .map(|program| AttachedProgram {
                    name: program.name.clone(),
                    hook: program.hook.clone(),
                    id: program.id,
                })
                .collect(),
            config: ConfigCounts::of(&reports),
            other_socket_maps: self.kernel.other_socket_maps(),
            last_config_error: progress
                .source_error
                .clone()
                .or_else(|| progress.maps_error.clone())
                .or_else(|| progress.pod_failure.clone())
                .or(rejected),
        }
    }

    fn metrics(&self, openmetrics: bool) -> String {
        self.counters.render(openmetrics)
    }

    fn connections(&self) -> io::Result<Vec<ConnectionRow>> {
        let connections = self.kernel.connections()?;
        let found = OnceCell::new();
        let holders = || {
            let text = found.get_or_init(|| {
                let maps = self.kernel.other_socket_maps();
                let maps: Vec<String> = maps.iter().map(ToString::to_string).collect();
                if maps.is_empty() {
                    return String::new();
                }
                format!(" ({})", maps.join("; "))
            });
            text.clone()
        };
        Ok(connections
            .iter()
            .map(|connection| self.row(connection, &holders))
            .collect())
    }

    fn events(&self, after: u64, wait: Duration) -> EventPage {
        self.events.page(after, wait)
    }

    fn set_acceleration(&self, on: bool) -> Result<(), String> {
        self.kernel
            .set_acceleration(on)
            .map_err(|error| error.to_string())
    }
}

/// In microseconds; None where it is 0, unknown.
fn known_micros(time: Duration) -> Option<u64> {
    u64::try_from(time.as_micros())
        .ok()
        .filter(|&time| time > 0)
}
