//! The local pods: their namespaces, and the agent's listeners in them.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, TcpListener},
    path::Path,
    sync::Arc,
};

use crate::{
    config::model::{ObjectName, PodPlace},
    dns::Dns,
    kernel::{
        compile::Enrolled,
        netns::{Netns, NetnsError, dns::DnsSockets},
        node::Kernel,
    },
    mesh::model::{Snapshot, Workload},
    proxy::{Proxy, interception::PodSockets},
};

/// A pod whose connections the programs see.
struct EnrolledPod {
    netns: Arc<Netns>,
    listener: u16,
    listener6: u16,
    /// 0 where names are the pod's own resolver's.
    dns: u16,
    /// The same of IPv6.
    dns6: u16,
}

/// All local pods.
#[derive(Default)]
pub struct Pods {
    dns: Option<Arc<Dns>>,
    enrolled: BTreeMap<ObjectName, EnrolledPod>,
    /// Why the others are not.
    failed: BTreeMap<ObjectName, String>,
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
    /// None yet; names are answered by `dns`, where there is one.
    pub fn new(dns: Option<Arc<Dns>>) -> Self {
        Self {
            dns,
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
            match enrol(workload, proxy, self.dns.as_deref()) {
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

fn enrol(workload: &Workload, proxy: &Proxy, dns: Option<&Dns>) -> Result<EnrolledPod, String> {
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
    let (dns, dns6) = dns.map_or((0, 0), |dns| listen_for_names(dns, &netns, &sockets));
    Ok(EnrolledPod {
        netns,
        listener,
        listener6,
        dns,
        dns6,
    })
}

/// The port that these listen on; 0 where there are none.
fn port_of(listeners: &[TcpListener]) -> u16 {
    listeners
        .first()
        .and_then(|listener| listener.local_addr().ok())
        .map_or(0, |address| address.port())
}

/// The ports by family; 0 where it cannot: the pod's own resolver does without.
fn listen_for_names(dns: &Dns, netns: &Netns, pod: &PodSockets) -> (u16, u16) {
    let mut families = Vec::new();
    let mut port = |opened: Result<DnsSockets, NetnsError>| match opened {
        Ok(listeners) => {
            families.push(listeners.slots);
            Ok(listeners.port)
        }
        Err(error) => Err(error),
    };
    let v4 = port(netns.dns_sockets()).unwrap_or_else(|error| {
        tracing::warn!(pod = %pod.pod, %error, "names are left to the pod's own resolver");
        0
    });
    // A namespace without IPv6 asks nobody there.
    let v6 = port(netns.dns_sockets6()).unwrap_or_else(|error| {
        tracing::debug!(pod = %pod.pod, %error, "no listeners for names on IPv6");
        0
    });
    if !families.is_empty() {
        dns.add_pod(pod, families);
    }
    (v4, v6)
}
