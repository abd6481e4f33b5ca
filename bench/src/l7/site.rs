//! Where the arms run: a node for the other proxies and one for Zerohop, each with a client and two
//! versions of a backend.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lab::{Agent, AgentOptions, Lab, Pod, PodSpec, Process, ServiceSpec, eventually};
use serde_json::{Value, json};

use super::backend::{self, HTTP1_PORT, HTTP2_PORT};
use super::load::{Load, Outcome, Protocol};
use super::proxies::{self, Ports, SIDECAR_INBOUND, SIDECAR_OUTBOUND, Versions};
use super::usage::{self, Usage};
use crate::{machine, sys};

/// Beyond the time that a measurement takes by itself.
const GRACE: Duration = Duration::from_secs(15);
/// Until a proxy answers.
const START_DEADLINE: Duration = Duration::from_secs(20);
/// What iptables leaves alone: the sidecars' own connections.
const SIDECAR_GROUP: u32 = 1337;
/// Where Envoy is; set by `cargo xtask bench`.
const ENVOY: &str = "ZEROHOP_BENCH_ENVOY";

/// A way of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arm {
    /// Straight to v1.
    Direct,
    /// `HAProxy` beside the client.
    Haproxy,
    /// nginx beside the client.
    Nginx,
    /// Envoy beside the client.
    Envoy,
    /// An Envoy on either side, by iptables REDIRECT.
    Sidecars,
    /// Zerohop's agent.
    Zerohop,
}

impl Arm {
    const ALL: [Self; 6] = [
        Self::Direct,
        Self::Haproxy,
        Self::Nginx,
        Self::Envoy,
        Self::Sidecars,
        Self::Zerohop,
    ];

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
            Self::Envoy => "envoy",
            Self::Sidecars => "sidecars",
            Self::Zerohop => "zerohop",
        }
    }
}

/// All that runs; dropping it stops and removes it.
pub struct Site {
    lanes: Vec<Lane>,
    _agent: Option<Agent>,
    envoy: PathBuf,
    _labs: Vec<Lab>,
}

/// An arm: where its client is, what it dials, and which processes are the proxy.
struct Lane {
    arm: Arm,
    client: Pod,
    http1: String,
    http2: Option<String>,
    proxy: Vec<u32>,
    _processes: Vec<Process>,
}

/// A client and two versions of a backend.
struct Trio {
    client: Pod,
    v1: Pod,
    v2: Pod,
}

impl Trio {
    fn new(lab: &Lab, dir: &Path, suffix: &str) -> Result<Self> {
        let backend = |version: &str| -> Result<Pod> {
            let name = format!("backend-{version}{suffix}");
            let pod = lab.pod(PodSpec::new(name).app("backend", version))?;
            let config = backend::write(&dir.join(pod.name()), version)?;
            pod.serve(
                on_core(load_core(), "nginx", &["-c".as_ref(), config.as_os_str()]),
                HTTP1_PORT,
            )?;
            Ok(pod)
        };
        Ok(Self {
            client: lab.pod(PodSpec::new(format!("client{suffix}")).app("client", "v1"))?,
            v1: backend("v1")?,
            v2: backend("v2")?,
        })
    }

    fn versions(&self) -> Versions {
        Versions {
            v1: self.v1.address(),
            v2: self.v2.address(),
        }
    }
}

impl Site {
    /// Starts what the arms need; all arms where no name is given.
    pub fn new(names: &[String]) -> Result<Self> {
        if let Some(unknown) = names
            .iter()
            .find(|name| Arm::ALL.iter().all(|arm| arm.name() != **name))
        {
            bail!(
                "there is no arm `{unknown}`: {}",
                Arm::ALL.map(Arm::name).join(", ")
            );
        }
        let envoy = std::env::var_os(ENVOY).map(PathBuf::from);
        let envoy = envoy
            .with_context(|| format!("{ENVOY} does not name Envoy: run `cargo xtask bench l7`"))?;
        let plain = Lab::new("l7-plain")?;
        let dir = scratch(&plain)?;
        let trio = Trio::new(&plain, &dir, "")?;
        let (mut lanes, mut labs, mut agent) = (Vec::new(), Vec::new(), None);
        for arm in Arm::ALL
            .into_iter()
            .filter(|arm| names.is_empty() || names.iter().any(|name| name == arm.name()))
        {
            let lane = match arm {
                Arm::Direct => Lane {
                    arm,
                    client: trio.client.clone(),
                    http1: format!("http://{}:{HTTP1_PORT}/", trio.v1.address()),
                    http2: Some(format!("http://{}:{HTTP2_PORT}/", trio.v1.address())),
                    proxy: Vec::new(),
                    _processes: Vec::new(),
                },
                Arm::Haproxy | Arm::Nginx | Arm::Envoy => beside_client(arm, &trio, &dir, &envoy)?,
                Arm::Sidecars => sidecars(&Trio::new(&plain, &dir, "-sidecar")?, &dir, &envoy)?,
                Arm::Zerohop => {
                    let mesh = Lab::new("l7-mesh")?;
                    let (lane, started) = zerohop(&mesh)?;
                    agent = Some(started);
                    labs.push(mesh);
                    lane
                }
            };
            lanes.push(lane);
        }
        labs.push(plain);
        Ok(Self {
            lanes,
            _agent: agent,
            envoy,
            _labs: labs,
        })
    }

    /// The arms that run.
    pub fn arms(&self) -> Vec<Arm> {
        self.lanes.iter().map(|lane| lane.arm).collect()
    }

    /// Waits until an arm answers, and holds it to the routes: both versions, by the header.
    pub fn check(&self, arm: Arm) -> Result<()> {
        let lane = self.lane(arm)?;
        let urls = [
            (Some(&lane.http1), "--http1.1"),
            (lane.http2.as_ref(), "--http2-prior-knowledge"),
        ];
        for (url, protocol) in urls {
            let Some(url) = url else { continue };
            let answer = |user: &str| {
                let header = format!("end-user: {user}");
                let arguments = ["-sS", "-m2", protocol, "-H", header.as_str(), url];
                let output = lane.client.exec("curl", arguments, GRACE)?;
                anyhow::Ok(format!("{}{}", output.stdout, output.stderr))
            };
            let expected = backend::body("v1");
            let mut last = String::new();
            let answers = eventually(START_DEADLINE, || {
                last = answer("anybody").unwrap_or_else(|error| format!("{error:#}"));
                last == expected
            });
            ensure!(
                answers,
                "{} did not answer on {url} as v1 does, but: {last}",
                arm.name()
            );
            if arm != Arm::Direct {
                let jason = answer("jason")?;
                ensure!(
                    jason == backend::body("v2"),
                    "{} sent jason elsewhere than to v2: {jason}",
                    arm.name()
                );
            }
        }
        Ok(())
    }

    /// Runs a load by an arm; what came of it, and what the proxy took where there is one. `None`
    /// where the arm does not speak the protocol.
    pub fn measure(&self, arm: Arm, load: &Load) -> Result<Option<(Outcome, Option<Usage>)>> {
        let lane = self.lane(arm)?;
        let url = match load.protocol {
            Protocol::Http1 => Some(&lane.http1),
            Protocol::Http2 => lane.http2.as_ref(),
        };
        let Some(url) = url else { return Ok(None) };
        let before = Usage::of(&lane.proxy)?;
        let output = lane
            .client
            .run(load.command(url, load_core()), load.duration + GRACE)?;
        let after = Usage::of(&lane.proxy)?;
        let context = || format!("{} by {}", load.protocol.name(), arm.name());
        let outcome = load
            .outcome(&output.success().with_context(context)?.stdout)
            .with_context(context)?;
        let usage = Usage {
            cpu: after.cpu.saturating_sub(before.cpu),
            ..after
        };
        Ok(Some((outcome, (!lane.proxy.is_empty()).then_some(usage))))
    }

    /// The versions of all programs, as they say them.
    pub fn versions(&self) -> Value {
        json!({
            "envoy": machine::version(&self.envoy, "--version"),
            "haproxy": machine::version("haproxy".as_ref(), "-v"),
            "nginx": machine::version("nginx".as_ref(), "-v"),
            "wrk": machine::version("wrk".as_ref(), "-v"),
            "h2load": machine::version("h2load".as_ref(), "--version"),
        })
    }

    fn lane(&self, arm: Arm) -> Result<&Lane> {
        let lane = self.lanes.iter().find(|lane| lane.arm == arm);
        lane.with_context(|| format!("the arm {} does not run", arm.name()))
    }
}

fn beside_client(arm: Arm, trio: &Trio, dir: &Path, envoy: &Path) -> Result<Lane> {
    let number = match arm {
        Arm::Haproxy => 1,
        Arm::Nginx => 2,
        _ => 3,
    };
    let ports = Ports {
        http1: 8080 + number,
        http2: 8090 + number,
    };
    let versions = trio.versions();
    let command = match arm {
        Arm::Haproxy => {
            let config = proxies::haproxy(dir, ports, versions)?;
            on_core(
                proxy_core(),
                "haproxy",
                &["-db".as_ref(), "-f".as_ref(), config.as_os_str()],
            )
        }
        Arm::Nginx => {
            let config = proxies::nginx(dir, ports, versions)?;
            on_core(proxy_core(), "nginx", &["-c".as_ref(), config.as_os_str()])
        }
        _ => envoy_command(envoy, &proxies::envoy(dir, ports, versions)?),
    };
    let mut process = trio.client.spawn(command)?;
    trio.client.wait_listening(&mut process, ports.http1)?;
    let url = |port: u16| format!("http://127.0.0.1:{port}/");
    Ok(Lane {
        arm,
        client: trio.client.clone(),
        http1: url(ports.http1),
        http2: (arm != Arm::Nginx).then(|| url(ports.http2)),
        proxy: vec![process.id()],
        _processes: vec![process],
    })
}

fn sidecars(trio: &Trio, dir: &Path, envoy: &Path) -> Result<Lane> {
    let outbound = proxies::outbound_sidecar(dir, trio.versions())?;
    let inbound = proxies::inbound_sidecar(dir)?;
    let mut processes = Vec::new();
    for (pod, config, chain, to) in [
        (&trio.client, &outbound, "OUTPUT", SIDECAR_OUTBOUND),
        (&trio.v1, &inbound, "PREROUTING", SIDECAR_INBOUND),
        (&trio.v2, &inbound, "PREROUTING", SIDECAR_INBOUND),
    ] {
        let mut process = pod.spawn(envoy_command(envoy, config))?;
        pod.wait_listening(&mut process, to.http1)?;
        processes.push(process);
        for (port, to) in [(HTTP1_PORT, to.http1), (HTTP2_PORT, to.http2)] {
            redirect(pod, chain, port, to)?;
        }
    }
    let url = |port: u16| format!("http://{}:{port}/", trio.v1.address());
    Ok(Lane {
        arm: Arm::Sidecars,
        client: trio.client.clone(),
        http1: url(HTTP1_PORT),
        http2: Some(url(HTTP2_PORT)),
        // v2's has no load.
        proxy: processes.iter().take(2).map(Process::id).collect(),
        _processes: processes,
    })
}

fn redirect(pod: &Pod, chain: &str, port: u16, to: u16) -> Result<()> {
    let (port, to, group) = (port.to_string(), to.to_string(), SIDECAR_GROUP.to_string());
    let mut rule = vec![
        "-w", "-t", "nat", "-A", chain, "-p", "tcp", "--dport", &port,
    ];
    if chain == "OUTPUT" {
        rule.extend(["-m", "owner", "!", "--gid-owner", &group]);
    }
    rule.extend(["-j", "REDIRECT", "--to-ports", &to]);
    pod.exec("iptables", rule, GRACE)?
        .success()
        .context("redirect by iptables")
        .map(drop)
}

fn zerohop(mesh: &Lab) -> Result<(Lane, Agent)> {
    let trio = Trio::new(mesh, &scratch(mesh)?, "")?;
    let ports = ServiceSpec::new("backend")
        .port("http", HTTP1_PORT)
        .port("http2", HTTP2_PORT);
    mesh.service(ports)?;
    mesh.manifests().write("routes.yaml", ROUTES)?;
    let agent = Agent::start(mesh, &AgentOptions::default())?;
    for process in usage::with_descendants(&[agent.id()])? {
        pin_threads(process, proxy_core())?;
    }
    let url = |port: u16| format!("http://backend:{port}/");
    let lane = Lane {
        arm: Arm::Zerohop,
        client: trio.client.clone(),
        http1: url(HTTP1_PORT),
        http2: Some(url(HTTP2_PORT)),
        proxy: vec![agent.id()],
        _processes: Vec::new(),
    };
    Ok((lane, agent))
}

/// The same two routes as the others have.
const ROUTES: &str = "\
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: backend, namespace: default}
spec:
  host: backend
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: backend, namespace: default}
spec:
  hosts: [backend]
  http:
  - match:
    - headers: {end-user: {exact: jason}}
    route:
    - destination: {host: backend, subset: v2}
  - route:
    - destination: {host: backend, subset: v1}
";

fn envoy_command(envoy: &Path, config: &Path) -> Command {
    let mut command = on_core(proxy_core(), "setpriv", &[]);
    let group = SIDECAR_GROUP.to_string();
    command
        .args(["--regid", &group, "--clear-groups"])
        .arg(envoy)
        .arg("-c")
        .arg(config);
    command.args([
        "--concurrency",
        "1",
        "--disable-hot-restart",
        "--log-level",
        "error",
    ]);
    command
}

fn on_core(core: usize, program: &str, arguments: &[&std::ffi::OsStr]) -> Command {
    let mut command = Command::new("taskset");
    command
        .args(["-c", &core.to_string(), program])
        .args(arguments);
    command
}

/// Load and backends run here.
fn load_core() -> usize {
    0
}

/// The proxies run here: another core where there is one.
fn proxy_core() -> usize {
    usize::from(sys::cores() > 1)
}

fn pin_threads(process: u32, core: usize) -> Result<()> {
    let path = format!("/proc/{process}/task");
    for thread in fs::read_dir(&path).with_context(|| format!("read {path}"))? {
        let thread = thread?.file_name().to_string_lossy().parse()?;
        sys::pin(thread, core).with_context(|| format!("pin thread {thread}"))?;
    }
    Ok(())
}

/// A folder that goes with the lab.
fn scratch(lab: &Lab) -> Result<PathBuf> {
    let dir = lab.manifests().dir().with_file_name("bench");
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    Ok(dir)
}
