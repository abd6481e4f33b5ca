//! A snapshot as the contents of the maps: a pure function, so that what the kernel will do can be
//! tested and shown without one.

mod datagrams;

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    net::{IpAddr, SocketAddr},
};

use mesh_common::{
    IpBe, PortBe,
    balance::Balance,
    names::NameKind,
    policy::{self, Endpoint, ExcludedPort, FrontendKey, LocalPod, Verdict, flags},
};

use super::{access::Compiler, access_maps::PodAccess, alias, ids::Ids};
use crate::{
    config::model::{Acceleration, FailurePolicy, LoadBalancer, ObjectName},
    mesh::{
        self,
        model::{Service, Snapshot, Way, Workload},
    },
};

/// A local pod whose namespace is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Enrolled {
    /// Cookie of its network namespace.
    pub netns: u64,
    /// Of a pod in the host's namespace: the id of its cgroup.
    pub cgroup: Option<u64>,
    /// The agent's listener on 127.0.0.1 inside; 0 where there is none.
    pub listener: u16,
    /// The same on `::1`.
    pub listener6: u16,
    /// The agent's listeners for names inside; 0 where there are none.
    pub dns: u16,
    /// The same on `::1`: the first slot's port.
    pub dns6: u16,
}

/// What stands at a frontend; the group that holds the endpoints is chosen when it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frontend {
    /// Its number in the names map.
    pub service: u32,
    /// What becomes of connections.
    pub verdict: Verdict,
    /// How the kernel picks among the slots.
    pub balance: Balance,
    /// For how long a client keeps its endpoint; 0: it does not.
    pub affinity_seconds: u32,
    /// The slots, in order.
    pub endpoints: Vec<Endpoint>,
}

/// The contents of the maps that policy fills.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// netns cookie → pod; the host's, where it has pods, tells to look for the cgroup.
    pub workloads: HashMap<u64, policy::Workload>,
    /// cgroup id → pod.
    pub cgroup_pods: HashMap<u64, policy::Workload>,
    /// Address → pod of this node.
    pub local_pods: HashMap<IpBe, LocalPod>,
    /// Ports that stay plain TCP.
    pub excluded_ports: HashMap<ExcludedPort, u32>,
    /// Address and port → service.
    pub frontends: HashMap<FrontendKey, Frontend>,
    /// netns cookie → who may connect; pods that everybody may connect to have no entry.
    pub access: HashMap<u64, PodAccess>,
}

pub(super) const TCP: u16 = 6;

/// Compiles a snapshot for the pods that are enrolled.
pub fn compile(
    snapshot: &Snapshot,
    enrolled: &BTreeMap<ObjectName, Enrolled>,
    ids: &mut Ids,
) -> Tables {
    let mut tables = Tables::default();
    for (name, pod) in enrolled {
        if let Some(workload) = snapshot.workloads.get(name) {
            add_pod(&mut tables, workload, *pod, ids);
        }
    }
    add_access(&mut tables, snapshot, enrolled, ids);
    for (address, frontend) in &snapshot.frontends {
        let port = frontend.service_port();
        let verdict = match port.way {
            Way::Direct => Verdict::Direct,
            Way::Agent => Verdict::Agent,
            Way::Pass => Verdict::Pass,
            Way::Deny => Verdict::Deny,
        };
        let endpoints = slots(
            *address,
            port.endpoints.iter().chain(port.ipv6_endpoints.iter()),
            ids,
        );
        let service = ids.id(NameKind::Service, &frontend.service.host);
        tables.frontends.insert(
            key(*address, TCP),
            Frontend {
                service,
                verdict,
                balance: balance(port.load_balancer),
                affinity_seconds: affinity_seconds(&frontend.service),
                endpoints,
            },
        );
    }
    add_headless(&mut tables, snapshot, ids);
    datagrams::add(&mut tables, snapshot, ids);
    tables
}

fn workload_id(endpoint: &mesh::model::Endpoint, ids: &mut Ids) -> u32 {
    endpoint.workload.as_ref().map_or(0, |workload| {
        ids.id(NameKind::Workload, &workload.name.to_string())
    })
}

/// As the kernel knows it. Of the agent's ports too: while there is no agent the kernel picks.
fn balance(policy: LoadBalancer) -> Balance {
    match policy {
        LoadBalancer::Random | LoadBalancer::Passthrough => Balance::Random,
        LoadBalancer::RoundRobin => Balance::RoundRobin,
        LoadBalancer::LeastRequest => Balance::LeastConnections,
    }
}

fn affinity_seconds(service: &Service) -> u32 {
    let seconds = service
        .session_affinity
        .map_or(0, |timeout| timeout.as_secs());
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

/// The pods of a headless service stand at their own addresses, ready or not: who dials one means that one,
/// and the connection is the service's. Where several services have a pod, the first by host has it.
fn add_headless(tables: &mut Tables, snapshot: &Snapshot, ids: &mut Ids) {
    for service in snapshot.services.values().filter(|one| one.headless) {
        for port in &service.ports {
            for endpoint in port.endpoints.iter().chain(port.ipv6_endpoints.iter()) {
                let key = key(endpoint.address, TCP);
                let Entry::Vacant(vacant) = tables.frontends.entry(key) else {
                    continue;
                };
                let itself = Endpoint {
                    address: key.address,
                    port: key.port,
                    reserved: 0,
                    workload: workload_id(endpoint, ids),
                    threshold: u32::MAX,
                    alias: 0,
                };
                vacant.insert(Frontend {
                    service: ids.id(NameKind::Service, &service.host),
                    verdict: Verdict::Direct,
                    balance: Balance::Random,
                    affinity_seconds: 0,
                    endpoints: vec![itself],
                });
            }
        }
    }
}

/// What stands at an address of a service.
fn key(address: SocketAddr, protocol: u16) -> FrontendKey {
    FrontendKey {
        address: address.ip().into(),
        port: PortBe::new(address.port()),
        protocol,
    }
}

/// The ready ones as the programs choose among them, in the order in which these look for one. Of the family
/// of `address`: a socket of one cannot go on in the other.
fn slots<'e>(
    address: SocketAddr,
    endpoints: impl Iterator<Item = &'e mesh::model::Endpoint>,
    ids: &mut Ids,
) -> Vec<Endpoint> {
    let mut ready: Vec<_> = endpoints
        .filter(|endpoint| endpoint.ready && endpoint.address.is_ipv4() == address.is_ipv4())
        .collect();
    ready.sort_by_key(|endpoint| {
        let (address, port) = (endpoint.address.ip(), endpoint.address.port());
        policy::order(address.into(), PortBe::new(port))
    });
    let weights: Vec<u32> = ready.iter().map(|endpoint| endpoint.weight).collect();
    ready
        .iter()
        .zip(alias::table(&weights))
        .map(|(endpoint, slot)| Endpoint {
            address: endpoint.address.ip().into(),
            port: PortBe::new(endpoint.address.port()),
            reserved: 0,
            workload: workload_id(endpoint, ids),
            threshold: slot.threshold,
            alias: slot.alias,
        })
        .collect()
}

/// The node vouches for the pods that are enrolled: theirs are the identities.
fn add_access(
    tables: &mut Tables,
    snapshot: &Snapshot,
    enrolled: &BTreeMap<ObjectName, Enrolled>,
    ids: &mut Ids,
) {
    // Not those in the host's namespace: their address is that of everything that runs there.
    let pods = || {
        enrolled
            .iter()
            .filter(|(_, pod)| pod.cgroup.is_none())
            .filter_map(|(name, pod)| Some((snapshot.workloads.get(name)?.as_ref(), pod)))
    };
    let mut compiler = Compiler::new(pods().map(|(workload, _)| workload));
    for (workload, pod) in pods() {
        if let Some(access) = &workload.access {
            let entry = PodAccess {
                workload: ids.id(NameKind::Workload, &workload.name.to_string()),
                set: compiler.set(access, ids),
            };
            tables.access.insert(pod.netns, entry);
        }
    }
}

fn add_pod(tables: &mut Tables, workload: &Workload, pod: Enrolled, ids: &mut Ids) {
    let id = ids.id(NameKind::Workload, &workload.name.to_string());
    let mut bits = 0;
    match workload.acceleration {
        Acceleration::Auto => {}
        Acceleration::On => bits |= flags::FORCE_ACCELERATION,
        Acceleration::Off => bits |= flags::NO_ACCELERATION,
    }
    if !workload.acceleration_exclude_ports.is_empty() {
        bits |= flags::EXCLUDES_PORTS;
    }
    if workload.failure_policy == FailurePolicy::Closed {
        bits |= flags::FAIL_CLOSED;
    }
    if workload.access.is_some() {
        bits |= flags::GUARDED;
    }
    // The first of a family is the pod's own.
    let own = |is_family: fn(&IpAddr) -> bool| {
        let first = workload.addresses.iter().copied().find(is_family);
        first.map_or_else(IpBe::default, IpBe::from)
    };
    let addresses: &[IpAddr] = match pod.cgroup {
        None => &workload.addresses,
        Some(_) => &[],
    };
    for &address in addresses {
        let local = LocalPod {
            netns: pod.netns,
            workload: id,
            flags: bits,
            ..LocalPod::default()
        };
        tables.local_pods.insert(address.into(), local);
    }
    let entry = policy::Workload {
        id,
        address: own(IpAddr::is_ipv4),
        address6: own(IpAddr::is_ipv6),
        listener: PortBe::new(pod.listener),
        listener6: PortBe::new(pod.listener6),
        dns: PortBe::new(pod.dns),
        dns6: PortBe::new(pod.dns6),
        flags: bits,
    };
    if let Some(cgroup) = pod.cgroup {
        tables.cgroup_pods.insert(cgroup, entry);
        let host = policy::Workload {
            flags: flags::BY_CGROUP,
            ..policy::Workload::default()
        };
        tables.workloads.insert(pod.netns, host);
    } else {
        tables.workloads.insert(pod.netns, entry);
    }
    for &port in &workload.acceleration_exclude_ports {
        let key = ExcludedPort {
            workload: id,
            port: PortBe::new(port),
            reserved: 0,
        };
        tables.excluded_ports.insert(key, 1);
    }
}

#[cfg(test)]
mod tests;
