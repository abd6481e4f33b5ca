//! The kernel's counters as metrics: `istio_tcp_*` for direct connections, `zerohop_*` for what only
//! Zerohop knows.

mod failures;
mod pairs;

use std::{
    collections::HashMap,
    fmt::Write as _,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use mesh_common::{
    names::NameKind,
    policy::Verdict,
    traffic::{Event, Traffic, TrafficKey},
};

use super::events::Events;
use crate::{
    dns::DnsCounters,
    kernel::{
        connections::open::Open,
        maps::place_name,
        node::{Counted, Kernel},
        tables::verdict_name,
    },
    mesh::model::{Snapshot, WorkloadLabels},
    telemetry::{self, Peers, ResponseFlags, ServiceLabels, TcpKey, TcpTotals, Telemetry},
};

/// Every name that a number in the maps may stand for, also of what has gone since.
#[derive(Default)]
struct Known {
    workloads: HashMap<String, WorkloadLabels>,
    services: HashMap<String, ServiceLabels>,
    /// What was said last: a counter never goes back, though a connection that closes between two
    /// readings may be missing from one of them.
    said: HashMap<TrafficKey, Counted>,
}

/// Reads the kernel's counters when metrics are asked for.
pub struct Counters {
    kernel: Arc<Kernel>,
    telemetry: Arc<Telemetry>,
    events: Arc<Events>,
    dns: Option<Arc<DnsCounters>>,
    known: Mutex<Known>,
    incomplete: AtomicBool,
}

impl Counters {
    /// Of these maps, into this telemetry.
    pub fn new(
        kernel: Arc<Kernel>,
        telemetry: Arc<Telemetry>,
        events: Arc<Events>,
        dns: Option<Arc<DnsCounters>>,
    ) -> Self {
        Self {
            incomplete: AtomicBool::new(false),
            kernel,
            telemetry,
            events,
            dns,
            known: Mutex::default(),
        }
    }

    /// Learns the labels of what is in force.
    pub fn remember(&self, snapshot: &Snapshot) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, workload) in &snapshot.workloads {
            known
                .workloads
                .insert(name.to_string(), workload.telemetry.clone());
        }
        for (host, service) in &snapshot.services {
            known
                .services
                .insert(host.to_string(), ServiceLabels::of(service));
        }
    }

    /// Whether everything that is in force could be written to the maps.
    pub fn set_incomplete(&self, incomplete: bool) {
        self.incomplete.store(incomplete, Ordering::Relaxed);
    }

    /// Every family.
    pub fn render(&self, openmetrics: bool) -> String {
        let mut out = String::new();
        let counted = self.totals();
        let totals = counted
            .iter()
            .map(|(key, counted)| (*key, counted.total))
            .collect();
        self.hand_over(&totals);
        self.telemetry.render(&mut out, openmetrics);
        render_ways(&totals, &mut out, openmetrics);
        self.render_events(&mut out, openmetrics);
        self.render_denials(&mut out, openmetrics);
        pairs::render(&self.kernel, &counted, &mut out, openmetrics);
        failures::render(&self.kernel, &mut out, openmetrics);
        self.render_strays(&mut out, openmetrics);
        self.render_incomplete(&mut out);
        if let Some(dns) = &self.dns {
            dns.render(&mut out, openmetrics);
        }
        if openmetrics {
            out.push_str("# EOF\n");
        }
        out
    }

    fn totals(&self) -> HashMap<TrafficKey, Counted> {
        let read = match self.kernel.traffic() {
            Ok(read) => read,
            Err(error) => {
                tracing::warn!(%error, "reading the kernel's counters");
                HashMap::new()
            }
        };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        for said in known.said.values_mut() {
            said.open = Open::default();
        }
        for (key, now) in read {
            let said = known.said.entry(key).or_default();
            let (then, total) = (said.total, now.total);
            said.open = now.open;
            said.total = Traffic {
                opened: then.opened.max(total.opened),
                closed: then.closed.max(total.closed),
                sent: then.sent.max(total.sent),
                received: then.received.max(total.received),
                redirected_sent: then.redirected_sent.max(total.redirected_sent),
                redirected_received: then.redirected_received.max(total.redirected_received),
                retransmits: then.retransmits.max(total.retransmits),
                // From the map alone, where they only grow.
                ..total
            };
        }
        known.said.clone()
    }

    /// Direct connections have no other reporter; what goes by the agent, the proxy counts itself.
    fn hand_over(&self, totals: &HashMap<TrafficKey, Traffic>) {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let unknown = || telemetry::same_labels(telemetry::UNKNOWN);
        let mut sums: HashMap<TcpKey, TcpTotals> = HashMap::new();
        for (key, traffic) in totals
            .iter()
            .filter(|(key, _)| key.way != Verdict::Agent as u32)
        {
            let workload = |id| {
                let name = self.kernel.name(NameKind::Workload, id);
                let Some(name) = name else { return unknown() };
                match known.workloads.get(&name) {
                    Some(labels) => labels.clone(),
                    None => labels_of_gone(&name),
                }
            };
            let service = self
                .kernel
                .name(NameKind::Service, key.service)
                .and_then(|host| known.services.get(&host).cloned())
                .unwrap_or_else(ServiceLabels::unknown);
            let labels = TcpKey {
                peers: Peers {
                    source: workload(key.source),
                    destination: workload(key.destination),
                    service,
                },
                flags: ResponseFlags::default(),
            };
            // Seen from the client, as Istio counts: received is the request, sent the response.
            sums.entry(labels).or_default().add(TcpTotals {
                opened: traffic.opened,
                closed: traffic.closed,
                sent: traffic.received,
                received: traffic.sent,
            });
        }
        for (labels, totals) in sums {
            self.telemetry.set_tcp(labels, totals);
        }
    }

    fn render_denials(&self, out: &mut String, openmetrics: bool) {
        let mut denials = match self.kernel.denials() {
            Ok(denials) => denials,
            Err(error) => {
                tracing::warn!(%error, "reading the kernel's count of denials");
                return;
            }
        };
        denials
            .sort_unstable_by_key(|(key, _)| (key.source, key.destination, key.policy, key.place));
        family(
            out,
            "zerohop_denied_connections",
            "Connections that policies refused: at the client's connect, at the SYN (again for each \
             retransmission), or by the agent (for each request).",
            openmetrics,
        );
        let name = |kind, id| {
            self.kernel
                .name(kind, id)
                .unwrap_or_else(|| "unknown".into())
        };
        for (key, count) in denials {
            let _ = writeln!(
                out,
                "zerohop_denied_connections_total{{source=\"{}\",destination=\"{}\",policy=\"{}\",\
                 place=\"{}\"}} {count}",
                escaped(&name(NameKind::Workload, key.source)),
                escaped(&name(NameKind::Workload, key.destination)),
                escaped(&name(NameKind::Policy, key.policy)),
                place_name(key.place),
            );
        }
    }

    fn render_strays(&self, out: &mut String, openmetrics: bool) {
        family(
            out,
            "zerohop_stray_connections",
            "Connections that somebody dialled to the agent's listeners in a pod, which were closed.",
            openmetrics,
        );
        let _ = writeln!(
            out,
            "zerohop_stray_connections_total {}",
            self.kernel.strays()
        );
    }

    fn render_incomplete(&self, out: &mut String) {
        const NAME: &str = "zerohop_maps_incomplete";
        let _ = writeln!(
            out,
            "# HELP {NAME} 1 where not all of the configuration fits into the BPF maps (meshctl status says \
             which).\n# TYPE {NAME} gauge\n{NAME} {}",
            u8::from(self.incomplete.load(Ordering::Relaxed))
        );
    }

    fn render_events(&self, out: &mut String, openmetrics: bool) {
        let events = match self.kernel.events() {
            Ok(events) => events,
            Err(error) => {
                tracing::warn!(%error, "reading the kernel's event counters");
                return;
            }
        };
        family(
            out,
            "zerohop_kernel_events",
            "What the programs met (docs/bpf-maps.md).",
            openmetrics,
        );
        for (event, count) in &events {
            let _ = writeln!(
                out,
                "zerohop_kernel_events_total{{event=\"{event}\"}} {count}"
            );
        }
        let (_, name) = Event::ALL[Event::EventLost as usize];
        let lost = events.iter().find(|(event, _)| *event == name);
        family(
            out,
            "zerohop_events_lost",
            "Events that nobody got: the ring was full, or a follower too slow.",
            openmetrics,
        );
        for (place, count) in [
            ("ring", lost.map_or(0, |(_, count)| *count)),
            ("follower", self.events.lost()),
        ] {
            let _ = writeln!(out, "zerohop_events_lost_total{{at=\"{place}\"}} {count}");
        }
    }
}

/// Labels of a pod that is in the maps and was gone before this agent came: what its name says.
fn labels_of_gone(name: &str) -> WorkloadLabels {
    let (namespace, pod) = name.split_once('/').unwrap_or((telemetry::UNKNOWN, name));
    WorkloadLabels {
        workload: pod.into(),
        namespace: namespace.into(),
        ..telemetry::same_labels(telemetry::UNKNOWN)
    }
}

/// A label's value as both formats want it.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"")
}

/// Reads one number of a pair's totals.
type Field = fn(&Traffic) -> u64;

fn render_ways(totals: &HashMap<TrafficKey, Traffic>, out: &mut String, openmetrics: bool) {
    let mut ways: HashMap<&str, Traffic> = HashMap::new();
    for (key, traffic) in totals {
        let sum = ways.entry(verdict_name(key.way)).or_default();
        sum.opened += traffic.opened;
        sum.closed += traffic.closed;
        sum.sent += traffic.sent;
        sum.received += traffic.received;
        sum.redirected_sent += traffic.redirected_sent;
        sum.redirected_received += traffic.redirected_received;
    }
    let mut ways: Vec<_> = ways.into_iter().collect();
    ways.sort_unstable_by_key(|(way, _)| *way);
    let families: [(&str, &str, Field); 4] = [
        (
            "zerohop_connections_opened",
            "Connections of enrolled pods, by the way they took.",
            |t| t.opened,
        ),
        (
            "zerohop_connections_closed",
            "Of those, closed ones.",
            |t| t.closed,
        ),
        ("zerohop_bytes", "Payload bytes of both directions.", |t| {
            t.sent + t.received
        }),
        (
            "zerohop_redirected_bytes",
            "Of those, bytes that went from socket to socket.",
            |t| t.redirected_sent + t.redirected_received,
        ),
    ];
    for (name, help, field) in families {
        family(out, name, help, openmetrics);
        for (way, traffic) in &ways {
            let _ = writeln!(out, "{name}_total{{way=\"{way}\"}} {}", field(traffic));
        }
    }
}

/// A counter's head: OpenMetrics names the family, Prometheus' text format the sample.
fn family(out: &mut String, name: &str, help: &str, openmetrics: bool) {
    let suffix = if openmetrics { "" } else { "_total" };
    typed_family(out, &format!("{name}{suffix}"), "counter", help);
}

/// The head of a family whose samples' names begin with its own.
fn typed_family(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}
