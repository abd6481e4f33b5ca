//! `soak race`: stamped connections of every racing kind, while the agent is killed and comes back.

mod report;

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use serde_json::Value;

use report::Reasons;
pub use report::Report;

use crate::peer::racer;
use crate::stage::DEADLINE;
use crate::{Agent, AgentOptions, Families, Lab, Pod, PodSpec, Process, Service, ServiceSpec};

/// Beyond the time that connections are opened for: the last may take a minute.
const GRACE: Duration = Duration::from_secs(200);
/// How often the open connections are looked at.
const GLANCE: Duration = Duration::from_secs(2);
/// How long acceleration is off, each time.
const SWITCHED_OFF: Duration = Duration::from_millis(300);

/// How long, how much at a time, and what happens meanwhile.
#[derive(Clone, Debug, Args)]
pub struct Plan {
    /// How many connections
    #[arg(long, default_value_t = 1_000_000)]
    pub connections: u64,
    /// Stop opening after so many seconds
    #[arg(long, default_value_t = 7200)]
    pub seconds: u64,
    /// Connections at a time
    #[arg(long, default_value_t = 64)]
    pub concurrency: usize,
    /// Seconds between two deaths of the agent, and between two times that acceleration is switched off
    /// and on again; 0: never
    #[arg(long, default_value_t = 15)]
    pub disturb: u64,
    /// Only these variants, by name
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<String>,
    /// `zerohop.dev/acceleration` of both pods: with `on`, servers that speak first are redirected, too,
    /// and sockets that block are left out, which is what the annotation promises
    #[arg(long, default_value = "auto", value_parser = ["auto", "on", "off"])]
    pub acceleration: String,
}

/// The variant whose sockets block.
const BLOCKING: &str = "blocking";

impl Plan {
    /// The variants that take part; all where empty.
    fn variants(&self) -> Vec<String> {
        if self.acceleration != "on" {
            return self.only.clone();
        }
        let asked = |name: &str| self.only.is_empty() || self.only.iter().any(|only| only == name);
        let names = racer::ports().into_iter().map(|port| port.name);
        names
            .filter(|name| *name != BLOCKING && asked(name))
            .map(str::to_owned)
            .collect()
    }
}

/// The scene: a client, a server, a service for each variant.
struct Scene {
    agent: Agent,
    client: Pod,
    server: Pod,
    services: Vec<Service>,
    lab: Lab,
}

/// Runs the plan: what came of it.
pub fn run(plan: &Plan) -> Result<Report> {
    let mut scene = Scene::new(&plan.acceleration)?;
    let mut serving = scene.serve()?;
    let mut driving = scene.client.spawn(scene.drive(plan)?)?;
    let since = Instant::now();
    let deadline = Duration::from_secs(plan.seconds) + GRACE;
    let mut reasons = Reasons::default();
    let mut disturbed = 0;
    let mut said = 0;
    while driving.ended()?.is_none() && since.elapsed() < deadline {
        // The client decides when it is over; here is only looked on and disturbed.
        driving.wait_end(GLANCE)?;
        let log = driving.stderr();
        eprint!("{}", &log[said..]);
        said = log.len();
        reasons.add(&scene.agent.connections().unwrap_or_default());
        let due = since
            .elapsed()
            .as_secs()
            .checked_div(plan.disturb)
            .unwrap_or(0);
        if due > disturbed {
            disturbed = due;
            scene.disturb(disturbed)?;
        }
    }
    let client = driving.wait(Duration::ZERO).context("the client")?.json()?;
    drop(serving.take_stdin());
    let server = serving.wait(GRACE).context("the server")?.success()?;
    let server = server.stdout.lines().last().unwrap_or_default();
    let server = serde_json::from_str(server).context("the server's report")?;
    let seconds = since.elapsed().as_secs_f64();
    let mut report = Report::new(&client, &server, reasons)?;
    report.seconds = seconds;
    report.disturbed = disturbed;
    report.count(&scene.agent)?;
    Ok(report)
}

impl Scene {
    fn new(acceleration: &str) -> Result<Self> {
        let lab = Lab::new("race")?;
        let pod = |name| {
            let spec = PodSpec::new(name).app(name, "v1");
            lab.pod(spec.annotation("zerohop.dev/acceleration", acceleration))
        };
        let (client, server) = (pod("client")?, pod("server")?);
        for pod in [&client, &server] {
            // Client and server, with cookies.
            pod.sysctl("net.ipv4.tcp_fastopen", "3")?;
        }
        let services = racer::ports()
            .into_iter()
            .map(|port| {
                let spec = ServiceSpec::new(port.name)
                    .selector(&[("app", "server")])
                    .families(Families::Both)
                    .port("tcp", port.port);
                lab.service(spec)
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            agent: Agent::start(&lab, &AgentOptions::default())?,
            client,
            server,
            services,
            lab,
        })
    }

    fn serve(&self) -> Result<Process> {
        let mut serving = self.server.spawn(Pod::peer(["race-server"])?)?;
        serving.wait_stdout("listening", DEADLINE)?;
        Ok(serving)
    }

    fn drive(&self, plan: &Plan) -> Result<std::process::Command> {
        let both = |ipv4, ipv6| format!("{ipv4},{ipv6}");
        let mut command = Pod::peer(["race-client"])?;
        command
            .arg(format!("--connections={}", plan.connections))
            .arg(format!("--seconds={}", plan.seconds))
            .arg(format!("--concurrency={}", plan.concurrency))
            .args(plan.variants().iter().map(|name| format!("--only={name}")));
        command.args([
            "--server",
            &both(self.server.address(), self.server.address6()),
        ]);
        for service in &self.services {
            command.args(["--service", &both(service.address, service.address6())]);
        }
        Ok(command)
    }

    /// By turns: the agent is killed and another comes, or acceleration is off for a moment.
    fn disturb(&mut self, number: u64) -> Result<()> {
        if number.is_multiple_of(3) {
            self.agent.meshctl(&["acceleration", "off"])?.success()?;
            std::thread::sleep(SWITCHED_OFF);
            self.agent.meshctl(&["acceleration", "on"])?.success()?;
            return Ok(());
        }
        self.agent.kill()?;
        self.agent = Agent::start(&self.lab, &AgentOptions::default())
            .context("start an agent after the one that was killed")?;
        Ok(())
    }
}

/// A number of a report.
fn number(value: &Value, key: &str) -> Result<u64> {
    value[key]
        .as_u64()
        .with_context(|| format!("no number `{key}` in {value}"))
}
