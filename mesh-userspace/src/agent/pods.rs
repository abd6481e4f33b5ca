//! The local pods: their namespaces (or, in the host's, their cgroups), and the agent's listeners in them.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::{IpAddr, TcpListener},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    config::model::{ObjectName, PodPlace},
    dns::Dns,
    kernel::{cgroup::PodCgroup, compile::Enrolled, netns::Netns, node::Kernel},
    mesh::model::{Snapshot, Workload},
    proxy::{Proxy, interception::PodSockets},
};

use super::handover::{Label, NameListeners, PodListeners};

/// A pod whose connections the programs see.
struct EnrolledPod {
    netns: Arc<Netns>,
    /// Where the namespace is the host's.
    cgroup: Option<PodCgroup>,
    listener: u16,
    listener6: u16,
    /// 0 where names are the pod's own resolver's.
    dns: u16,
    /// The same of IPv6.
    dns6: u16,
    /// More descriptors of what is served, for an agent that takes over.
    listeners: PodListeners,
}

impl EnrolledPod {
    /// Whether it still is where it was found.
    fn is_current(&self) -> bool {
        self.netns.is_current() && self.cgroup.as_ref().is_none_or(PodCgroup::is_current)
    }

    /// Where that is.
    fn path(&self) -> &Path {
        self.cgroup
            .as_ref()
            .map_or(self.netns.path(), PodCgroup::path)
    }
}

/// All local pods.
#[derive(Default)]
pub struct Pods {
    dns: Option<Arc<Dns>>,
    host_netns: PathBuf,
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
    /// Path of its namespace, or of its cgroup.
    pub netns: String,
    /// The agent's listener, on 127.0.0.1 inside.
    pub listener: u16,
    /// The agent's listeners for names; 0 where there are none.
    pub dns: u16,
}

impl Pods {
    /// None yet; names are answered by `dns`, where there is one. `host_netns`: where pods run that have none.
    /// Pods are served on what is inherited where something is.
    pub fn new(
        dns: Option<Arc<Dns>>,
        host_netns: PathBuf,
        inherited: HashMap<u64, PodListeners>,
    ) -> Self {
        Self {
            dns,
            host_netns,
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
        // Pods of the host share a namespace, and a new agent could not tell whose these are.
        for pod in self.enrolled.values().filter(|pod| pod.cgroup.is_none()) {
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
                let wanted = local.get(name).and_then(|workload| place_of(workload));
                wanted != Some(pod.path()) || !pod.is_current()
            })
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            proxy.remove_pod(&name);
            if let Some(dns) = &self.dns {
                dns.remove_pod(&name);
            }
            if let Some(pod) = self.enrolled.remove(&name)
                && pod.cgroup.is_none()
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
            let enrolled = self.enrol(workload, proxy);
            match enrolled {
                Ok(pod) => {
                    tracing::info!(pod = %name, place = %pod.path().display(), "enrolled");
                    self.failed.remove(name);
                    if pod.cgroup.is_none() {
                        fresh.push(Arc::clone(&pod.netns));
                    }
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

    fn enrol(&mut self, workload: &Workload, proxy: &Proxy) -> Result<EnrolledPod, String> {
        let (netns, cgroup) = match &workload.place {
            Some(PodPlace::Netns(path)) => (self.namespace(path)?, None),
            Some(PodPlace::Cgroup(path)) => {
                let cgroup = PodCgroup::open(path).map_err(|error| error.to_string())?;
                (self.host_namespace()?, Some(cgroup))
            }
            None => {
                return Err(
                    "a local pod without annotation zerohop.dev/netns: name its network \
                            namespace there"
                        .into(),
                );
            }
        };
        // What was inherited is known by its namespace, which pods of the host share.
        let inherited = match &cgroup {
            None => self.inherited.remove(&netns.cookie()),
            Some(_) => None,
        };
        let mut listeners = inherited.unwrap_or_default();
        listen(&mut listeners, proxy.workers(), &netns, &workload.name)?;
        // The host's resolver is everybody's there.
        if self.dns.is_some() && cgroup.is_none() {
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
        if let Some(dns) = &self.dns
            && ports != [0, 0]
        {
            dns.add_pod(&sockets, vec![served.names, served.names6]);
        }
        Ok(EnrolledPod {
            netns,
            cgroup,
            listener,
            listener6,
            dns: ports[0],
            dns6: ports[1],
            listeners,
        })
    }

    fn namespace(&self, path: &Path) -> Result<Arc<Netns>, String> {
        let netns = Netns::open(path).map_err(|error| error.to_string())?;
        let mut others = self.enrolled.iter();
        match others.find(|(_, pod)| pod.cgroup.is_some() && pod.netns.cookie() == netns.cookie()) {
            None => Ok(Arc::new(netns)),
            Some((other, _)) => Err(format!(
                "zerohop.dev/netns names the host's namespace, which pod {other} is in by its \
                 zerohop.dev/cgroup: name this one's cgroup too"
            )),
        }
    }

    /// Where pods are that have no namespace of their own.
    fn host_namespace(&self) -> Result<Arc<Netns>, String> {
        let netns = Netns::open(&self.host_netns).map_err(|error| error.to_string())?;
        let mut others = self.enrolled.iter();
        match others.find(|(_, pod)| pod.cgroup.is_none() && pod.netns.cookie() == netns.cookie()) {
            None => Ok(Arc::new(netns)),
            Some((other, _)) => Err(format!(
                "zerohop.dev/netns of pod {other} names the host's namespace: name its cgroup instead"
            )),
        }
    }

    /// What the maps are compiled for.
    pub fn enrolled(&self) -> BTreeMap<ObjectName, Enrolled> {
        let entry = |pod: &EnrolledPod| Enrolled {
            netns: pod.netns.cookie(),
            cgroup: pod.cgroup.as_ref().map(PodCgroup::id),
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

    /// Every pod's namespace (but the host's), with the addresses that a snapshot gives it.
    pub fn namespaces<'p>(&'p self, snapshot: &'p Snapshot) -> Vec<(&'p Netns, &'p [IpAddr])> {
        self.enrolled
            .iter()
            .filter(|(_, pod)| pod.cgroup.is_none())
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
            netns: pod.path().display().to_string(),
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

/// The path that the pod's annotation names.
fn place_of(workload: &Workload) -> Option<&Path> {
    match &workload.place {
        Some(PodPlace::Netns(path) | PodPlace::Cgroup(path)) => Some(path),
        None => None,
    }
}

/// One listener for each worker and family.
fn listen(
    listeners: &mut PodListeners,
    workers: usize,
    netns: &Netns,
    pod: &ObjectName,
) -> Result<(), String> {
    if listeners.streams.is_empty() {
        listeners.streams = netns
            .listeners(workers)
            .map_err(|error| error.to_string())?;
    }
    if listeners.streams6.is_empty() {
        // A namespace without IPv6 has no client for it.
        listeners.streams6 = netns.listeners6(workers).unwrap_or_else(|error| {
            tracing::debug!(%pod, %error, "no listener for IPv6");
            Vec::new()
        });
    }
    for group in [&mut listeners.streams, &mut listeners.streams6] {
        one_for_each(group, workers, netns).map_err(|error| error.to_string())?;
    }
    Ok(())
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
