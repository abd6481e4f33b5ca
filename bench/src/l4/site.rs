//! Where the arms run: a node without an agent, one with, and one whose acceleration is off.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use lab::traffic::{self, Traffic as Carried};
use lab::{Agent, AgentOptions, Lab, Pod, PodSpec, Service, ServiceSpec};

use super::cases::{Case, Cores};
use super::whole;
use crate::peer::{Address, Report, Traffic};
use crate::pods;

const PORT: u16 = 7000;
/// Beyond the time that a measurement takes by itself.
const GRACE: Duration = Duration::from_secs(15);

/// A way of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arm {
    /// Two pods joined by one veth pair, no programs: the least that TCP between namespaces costs.
    Veth,
    /// Two pods joined by the node's bridge, no programs.
    Bridge,
    /// Zerohop, accelerated.
    Direct,
    /// Zerohop, acceleration off.
    DirectOff,
    /// AF_UNIX.
    Unix,
}

impl Arm {
    const ALL: [Self; 5] = [
        Self::Veth,
        Self::Bridge,
        Self::Direct,
        Self::DirectOff,
        Self::Unix,
    ];

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Veth => "veth",
            Self::Bridge => "bridge",
            Self::Direct => "direct",
            Self::DirectOff => "direct-off",
            Self::Unix => "unix",
        }
    }
}

/// A destination that is no business of the mesh.
#[derive(Clone, Copy, Debug)]
pub enum Foreign {
    /// The pod's own loopback.
    Loopback,
    /// A pod that has no manifest.
    Stranger,
}

impl Foreign {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Loopback, Self::Stranger];

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
            Self::Stranger => "a pod outside the mesh",
        }
    }
}

/// What one measurement gave.
pub struct Measured {
    /// What the client says.
    pub client: Report,
    /// Processor seconds of the server meanwhile.
    pub server_cpu_seconds: f64,
    /// Of the bytes in both directions, those that went from socket to socket, as the kernel counts
    /// them; absent without an agent.
    pub redirected_share: Option<f64>,
}

/// All nodes of the benchmark; dropping it removes them.
pub struct Site {
    arms: Vec<Arm>,
    plain: Node,
    accelerated: Option<Node>,
    slow: Option<Node>,
    peer: PathBuf,
}

/// A node with a client, a server behind a service, and a pod that the mesh is not told of.
/// Fields are dropped in this order: the agent goes before its node.
struct Node {
    agent: Option<Agent>,
    client: Pod,
    server: Pod,
    stranger: Pod,
    service: Service,
    lab: Lab,
}

impl Node {
    fn new(name: &str, acceleration: Option<&str>) -> Result<Self> {
        let lab = Lab::new(name)?;
        // The peers' sockets block, which is the cheapest way to wait in every arm; Zerohop leaves such
        // sockets on TCP unless it is told otherwise (docs/limits.md).
        let pod = |name| {
            let forced = ("zerohop.dev/acceleration", "on");
            let spec = PodSpec::new(name).app(name, "v1");
            match acceleration {
                Some("on") => spec.annotation(forced.0, forced.1),
                _ => spec,
            }
        };
        let client = lab.pod(pod("client"))?;
        let server = lab.pod(pod("server"))?;
        let stranger = lab.stranger(PodSpec::new("stranger"))?;
        let service = lab.service(ServiceSpec::new("server").port("tcp", PORT))?;
        let agent = match acceleration {
            Some(acceleration) => {
                let options =
                    AgentOptions::default().argument(format!("--acceleration={acceleration}"));
                Some(Agent::start(&lab, &options)?)
            }
            None => None,
        };
        Ok(Self {
            agent,
            client,
            server,
            stranger,
            service,
            lab,
        })
    }
}

impl Node {
    /// What the kernel has counted between the pods by now; absent without an agent.
    fn carried(&self) -> Result<Option<Carried>> {
        let Some(agent) = &self.agent else {
            return Ok(None);
        };
        Ok(Some(traffic::total(&agent.traffic()?, |_| true)))
    }
}

impl Site {
    /// Makes the nodes that the arms need; all arms where no name is given.
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
        let wanted = |arm: &Arm| names.is_empty() || names.iter().any(|name| name == arm.name());
        let arms: Vec<Arm> = Arm::ALL.into_iter().filter(wanted).collect();
        let node = |arm, name, acceleration| {
            arms.contains(&arm)
                .then(|| Node::new(name, Some(acceleration)))
                .transpose()
        };
        let plain = Node::new("l4-plain", None)?;
        pods::join(&plain.client, &plain.server, 0)?;
        Ok(Self {
            plain,
            accelerated: node(Arm::Direct, "l4-direct", "on").context("the arm `direct`")?,
            slow: node(Arm::DirectOff, "l4-off", "off").context("the arm `direct-off`")?,
            peer: lab::binaries::find("bench-peer")?,
            arms,
        })
    }

    /// The arms that run.
    pub fn arms(&self) -> &[Arm] {
        &self.arms
    }

    /// Whether an arm runs.
    pub fn has(&self, arm: Arm) -> bool {
        self.arms.contains(&arm)
    }

    /// Measures a case on an arm: what the client and the server say.
    pub fn measure(&self, case: &Case, arm: Arm, each: Duration) -> Result<Measured> {
        let node = match arm {
            Arm::Veth | Arm::Bridge | Arm::Unix => Some(&self.plain),
            Arm::Direct => self.accelerated.as_ref(),
            Arm::DirectOff => self.slow.as_ref(),
        };
        let node = node.context("invariant: arms that do not run are not measured")?;
        let any = Address::Tcp(([0, 0, 0, 0], PORT).into());
        let (listen, dial) = match arm {
            Arm::Veth => (any, Address::Tcp((pods::pair(0)[1], PORT).into())),
            Arm::Bridge => (any, Address::Tcp((node.server.address(), PORT).into())),
            Arm::Direct | Arm::DirectOff => {
                (any, Address::Tcp((node.service.address, PORT).into()))
            }
            Arm::Unix => (self.unix_address(), self.unix_address()),
        };
        let pods = (&node.client, &node.server);
        let before = node.carried()?;
        let mut measured = self
            .run(case, pods, (&listen, &dial), each)
            .with_context(|| format!("{} by {}", case.name(), arm.name()))?;
        if let (Some(before), Some(after)) = (before, node.carried()?) {
            let all = after.sent + after.received - before.sent - before.received;
            let redirected = after.redirected - before.redirected;
            measured.redirected_share = (all > 0).then(|| whole(redirected) / whole(all));
        }
        Ok(measured)
    }

    /// Measures connections to a foreign destination, on the node with or without programs.
    pub fn measure_foreign(
        &self,
        foreign: Foreign,
        with: bool,
        each: Duration,
    ) -> Result<Measured> {
        let node = if with {
            self.accelerated.as_ref()
        } else {
            Some(&self.plain)
        };
        let node = node.context("invariant: measured only where the arm `direct` runs")?;
        let (server, address) = match foreign {
            Foreign::Loopback => (&node.client, Ipv4Addr::LOCALHOST),
            Foreign::Stranger => (&node.stranger, node.stranger.address()),
        };
        let case = Case {
            traffic: Traffic::Connect,
            size: 0,
            connections: 1,
            cores: Cores::One,
        };
        let any = Address::Tcp(([0, 0, 0, 0], PORT).into());
        let dial = Address::Tcp((address, PORT).into());
        self.run(&case, (&node.client, server), (&any, &dial), each)
            .with_context(|| format!("connecting to {}", foreign.name()))
    }

    fn run(
        &self,
        case: &Case,
        (client, server): (&Pod, &Pod),
        (listen, dial): (&Address, &Address),
        each: Duration,
    ) -> Result<Measured> {
        let (client_core, server_core) = case.pinned();
        let mut serving = server.spawn(self.peer("serve", case, listen, server_core))?;
        serving.wait_stdout("listening", GRACE)?;
        let mut command = self.peer("drive", case, dial, client_core);
        command.arg(format!("--seconds={}", each.as_secs_f64()));
        command.arg(format!("--connections={}", case.connections));
        let cpu_before = cpu_seconds(serving.id())?;
        let driven = client.run(command, each + GRACE)?.json()?;
        let server_cpu_seconds =
            cpu_seconds(serving.id()).with_context(|| serving.stderr())? - cpu_before;
        serving.kill()?;
        let client = serde_json::from_value(driven).context("the client's report")?;
        Ok(Measured {
            client,
            server_cpu_seconds,
            redirected_share: None,
        })
    }

    fn peer(&self, command: &str, case: &Case, address: &Address, core: usize) -> Command {
        let traffic = match case.traffic {
            Traffic::Ping => "ping",
            Traffic::Stream => "stream",
            Traffic::Parallel => "parallel",
            Traffic::Connect => "connect",
        };
        let mut peer = Command::new(&self.peer);
        peer.arg(format!("--core={core}")).args([command, traffic]);
        peer.arg(case.size.to_string()).arg(address.to_string());
        peer
    }

    /// In the lab's folder, so that it goes with it.
    fn unix_address(&self) -> Address {
        let manifests = self.plain.lab.manifests().dir();
        Address::Unix(manifests.with_file_name("l4.sock"))
    }
}

/// Processor seconds that a process of one thread has taken: proc(5), schedstat, in nanoseconds.
fn cpu_seconds(process: u32) -> Result<f64> {
    let path = format!("/proc/{process}/schedstat");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let nanoseconds: u64 = text
        .split(' ')
        .next()
        .unwrap_or_default()
        .parse()
        .with_context(|| format!("{path}: {text}"))?;
    Ok(Duration::from_nanos(nanoseconds).as_secs_f64())
}
