//! A pod: a network namespace, a cgroup, an `/etc/hosts`, and what runs in them.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::fmt::{self, Write as _};
use std::fs::OpenOptions;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::host::NETNS_DIR;
use crate::process::{Output, Process};
use crate::sys::{self, Jail};
use crate::{binaries, net, poll, reaper};

/// How long a server may take until it listens.
const LISTEN_DEADLINE: Duration = Duration::from_secs(20);

/// What a pod is to be.
#[derive(Clone, Debug)]
pub struct PodSpec {
    /// Its Kubernetes namespace.
    pub namespace: String,
    /// Its name, unique in its namespace.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its identity.
    pub service_account: String,
    /// Its annotations, beside the one that names its network namespace.
    pub annotations: BTreeMap<String, String>,
}

/// A pod of a [`crate::Lab`]; clones are the same pod. It ends with its lab.
#[derive(Clone, Debug)]
pub struct Pod {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    spec: PodSpec,
    address: Ipv4Addr,
    netns: String,
    cgroup: PathBuf,
    hosts: PathBuf,
    /// What its processes see as `/etc/hosts` and `/etc/resolv.conf`, once it asks for names.
    resolving: Mutex<Option<(PathBuf, PathBuf)>>,
    daemons: Mutex<Vec<Process>>,
}

impl PodSpec {
    /// A pod `name` in the namespace `default`, without labels.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            namespace: "default".to_owned(),
            name: name.into(),
            labels: BTreeMap::new(),
            service_account: "default".to_owned(),
            annotations: BTreeMap::new(),
        }
    }

    /// In another namespace.
    #[must_use]
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// With a label.
    #[must_use]
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    /// With the labels that Bookinfo's pods have.
    #[must_use]
    pub fn app(self, app: &str, version: &str) -> Self {
        self.label("app", app).label("version", version)
    }

    /// With another identity.
    #[must_use]
    pub fn service_account(mut self, name: impl Into<String>) -> Self {
        self.service_account = name.into();
        self
    }

    /// With an annotation.
    #[must_use]
    pub fn annotation(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.annotations.insert(key.into(), value.into());
        self
    }
}

impl Pod {
    pub(crate) fn new(
        spec: PodSpec,
        address: Ipv4Addr,
        netns: String,
        cgroup: PathBuf,
        hosts: PathBuf,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                spec,
                address,
                netns,
                cgroup,
                hosts,
                resolving: Mutex::default(),
                daemons: Mutex::default(),
            }),
        }
    }

    /// What was asked for.
    pub fn spec(&self) -> &PodSpec {
        &self.inner.spec
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.inner.spec.name
    }

    /// `namespace/name`, as `meshctl explain --from` takes it.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.inner.spec.namespace, self.inner.spec.name)
    }

    /// Its address.
    pub fn address(&self) -> Ipv4Addr {
        self.inner.address
    }

    /// Its IPv6 address.
    pub fn address6(&self) -> Ipv6Addr {
        net::ipv6_beside(self.inner.address)
    }

    /// The name of its network namespace below /run/netns.
    pub fn netns(&self) -> &str {
        &self.inner.netns
    }

    /// The path of its network namespace.
    pub fn netns_path(&self) -> PathBuf {
        Path::new(NETNS_DIR).join(&self.inner.netns)
    }

    /// Its cgroup.
    pub fn cgroup(&self) -> &Path {
        &self.inner.cgroup
    }

    /// The file that its processes see as `/etc/hosts`.
    pub fn hosts(&self) -> &Path {
        &self.inner.hosts
    }

    /// From now on its processes find no name in `/etc/hosts`, and ask these for it, as Kubernetes
    /// writes it to a pod's `/etc/resolv.conf`.
    pub fn resolve_by(&self, nameservers: &[Ipv4Addr]) -> Result<()> {
        let namespace = &self.inner.spec.namespace;
        let mut text = format!(
            "search {namespace}.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n"
        );
        for nameserver in nameservers {
            let _ = writeln!(text, "nameserver {nameserver}");
        }
        let file = |name: &str, text: &str| -> Result<PathBuf> {
            let path = self
                .inner
                .hosts
                .with_file_name(format!("{name}.{}", self.inner.netns));
            std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
            Ok(path)
        };
        let files = (
            file("hosts", "127.0.0.1 localhost\n")?,
            file("resolv", &text)?,
        );
        *self.resolving() = Some(files);
        Ok(())
    }

    /// Starts `command` in the pod. What the handle's owner drops is killed.
    pub fn spawn(&self, mut command: Command) -> Result<Process> {
        let jail = self.jail()?;
        sys::join_jail(&mut command, jail);
        Process::start_prepared(command).with_context(|| format!("in the pod {}", self.full_name()))
    }

    /// Runs `command` in the pod until it ends, `deadline` at most.
    pub fn run(&self, command: Command, deadline: Duration) -> Result<Output> {
        self.spawn(command)?.wait(deadline)
    }

    /// As [`Pod::run`], for a program with arguments.
    pub fn exec<A: AsRef<OsStr>>(
        &self,
        program: impl AsRef<OsStr>,
        arguments: impl IntoIterator<Item = A>,
        deadline: Duration,
    ) -> Result<Output> {
        let mut command = Command::new(program);
        command.args(arguments);
        self.run(command, deadline)
    }

    /// A command of `lab-peer`, to be spawned in a pod.
    pub fn peer<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Result<Command> {
        let mut command = Command::new(binaries::find("lab-peer")?);
        command.args(arguments);
        Ok(command)
    }

    /// Starts `command`, which lives as long as the pod, and waits until it listens on `port`.
    pub fn serve(&self, command: Command, port: u16) -> Result<()> {
        let mut process = self.spawn(command)?;
        self.wait_listening(&mut process, port)?;
        self.daemons().push(process);
        Ok(())
    }

    /// Waits until something in the pod listens on the TCP port `port`; `process` is what should.
    pub fn wait_listening(&self, process: &mut Process, port: u16) -> Result<()> {
        let listens = poll::eventually(LISTEN_DEADLINE, || {
            listens(process.id(), port) || !matches!(process.ended(), Ok(None))
        });
        if listens && process.ended()?.is_none() {
            return Ok(());
        }
        bail!(
            "nothing listens on port {port} in the pod {}: {}{}",
            self.full_name(),
            process.stdout(),
            process.stderr()
        )
    }

    /// Ends what [`Pod::serve`] started.
    pub fn stop_servers(&self) {
        self.daemons().clear();
    }

    /// Runs `work` on a thread in the pod's network namespace. Not in its cgroup: a process has one
    /// cgroup, so the sockets made here are seen by no program of the mesh. For looking on only.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        net::inside(&self.inner.netns, work)
    }

    /// Sets a sysctl in the pod's namespace, `net.ipv4.tcp_fastopen` say.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        net::sysctl(&self.inner.netns, key, value)
    }

    /// Ends the pod: kills what runs in it, removes its cgroup and namespace. Its manifest stays.
    pub fn delete(&self) -> Result<()> {
        self.stop_servers();
        reaper::remove_cgroup(&self.inner.cgroup)?;
        reaper::remove_one_netns(&self.inner.netns)
    }

    pub(crate) fn jail(&self) -> Result<Jail> {
        let mut jail = open_jail(&self.inner.cgroup, &self.inner.netns, &self.inner.hosts)?;
        if let Some((hosts, resolv)) = &*self.resolving() {
            jail.files = vec![
                (c_string(hosts)?, c"/etc/hosts".to_owned()),
                (c_string(resolv)?, c"/etc/resolv.conf".to_owned()),
            ];
        }
        Ok(jail)
    }

    fn resolving(&self) -> std::sync::MutexGuard<'_, Option<(PathBuf, PathBuf)>> {
        let resolving = &self.inner.resolving;
        resolving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn daemons(&self) -> std::sync::MutexGuard<'_, Vec<Process>> {
        self.inner
            .daemons
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Pod {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.full_name())
    }
}

/// Opens what a process that joins a pod needs.
pub(crate) fn open_jail(cgroup: &Path, netns: &str, hosts: &Path) -> Result<Jail> {
    let procs = cgroup.join("cgroup.procs");
    let mut files = vec![(c_string(hosts)?, c"/etc/hosts".to_owned())];
    if Path::new("/etc/resolv.conf").exists() {
        // Without a server in it the resolver asks this host's own, which refuses at once: the name
        // servers of the machine are out of reach.
        files.push((c"/dev/null".to_owned(), c"/etc/resolv.conf".to_owned()));
    }
    Ok(Jail {
        cgroup_procs: OpenOptions::new()
            .write(true)
            .open(&procs)
            .with_context(|| format!("open {}", procs.display()))?,
        netns: net::open(netns)?,
        files,
    })
}

fn c_string(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes()).context("a path with a NUL")
}

/// Whether, as the process `pid` sees its namespace, a socket listens on `port`.
fn listens(pid: u32, port: u16) -> bool {
    const LISTEN: &str = "0A";
    let port = format!("{port:04X}");
    ["tcp", "tcp6"].iter().any(|table| {
        let path = format!("/proc/{pid}/net/{table}");
        let sockets = std::fs::read_to_string(path).unwrap_or_default();
        sockets.lines().skip(1).any(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let local = fields.next().and_then(|local| local.rsplit_once(':'));
            local.is_some_and(|(_, local)| local == port) && fields.nth(1) == Some(LISTEN)
        })
    })
}
