//! The local pods: their namespaces (or, in the host's, their cgroups), and the agent's listeners in them.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, TcpListener},
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

/// A pod whose connections the programs see.
struct EnrolledPod {
    netns: Arc<Netns>,
    /// Where the namespace is the host's.
    cgroup: Option<PodCgroup>,
    listener: u16,
    listener6: u16,
    /// 0 where names are the pod's own resolver's.
    dns: u16,
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
    pub fn new(dns: Option<Arc<Dns>>, host_netns: PathBuf) -> Self {
        Self {
            dns,
            host_netns,
            ..Self::default()
        }
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
            match self.enrol(workload, proxy) {
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

    fn enrol(&self, workload: &Workload, proxy: &Proxy) -> Result<EnrolledPod, String> {
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
        let mut listeners = netns
            .listeners(proxy.workers())
            .map_err(|error| error.to_string())?;
        // A namespace without IPv6 has no client for it.
        let listeners6 = netns.listeners6(proxy.workers()).unwrap_or_else(|error| {
            tracing::debug!(pod = %workload.name, %error, "no listener for IPv6");
            Vec::new()
        });
        let (listener, listener6) = (port_of(&listeners), port_of(&listeners6));
        listeners.extend(listeners6);
        let sockets = PodSockets {
            cookie: netns.cookie(),
            handle: Some(netns.clone()),
            ..PodSockets::new(workload.name.clone())
        };
        proxy
            .add_pod(&sockets, &workload.name, listeners)
            .map_err(|error| error.to_string())?;
        let dns = match (&self.dns, &cgroup) {
            (Some(dns), None) => listen_for_names(dns, &netns, &sockets),
            // The host's resolver is everybody's there.
            _ => 0,
        };
        Ok(EnrolledPod {
            netns,
            cgroup,
            listener,
            listener6,
            dns,
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

/// The port that these listen on; 0 where there are none.
fn port_of(listeners: &[TcpListener]) -> u16 {
    listeners
        .first()
        .and_then(|listener| listener.local_addr().ok())
        .map_or(0, |address| address.port())
}

/// The port; 0 where it cannot: the pod's own resolver does without.
fn listen_for_names(dns: &Dns, netns: &Netns, pod: &PodSockets) -> u16 {
    match netns.dns_sockets() {
        Ok(listeners) => {
            dns.add_pod(pod, listeners.slots);
            listeners.port
        }
        Err(error) => {
            tracing::warn!(pod = %pod.pod, %error, "names are left to the pod's own resolver");
            0
        }
    }
}
