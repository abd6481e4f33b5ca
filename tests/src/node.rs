//! A lab: one node, its pods, its services and its folder of manifests.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::host::{self, HostLock};
use crate::manifests::{Manifests, Service, ServiceSpec};
use crate::pod::{Pod, PodSpec};
use crate::{net, reaper};

/// The last part of the name of the node's own namespace.
const NODE: &str = "node";
/// The first pod's place in 10.244.0.0/16, the first service's in 10.96.0.0/12.
const FIRST_HOST: u32 = 10;
/// Measured kernels default to BBR, whose pacing would hide what a veth costs.
const CONGESTION_CONTROL: &str = "cubic";

/// One node on this machine. Dropping it removes all of it.
#[derive(Debug)]
pub struct Lab {
    id: String,
    cgroup: PathBuf,
    manifests: Manifests,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    pods: Vec<Pod>,
    services: u32,
    /// What `/etc/hosts` says: per (name, namespace that the name needs no suffix in) the address.
    hosts: Vec<HostEntry>,
}

#[derive(Debug)]
struct HostEntry {
    address: Ipv4Addr,
    name: String,
    /// `None`: a name outside of the cluster, the same everywhere.
    namespace: Option<String>,
}

impl Lab {
    /// Makes a node. `name` (lower case, digits, dashes) tells its parts from other labs'; every
    /// lab has an id of its own, so that tests run in parallel. Removes what dead labs left.
    pub fn new(name: &str) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        ensure!(
            !name.is_empty()
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'),
            "a lab's name is of letters, digits and dashes, not {name:?}"
        );
        host::require_privileges()?;
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let id = format!("{}-{count}-{name}", std::process::id());
        let cgroup = host::cgroup_root()?.join(reaper::cgroup_name(&id));
        let lock = HostLock::take()?;
        host::ensure_bpffs(&lock)?;
        reaper::sweep(&lock)?;
        reaper::register(&id)?;
        // From here on, dropping it cleans up.
        let lab = Self {
            manifests: Manifests::new(reaper::state_dir(&id).join("manifests"))?,
            id,
            cgroup,
            state: Mutex::default(),
        };
        drop(lock);
        fs::create_dir(&lab.cgroup)
            .with_context(|| format!("create the cgroup {}", lab.cgroup.display()))?;
        net::add_node(&lab.netns_of(NODE))?;
        Ok(lab)
    }

    /// Removes what labs of dead processes left on this machine; gives their ids.
    pub fn sweep() -> Result<Vec<String>> {
        host::require_privileges()?;
        reaper::sweep(&HostLock::take()?)
    }

    /// Its id, which is also the node's name.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The cgroup that all its pods are in: what an agent's `--cgroup` is.
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// Its folder of manifests.
    pub fn manifests(&self) -> &Manifests {
        &self.manifests
    }

    /// The name of the node's own network namespace.
    pub fn node_netns(&self) -> String {
        self.netns_of(NODE)
    }

    /// Makes a pod and writes its manifest.
    pub fn pod(&self, spec: PodSpec) -> Result<Pod> {
        let pod = self.stranger(spec)?;
        self.manifests.pod(&self.id, &pod)?;
        Ok(pod)
    }

    /// Makes a pod in the node's own network namespace, known by its cgroup, and writes its manifest.
    pub fn host_pod(&self, spec: PodSpec) -> Result<Pod> {
        let pod = self.host_processes(spec)?;
        self.manifests.host_pod(&self.id, &pod)?;
        Ok(pod)
    }

    /// As [`Lab::host_pod`], but the mesh is not told of it: processes of the node.
    pub fn host_processes(&self, spec: PodSpec) -> Result<Pod> {
        let mut state = self.state();
        let cgroup = self.cgroup.join(&spec.name);
        fs::create_dir(&cgroup)
            .with_context(|| format!("create the cgroup {}", cgroup.display()))?;
        let hosts = self.hosts_of(&spec.namespace);
        let pod = Pod::new(spec, net::GATEWAY, self.netns_of(NODE), cgroup, hosts);
        state.pods.push(pod.clone());
        self.write_hosts(&state)?;
        Ok(pod)
    }

    /// Makes a pod that the mesh is not told of: it has no manifest.
    pub fn stranger(&self, spec: PodSpec) -> Result<Pod> {
        let mut state = self.state();
        let place = FIRST_HOST + state.pods.len() as u32;
        let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 244, 0, 0)) + place);
        let name = match spec.namespace.as_str() {
            "default" => spec.name.clone(),
            namespace => format!("{namespace}.{}", spec.name),
        };
        ensure!(
            name != NODE
                && !state
                    .pods
                    .iter()
                    .any(|pod| pod.full_name() == format!("{}/{}", spec.namespace, spec.name)),
            "the lab has a pod {name} already"
        );
        let cgroup = self.cgroup.join(&name);
        fs::create_dir(&cgroup)
            .with_context(|| format!("create the cgroup {}", cgroup.display()))?;
        let netns = self.netns_of(&name);
        net::add_pod(&self.netns_of(NODE), &netns, address)?;
        net::congestion_control(&netns, CONGESTION_CONTROL)?;
        let hosts = self.hosts_of(&spec.namespace);
        let pod = Pod::new(spec, address, netns, cgroup, hosts);
        state.pods.push(pod.clone());
        self.write_hosts(&state)?;
        Ok(pod)
    }

    /// Its pods, in the order they were made.
    pub fn pods(&self) -> Vec<Pod> {
        self.state().pods.clone()
    }

    /// Makes a service: an address, a name in every pod's `/etc/hosts`, and its manifest.
    pub fn service(&self, spec: ServiceSpec) -> Result<Service> {
        let mut state = self.state();
        state.services += 1;
        let place = FIRST_HOST + state.services;
        let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 96, 0, 0)) + place);
        let service = Service { spec, address };
        state.hosts.push(HostEntry {
            address,
            name: service.spec.name.clone(),
            namespace: Some(service.spec.namespace.clone()),
        });
        self.write_hosts(&state)?;
        drop(state);
        self.manifests.service(&service)?;
        Ok(service)
    }

    /// Gives every pod the name `name`, from outside of the cluster, for `address`.
    pub fn name_host(&self, name: &str, address: Ipv4Addr) -> Result<()> {
        let mut state = self.state();
        state.hosts.push(HostEntry {
            address,
            name: name.to_owned(),
            namespace: None,
        });
        self.write_hosts(&state)
    }

    /// Writes the state file by which `lab-exec` finds the lab's pods.
    pub fn publish(&self) -> Result<()> {
        let pods: BTreeMap<String, _> = self
            .pods()
            .iter()
            .map(|pod| {
                let entry = json!({
                    "address": pod.address(), "netns": pod.netns(), "cgroup": pod.cgroup(),
                    "hosts": pod.hosts(),
                });
                (pod.full_name(), entry)
            })
            .collect();
        let state = json!({"id": self.id, "manifests": self.manifests.dir(), "pods": pods});
        let path = reaper::state_file(&self.id);
        fs::write(&path, format!("{state:#}")).with_context(|| format!("write {}", path.display()))
    }

    fn netns_of(&self, name: &str) -> String {
        format!("{}{name}", reaper::netns_prefix(&self.id))
    }

    fn hosts_of(&self, namespace: &str) -> PathBuf {
        reaper::state_dir(&self.id).join(format!("hosts.{namespace}"))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes each namespace's hosts file in place: pods that run have it mounted.
    fn write_hosts(&self, state: &State) -> Result<()> {
        let namespaces: BTreeSet<&str> = state
            .pods
            .iter()
            .map(|pod| pod.spec().namespace.as_str())
            .collect();
        for namespace in namespaces {
            let text = hosts_text(state, namespace);
            let path = self.hosts_of(namespace);
            write_in_place(&path, &text).with_context(|| format!("write {}", path.display()))?;
        }
        Ok(())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.state().pods.iter().for_each(Pod::stop_servers);
        if let Err(error) = reaper::tear_down(&self.id) {
            eprintln!("lab {}: {error:#}", self.id);
        }
    }
}

fn hosts_text(state: &State, namespace: &str) -> String {
    let mut text = String::from("127.0.0.1 localhost\n::1 localhost\n");
    for pod in &state.pods {
        let _ = writeln!(text, "{} {}", pod.address(), pod.name());
    }
    for HostEntry {
        address,
        name,
        namespace: of,
    } in &state.hosts
    {
        let Some(of) = of else {
            let _ = writeln!(text, "{address} {name}");
            continue;
        };
        let full = format!("{name}.{of}");
        let short = if of == namespace { name } else { "" };
        let _ = writeln!(
            text,
            "{address} {full}.svc.cluster.local {full}.svc {full} {short}"
        );
    }
    text
}

/// Replaces a file's content without replacing the file: its first readers may see the old tail,
/// so the new text is padded with line ends until the old length is cut.
fn write_in_place(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)?;
    let old = file.metadata()?.len() as usize;
    let padding = "\n".repeat(old.saturating_sub(text.len()));
    file.write_all_at(format!("{text}{padding}").as_bytes(), 0)?;
    file.set_len(text.len() as u64)?;
    file.flush()
}
