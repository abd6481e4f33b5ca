//! Where the arms run: a node without an agent, one with, and one whose acceleration is off.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use lab::{Agent, AgentOptions, Lab, Pod, PodSpec, Service, ServiceSpec, eventually, traffic};
use serde_json::{Value, json};

use super::load::{App, Outcome};
use crate::l7::backend::write_nginx;
use crate::{machine, pods, sys};

/// Beyond the time that a measurement takes by itself.
const GRACE: Duration = Duration::from_mins(1);
/// How long the kernel may take to settle connections that were closed.
const SETTLED: Duration = Duration::from_secs(2);
const FILE: usize = 1024;

/// A way of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arm {
    /// Two pods joined by one veth pair, no programs.
    Veth,
    /// Pod to pod by the node's bridge, no programs.
    Bridge,
    /// To a Service, Zerohop, as it is by default.
    Direct,
    /// The same, acceleration off.
    DirectOff,
}

/// Where the two ends run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cores {
    /// Both on one core.
    One,
    /// A core each.
    Two,
}

/// What one measurement gave.
pub struct Measured {
    /// What the load generator says.
    pub outcome: Outcome,
    /// Processor seconds of all that runs in both pods.
    pub cpu_seconds: f64,
    /// Of the bytes in both directions, those that went from socket to socket, as the kernel counts
    /// them; absent without an agent.
    pub redirected_share: Option<f64>,
}

/// The nodes; dropping it removes them.
pub struct Site {
    arms: Vec<Arm>,
    plain: Node,
    direct: Option<Node>,
    off: Option<Node>,
}

/// Fields are dropped in this order: the agent goes before its node.
struct Node {
    agent: Option<Agent>,
    client: Pod,
    /// With the applications on the client's core, and on another where there is one.
    servers: Vec<(Cores, Pod, Service)>,
    _lab: Lab,
}

impl Arm {
    const ALL: [Self; 4] = [Self::Veth, Self::Bridge, Self::Direct, Self::DirectOff];

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Veth => "veth",
            Self::Bridge => "bridge",
            Self::Direct => "direct",
            Self::DirectOff => "direct-off",
        }
    }
}

impl Cores {
    /// Those that this machine has.
    pub fn all() -> &'static [Self] {
        if sys::cores() > 1 {
            &[Self::One, Self::Two]
        } else {
            &[Self::One]
        }
    }

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::One => "one core",
            Self::Two => "two cores",
        }
    }

    fn server(self) -> usize {
        usize::from(self == Self::Two)
    }
}

impl Node {
    fn new(name: &str, acceleration: Option<&str>) -> Result<Self> {
        let lab = Lab::new(name)?;
        let client = lab.pod(PodSpec::new("client").app("client", "v1"))?;
        let mut servers = Vec::new();
        for cores in Cores::all() {
            let app = format!("server-{}", cores.server());
            let pod = lab.pod(PodSpec::new(&app).app(&app, "v1"))?;
            serve(&lab, &pod, cores.server())?;
            let spec = ServiceSpec::new(&app)
                .port("tcp-redis", App::RedisGet.port())
                .port("tcp-web", App::Nginx.port());
            servers.push((*cores, pod, lab.service(spec)?));
        }
        let start = |acceleration| {
            let options =
                AgentOptions::default().argument(format!("--acceleration={acceleration}"));
            Agent::start(&lab, &options)
        };
        Ok(Self {
            agent: acceleration.map(start).transpose()?,
            client,
            servers,
            _lab: lab,
        })
    }

    fn server(&self, cores: Cores) -> Result<&(Cores, Pod, Service)> {
        let server = self.servers.iter().find(|(of, ..)| *of == cores);
        server.context("invariant: a server for each choice of cores")
    }

    /// Processor seconds of the client and one server so far.
    fn cpu(&self, server: &Pod) -> Result<f64> {
        Ok(pods::cpu_seconds(&self.client)? + pods::cpu_seconds(server)?)
    }

    /// Once all connections are settled: bytes, and of these those from socket to socket.
    fn carried(&self) -> Option<(u64, u64)> {
        let agent = self.agent.as_ref()?;
        let mut total = traffic::Traffic::default();
        eventually(SETTLED, || {
            total = traffic::total(&agent.traffic().unwrap_or_default(), |_| true);
            total.opened == total.closed
        });
        Some((total.sent + total.received, total.redirected))
    }
}

/// Redis and nginx in a pod, on a core.
fn serve(lab: &Lab, pod: &Pod, core: usize) -> Result<()> {
    let dir = lab
        .manifests()
        .dir()
        .with_file_name("apps")
        .join(pod.name());
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    let on_core = |program: &str| {
        let mut command = Command::new("taskset");
        command.args(["-c", &core.to_string(), program]);
        command
    };
    let mut redis = on_core("redis-server");
    redis.args([
        "--port",
        "6379",
        "--bind",
        "0.0.0.0",
        "--protected-mode",
        "no",
    ]);
    redis.args(["--save", "", "--appendonly", "no", "--daemonize", "no"]);
    redis.arg("--dir").arg(&dir);
    pod.serve(redis, App::RedisGet.port())?;
    fs::write(dir.join("file"), "x".repeat(FILE)).context("write the file to be served")?;
    let servers = format!(
        "sendfile on;\ntcp_nopush on;\nserver {{\n listen {} reuseport;\n root {};\n}}\n",
        App::Nginx.port(),
        dir.display()
    );
    let mut nginx = on_core("nginx");
    nginx.arg("-c").arg(write_nginx(&dir, "nginx", &servers)?);
    pod.serve(nginx, App::Nginx.port())
}

impl Site {
    /// Makes the nodes that the arms need; all arms where no name is given.
    pub fn new(names: &[String]) -> Result<Self> {
        let is_known = |name: &&String| Arm::ALL.iter().any(|arm| arm.name() == **name);
        if let Some(unknown) = names.iter().find(|name| !is_known(name)) {
            bail!(
                "there is no arm `{unknown}`: {}",
                Arm::ALL.map(Arm::name).join(", ")
            );
        }
        let wanted = |arm: &Arm| names.is_empty() || names.iter().any(|name| name == arm.name());
        let arms: Vec<Arm> = Arm::ALL.into_iter().filter(wanted).collect();
        let node = |arm, name, acceleration| {
            arms.contains(&arm)
                .then(|| Node::new(name, Some(acceleration)))
                .transpose()
        };
        let plain = Node::new("apps-plain", None)?;
        for (number, (_, server, _)) in plain.servers.iter().enumerate() {
            pods::join(&plain.client, server, number as u8)?;
        }
        Ok(Self {
            direct: node(Arm::Direct, "apps-direct", "auto")?,
            off: node(Arm::DirectOff, "apps-off", "off")?,
            plain,
            arms,
        })
    }

    /// The arms that run.
    pub fn arms(&self) -> Vec<Arm> {
        self.arms.clone()
    }

    /// The versions of all programs, as they say them.
    pub fn versions() -> Value {
        json!({
            "redis": machine::version("redis-server".as_ref(), "--version"),
            "redis-benchmark": machine::version("redis-benchmark".as_ref(), "--version"),
            "nginx": machine::version("nginx".as_ref(), "-v"),
            "wrk": machine::version("wrk".as_ref(), "-v"),
        })
    }

    /// What `meshctl connections` says of each application's connections under load, a line for each.
    pub fn look(&self) -> Result<Vec<String>> {
        let Some(node) = &self.direct else {
            return Ok(Vec::new());
        };
        let agent = node
            .agent
            .as_ref()
            .context("invariant: an arm with an agent")?;
        let mut lines = Vec::new();
        for app in App::ALL {
            let (_, _, service) = node.server(Cores::One)?;
            let load = app.load(&service.address.to_string(), Duration::from_secs(2), 0);
            let mut running = node.client.spawn(load)?;
            let mut found = BTreeMap::new();
            eventually(GRACE, || {
                found = reasons(&agent.connections().unwrap_or_default());
                found.values().sum::<usize>() >= super::load::CONNECTIONS
                    || !matches!(running.ended(), Ok(None))
            });
            running.kill()?;
            lines.push(format!("{}: {found:?}", app.name()));
        }
        Ok(lines)
    }

    /// Measures a case on an arm.
    pub fn measure(
        &self,
        (app, cores): (App, Cores),
        arm: Arm,
        each: Duration,
    ) -> Result<Measured> {
        let node = match arm {
            Arm::Veth | Arm::Bridge => Some(&self.plain),
            Arm::Direct => self.direct.as_ref(),
            Arm::DirectOff => self.off.as_ref(),
        };
        let node = node.context("invariant: arms that do not run are not measured")?;
        let (_, server, service) = node.server(cores)?;
        let host: Ipv4Addr = match arm {
            Arm::Veth => pods::pair(cores.server() as u8)[1],
            Arm::Bridge => server.address(),
            Arm::Direct | Arm::DirectOff => service.address,
        };
        let before = (node.carried(), node.cpu(server)?);
        let output = node
            .client
            .run(app.load(&host.to_string(), each, 0), each + GRACE)?
            .success()
            .with_context(|| format!("{} by {}", app.name(), arm.name()))?;
        let cpu_seconds = node.cpu(server)? - before.1;
        let redirected_share = match (before.0, node.carried()) {
            (Some(before), Some(after)) if after.0 > before.0 => {
                Some(share(after.1 - before.1, after.0 - before.0))
            }
            _ => None,
        };
        Ok(Measured {
            outcome: app.outcome(&output.stdout, each)?,
            cpu_seconds,
            redirected_share,
        })
    }
}

fn reasons(open: &[Value]) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for connection in open {
        let reason = match (&connection["accelerated"], &connection["reason"]) {
            (Value::Bool(true), _) => "accelerated",
            (_, Value::String(reason)) => reason,
            _ => "undecided",
        };
        *found.entry(reason.to_owned()).or_default() += 1;
    }
    found
}

#[expect(clippy::cast_precision_loss, reason = "shares need no more digits")]
fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}
