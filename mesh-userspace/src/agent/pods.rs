//! The local pods: their namespaces, and the agent's listeners in them.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::{IpAddr, TcpListener},
    os::fd::OwnedFd,
    path::Path,
    sync::Arc,
};

use crate::{
    config::model::{ObjectName, PodPlace},
    dns::Dns,
    kernel::{compile::Enrolled, netns::Netns, node::Kernel},
    mesh::model::{Snapshot, Workload},
    proxy::{Proxy, interception::PodSockets},
};

use super::handover::{Label, NameListeners, PodListeners};

/// A pod whose connections the programs see.
struct EnrolledPod {
    netns: Arc<Netns>,
    listener: u16,
    listener6: u16,
    /// 0 where names are the pod's own resolver's.
    dns: u16,
    /// The same of IPv6.
    dns6: u16,
    /// More descriptors of what is served, for an agent that takes over.
    listeners: PodListeners,
}

/// All local pods.
#[derive(Default)]
pub struct Pods {
    dns: Option<Arc<Dns>>,
    enrolled: BTreeMap<ObjectName, EnrolledPod>,
    /// Why the others are not.
    failed: BTreeMap<ObjectName, String>,
    /// What another agent listened on, by the cookie of the pod's namespace.
    inherited: HashMap<u64, PodListeners>,
}

/// A row for `status`.
pub struct PodRow {
    /// The pod.
    pub name: ObjectName,
    /// Path of its namespace.
    pub netns: String,
    /// The agent's listener, on 127.0.0.1 inside.
    pub listener: u16,
    /// The agent's listeners for names; 0 where there are none.
    pub dns: u16,
}

impl Pods {
    /// None yet; names are answered by `dns`, where there is one. Pods are served on what is inherited
    /// where something is.
    pub fn new(dns: Option<Arc<Dns>>, inherited: HashMap<u64, PodListeners>) -> Self {
        Self {
            dns,
            inherited,
            ..Self::default()
        }
    }

    /// Closes what another agent listened on for pods that are not served here.
    pub fn forget_inherited(&mut self) {
        self.inherited.clear();
    }

    /// What is listened on, for another agent.
    pub fn listeners(&self) -> io::Result<Vec<(Label, OwnedFd)>> {
        let mut all = Vec::new();
        for pod in self.enrolled.values() {
            all.extend(pod.listeners.labelled(pod.netns.cookie())?);
        }
        Ok(all)
    }

    /// Enrols what is new or has come back, lets go of what is gone. True: something changed.
    pub fn reconcile(&mut self, snapshot: &Snapshot, proxy: &Proxy, kernel: &Kernel) -> bool {
        let local: HashMap<&ObjectName, &Workload> = snapshot
            .workloads
            .iter()
            .filter(|(_, workload)| workload.local)
            .map(|(name, workload)| (name, &**workload))
            .collect();
        let mut changed = false;
        let gone: Vec<ObjectName> = self
            .enrolled
            .iter()
            .filter(|(name, pod)| {
                let wanted = local.get(name).and_then(|workload| netns_of(workload));
                wanted != Some(pod.netns.path()) || !pod.netns.is_current()
            })
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            proxy.remove_pod(&name);
            if let Some(dns) = &self.dns {
                dns.remove_pod(&name);
            }
            if let Some(pod) = self.enrolled.remove(&name)
                && let Err(error) = kernel.forget_listeners(pod.netns.cookie())
            {
                tracing::warn!(pod = %name, %error, "forgetting the listeners of a pod that is gone");
            }
            changed = true;
        }
        self.failed.retain(|name, _| local.contains_key(name));
        let mut fresh: Vec<Arc<Netns>> = Vec::new();
        for (name, workload) in local {
            if self.enrolled.contains_key(name) {
                continue;
            }
            match enrol(workload, proxy, self.dns.as_deref(), &mut self.inherited) {
                Ok(pod) => {
                    tracing::info!(pod = %name, netns = %pod.netns.path().display(), "enrolled");
                    self.failed.remove(name);
                    fresh.push(Arc::clone(&pod.netns));
                    self.enrolled.insert(name.clone(), pod);
                    changed = true;
                }
                Err(reason) => {
                    if self.failed.get(name) != Some(&reason) {
                        tracing::warn!(pod = %name, reason, "not enrolled");
                        self.failed.insert(name.clone(), reason);
                    }
                }
            }
        }
        let fresh: Vec<&Netns> = fresh.iter().map(AsRef::as_ref).collect();
        if !fresh.is_empty()
            && let Err(error) = kernel.note_listeners(&fresh)
        {
            tracing::warn!(%error, "listeners that were there before are not accelerated");
        }
        changed
    }

    /// What the maps are compiled for.
    pub fn enrolled(&self) -> BTreeMap<ObjectName, Enrolled> {
        let entry = |pod: &EnrolledPod| Enrolled {
            netns: pod.netns.cookie(),
            listener: pod.listener,
            listener6: pod.listener6,
            dns: pod.dns,
            dns6: pod.dns6,
        };
        self.enrolled
            .iter()
            .map(|(name, pod)| (name.clone(), entry(pod)))
            .collect()
    }

    /// Every pod's namespace, with the addresses that a snapshot gives it.
    pub fn namespaces<'p>(&'p self, snapshot: &'p Snapshot) -> Vec<(&'p Netns, &'p [IpAddr])> {
        self.enrolled
            .iter()
            .filter_map(|(name, pod)| {
                let workload = snapshot.workloads.get(name)?;
                Some((&*pod.netns, workload.addresses.as_slice()))
            })
            .collect()
    }

    /// For `status`.
    pub fn rows(&self) -> Vec<PodRow> {
        let row = |(name, pod): (&ObjectName, &EnrolledPod)| PodRow {
            name: name.clone(),
            netns: pod.netns.path().display().to_string(),
            listener: pod.listener,
            dns: pod.dns,
        };
        self.enrolled.iter().map(row).collect()
    }

    /// The first pod that is not enrolled, and why.
    pub fn failure(&self) -> Option<String> {
        self.failed
            .iter()
            .next()
            .map(|(name, reason)| format!("pod {name}: {reason}"))
    }
}

fn netns_of(workload: &Workload) -> Option<&Path> {
    match &workload.place {
        Some(PodPlace::Netns(path)) => Some(path),
        Some(PodPlace::Cgroup(_)) | None => None,
    }
}

fn enrol(
    workload: &Workload,
    proxy: &Proxy,
    dns: Option<&Dns>,
    inherited: &mut HashMap<u64, PodListeners>,
) -> Result<EnrolledPod, String> {
    let Some(path) = netns_of(workload) else {
        return Err(match &workload.place {
            Some(PodPlace::Cgroup(_)) => {
                "zerohop.dev/cgroup: pods in the host's namespace are not supported in this version; \
                 their connections stay as they are"
                    .into()
            }
            _ => "a local pod without annotation zerohop.dev/netns: name its network namespace there".into(),
        });
    };
    let netns = Arc::new(Netns::open(path).map_err(|error| error.to_string())?);
    let mut listeners = inherited.remove(&netns.cookie()).unwrap_or_default();
    if listeners.streams.is_empty() {
        listeners.streams = netns
            .listeners(proxy.workers())
            .map_err(|error| error.to_string())?;
    }
    if listeners.streams6.is_empty() {
        // A namespace without IPv6 has no client for it.
        listeners.streams6 = netns.listeners6(proxy.workers()).unwrap_or_else(|error| {
            tracing::debug!(pod = %workload.name, %error, "no listener for IPv6");
            Vec::new()
        });
    }
    for group in [&mut listeners.streams, &mut listeners.streams6] {
        one_for_each(group, proxy.workers(), &netns).map_err(|error| error.to_string())?;
    }
    if dns.is_some() {
        listen_for_names(&mut listeners, &netns, &workload.name);
    } else {
        listeners.names.clear();
        listeners.names6.clear();
    }
    let served = listeners.again().map_err(|error| error.to_string())?;
    let sockets = PodSockets {
        cookie: netns.cookie(),
        handle: Some(netns.clone()),
        ..PodSockets::new(workload.name.clone())
    };
    let (listener, listener6) = (port_of(&served.streams), port_of(&served.streams6));
    let mut streams = served.streams;
    streams.extend(served.streams6);
    proxy
        .add_pod(&sockets, &workload.name, streams)
        .map_err(|error| error.to_string())?;
    let ports = [&served.names, &served.names6].map(first_port);
    if let Some(dns) = dns
        && ports != [0, 0]
    {
        dns.add_pod(&sockets, vec![served.names, served.names6]);
    }
    Ok(EnrolledPod {
        netns,
        listener,
        listener6,
        dns: ports[0],
        dns6: ports[1],
        listeners,
    })
}

/// Where it cannot, the pod's own resolver does without.
fn listen_for_names(listeners: &mut PodListeners, netns: &Netns, pod: &ObjectName) {
    if listeners.names.is_empty() {
        match netns.dns_sockets() {
            Ok(sockets) => listeners.names = sockets.slots,
            Err(error) => {
                tracing::warn!(%pod, %error, "names are left to the pod's own resolver");
            }
        }
    }
    if listeners.names6.is_empty() {
        // A namespace without IPv6 asks nobody there.
        match netns.dns_sockets6() {
            Ok(sockets) => listeners.names6 = sockets.slots,
            Err(error) => tracing::debug!(%pod, %error, "no listeners for names on IPv6"),
        }
    }
}

/// The port of the first slot; 0 where there is none.
fn first_port(names: &NameListeners) -> u16 {
    names
        .first()
        .and_then(|(datagrams, _)| datagrams.local_addr().ok())
        .map_or(0, |address| address.port())
}

/// An agent with fewer workers left fewer listeners: each worker of this one needs its own. More than that
/// are shared out, for connections may wait in any.
fn one_for_each(group: &mut Vec<TcpListener>, workers: usize, netns: &Netns) -> io::Result<()> {
    if let Some(first) = group.first()
        && group.len() < workers
    {
        let more = netns.more_listeners(first, workers - group.len())?;
        group.extend(more);
    }
    Ok(())
}

/// The port that these listen on; 0 where there are none.
fn port_of(listeners: &[TcpListener]) -> u16 {
    listeners
        .first()
        .and_then(|listener| listener.local_addr().ok())
        .map_or(0, |address| address.port())
}
