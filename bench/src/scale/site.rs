//! A node with a client that holds connections open, to servers of another pod.

use std::io::Write as _;
use std::process::{ChildStdin, Command};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{
    Agent, AgentOptions, Lab, Pod, PodSpec, Process, Service, ServiceSpec, eventually, traffic,
};
use serde_json::Value;

use crate::peer::{Address, Report};
use crate::pods;

/// A server and a holder for each, as a process may have 20,000 descriptors where nobody raised the limit.
const PORTS: std::ops::RangeInclusive<u16> = 7001..=7008;
/// For the connections that are opened meanwhile.
const CONNECT_PORT: u16 = 7000;
const SIZE: usize = 64;
/// Until all connections are open, on a busy machine.
const OPENING: Duration = Duration::from_mins(5);
const GRACE: Duration = Duration::from_mins(1);

/// Whether there is a mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mesh {
    /// Pod to pod by the node's bridge, no programs.
    Without,
    /// To a Service, accelerated.
    With,
}

/// What BPF maps take, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Maps {
    /// All of them, now.
    pub now: f64,
    /// More than before any connection was open.
    pub grown: f64,
}

/// Connections that are held open. Fields are dropped in this order: the agent goes before its node.
pub struct Held {
    holders: Vec<Holder>,
    opening: f64,
    maps_before: Option<f64>,
    servers: Vec<Process>,
    pair: Pair,
}

/// A process that holds some of them.
struct Holder {
    process: Process,
    orders: ChildStdin,
    answers: usize,
}

/// A client and a server.
pub struct Pair {
    pub(super) agent: Option<Agent>,
    client: Pod,
    server: Pod,
    service: Option<Service>,
    _lab: Lab,
}

impl Mesh {
    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Without => "bridge",
            Self::With => "direct",
        }
    }
}

impl Pair {
    /// Two pods and a service; `prepare` may add to the configuration before an agent reads it.
    pub fn new(name: &str, mesh: Mesh, prepare: impl FnOnce(&Lab) -> Result<()>) -> Result<Self> {
        let lab = Lab::new(name)?;
        let pod = |name| {
            // The peers' sockets block, which Zerohop leaves on TCP unless it is told otherwise.
            let spec = PodSpec::new(name).app(name, "v1");
            lab.pod(spec.annotation("zerohop.dev/acceleration", "on"))
        };
        let (client, server) = (pod("client")?, pod("server")?);
        client.sysctl("net.ipv4.ip_local_port_range", "10000 65535")?;
        let mut spec = ServiceSpec::new("server").port("tcp", CONNECT_PORT);
        for port in PORTS {
            spec = spec.port(format!("tcp-{port}"), port);
        }
        let service = match mesh {
            Mesh::Without => None,
            Mesh::With => Some(lab.service(spec)?),
        };
        prepare(&lab)?;
        let agent = match mesh {
            Mesh::Without => None,
            Mesh::With => Some(Agent::start(&lab, &AgentOptions::default())?),
        };
        Ok(Self {
            agent,
            client,
            server,
            service,
            _lab: lab,
        })
    }

    fn address(&self, port: u16) -> Address {
        let address = match &self.service {
            Some(service) => service.address,
            None => self.server.address(),
        };
        Address::Tcp((address, port).into())
    }

    /// Processor seconds of both pods so far.
    fn cpu(&self) -> Result<f64> {
        Ok(pods::cpu_seconds(&self.client)? + pods::cpu_seconds(&self.server)?)
    }

    fn serve(&self, kind: &str, port: u16) -> Result<Process> {
        let any = Address::Tcp(([0, 0, 0, 0], port).into());
        let mut serve = peer()?;
        serve.args(["serve", kind, &SIZE.to_string(), &any.to_string()]);
        let mut serving = self.server.spawn(serve)?;
        serving.wait_stdout("listening", GRACE)?;
        Ok(serving)
    }

    /// Connects, asks and closes for so long: processor microseconds of both pods for each.
    pub fn connect(&self, each: Duration) -> Result<f64> {
        let mut serving = self.serve("connect", CONNECT_PORT)?;
        let mut drive = peer()?;
        drive.args(["drive", "connect", &SIZE.to_string()]);
        drive.arg(self.address(CONNECT_PORT).to_string());
        drive.arg(format!("--seconds={}", each.as_secs_f64()));
        let before = self.cpu()?;
        let report = self.client.run(drive, each + GRACE)?.json()?;
        let cpu = self.cpu()? - before;
        serving.kill()?;
        let report: Report = serde_json::from_value(report).context("the client's report")?;
        Ok(cpu * 1e6 / count(report.operations))
    }

    /// Bytes of all BPF maps; `None` without an agent.
    pub fn maps(&self) -> Result<Option<f64>> {
        let Some(agent) = &self.agent else {
            return Ok(None);
        };
        let maps = agent.meshctl_json(&["maps", "list"])?;
        let maps = maps.as_array().context("`meshctl maps list` is no list")?;
        let bytes: u64 = maps.iter().filter_map(|map| map["memory"].as_u64()).sum();
        Ok(Some(count(bytes)))
    }
}

impl Held {
    /// Opens so many.
    pub fn new(open: u32, mesh: Mesh) -> Result<Self> {
        let pair = Pair::new(&format!("scale-{}-{open}", mesh.name()), mesh, |_| Ok(()))?;
        let servers = PORTS
            .map(|port| pair.serve("parallel", port))
            .collect::<Result<_>>()?;
        let maps_before = pair.maps()?;
        let before = pair.cpu()?;
        let holders = (0..)
            .zip(PORTS)
            .map(|(number, port)| {
                // The first ones hold one more where it does not divide.
                let processes = PORTS.len() as u32;
                let share = (open + processes - 1 - number) / processes;
                let mut hold = peer()?;
                hold.arg("hold").arg(format!("--connections={share}"));
                hold.args([SIZE.to_string(), pair.address(port).to_string()]);
                let mut process = pair.client.spawn(hold)?;
                let orders = process.take_stdin();
                Ok(Holder {
                    process,
                    orders: orders.context("invariant: its input is a pipe")?,
                    answers: 0,
                })
            })
            .collect::<Result<_>>()?;
        let mut held = Self {
            holders,
            opening: 0.0,
            maps_before,
            servers,
            pair,
        };
        held.answers(OPENING)?;
        held.opening = held.pair.cpu()? - before;
        Ok(held)
    }

    /// Processor seconds that opening took, both pods.
    pub fn opening_cpu_seconds(&self) -> f64 {
        self.opening
    }

    /// Bytes of the BPF maps; `None` without an agent.
    pub fn maps(&self) -> Result<Option<Maps>> {
        let maps = |(now, before): (f64, f64)| Maps {
            now,
            grown: now - before,
        };
        Ok(self.pair.maps()?.zip(self.maps_before).map(maps))
    }

    /// Asks over connections by chance: processor microseconds of both pods for each question.
    pub fn ping(&mut self, each: Duration) -> Result<f64> {
        let before = self.pair.cpu()?;
        for holder in &mut self.holders {
            writeln!(holder.orders, "{}", each.as_secs_f64()).context("tell a holder")?;
        }
        let questions = self.answers(each + GRACE)?;
        Ok((self.pair.cpu()? - before) * 1e6 / count(questions))
    }

    /// New connections beside those that are open: processor microseconds of both pods for each.
    pub fn connect(&self, each: Duration) -> Result<f64> {
        self.pair.connect(each)
    }

    /// Closes all; the share of the bytes that went from socket to socket, `None` without an agent.
    pub fn close(self) -> Result<Option<f64>> {
        for holder in self.holders {
            drop(holder.orders);
            holder.process.wait(GRACE)?.success()?;
        }
        drop(self.servers);
        let Some(agent) = &self.pair.agent else {
            return Ok(None);
        };
        let mut total = traffic::Traffic::default();
        let settled = eventually(GRACE, || {
            total = traffic::total(&agent.traffic().unwrap_or_default(), |_| true);
            total.opened == total.closed
        });
        ensure!(settled, "{} opened, {} closed", total.opened, total.closed);
        Ok(Some(
            count(total.redirected) / count(total.sent + total.received),
        ))
    }

    /// What all holders have done since they were told, or started.
    fn answers(&mut self, deadline: Duration) -> Result<u64> {
        let mut operations = 0;
        for holder in &mut self.holders {
            operations += holder.answer(deadline)?.operations;
        }
        Ok(operations)
    }
}

impl Holder {
    /// Its next line.
    fn answer(&mut self, deadline: Duration) -> Result<Report> {
        let (number, process) = (self.answers, &mut self.process);
        let mut line = None;
        eventually(deadline, || {
            let printed = process.stdout();
            let whole = printed.matches('\n').count() > number;
            line = whole.then(|| printed.lines().nth(number).unwrap_or_default().to_owned());
            whole || !matches!(process.ended(), Ok(None))
        });
        let line = line.with_context(|| format!("a holder ended: {}", self.process.stderr()))?;
        self.answers += 1;
        let value: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
        serde_json::from_value(value).context("a holder's report")
    }
}

/// On one core, both ends: what waking another core costs is another matter.
fn peer() -> Result<Command> {
    let mut peer = Command::new(lab::binaries::find("bench-peer")?);
    peer.arg("--core=0");
    Ok(peer)
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
fn count(count: u64) -> f64 {
    count as f64
}
