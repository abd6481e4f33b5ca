//! `soak life`: agents are killed, stopped and upgraded under load, and no direct connection may notice.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::load::{Answers, Load};
use crate::stage::{DEADLINE, SUBSETS};
use crate::{Agent, AgentOptions, ServiceSpec, Stage};

/// Stamped bytes of an answer.
const BYTES: u64 = 40_000;
/// Answers that each load must have had in the middle of a cycle and at its end.
const ANSWERS: usize = 10;

/// How many times an agent goes and another one comes.
#[derive(Clone, Debug, Args)]
pub struct Plan {
    /// How many cycles: kill -9 and start, SIGTERM and start, upgrade, upgrade to another layout, in turn
    #[arg(long, default_value_t = 100)]
    pub cycles: u32,
}

/// What the loads saw.
#[derive(Debug)]
pub struct Report {
    cycles: u32,
    took: Duration,
    loads: Vec<(&'static str, Answers)>,
}

fn rules() -> String {
    format!(
        "{SUBSETS}---\n\
         apiVersion: networking.istio.io/v1\n\
         kind: VirtualService\n\
         metadata: {{name: echo}}\n\
         spec: {{hosts: [echo], http: [{{route: [{{destination: {{host: echo, subset: v1}}}}]}}]}}\n"
    )
}

/// Runs the plan: what came of it.
pub fn run(plan: &Plan) -> Result<Report> {
    let mut stage = Stage::ruled("life", &["v1"], &rules())?;
    stage.lab.service(
        ServiceSpec::new("plain")
            .selector(&[("app", "echo")])
            .port_to("http", 80, 8080),
    )?;
    stage.ask_until(&["http://plain/"], |answer| answer["status"] == 200)?;
    let service = format!("http://plain/?bytes={BYTES}");
    let pod = format!("http://{}:8080/?bytes={BYTES}", stage.servers[0].address());
    let loads: Vec<(&str, Load)> = [
        ("open, to a service", &["-c", "2", &service][..]),
        ("open, to a pod", &[&pod]),
        ("new, to a service", &["-c", "2", "--reconnect", &service]),
        ("new, to a pod", &["--reconnect", &pod]),
    ]
    .into_iter()
    .map(|(name, arguments)| Ok((name, Load::start(&stage.client, arguments)?)))
    .collect::<Result<_>>()?;
    let go_on = || {
        loads
            .iter()
            .try_for_each(|(name, load)| load.wait_for(ANSWERS, DEADLINE).context(*name))
    };
    let started = Instant::now();
    go_on()?;
    for number in 0..plan.cycles {
        cycle(&mut stage, number, go_on).with_context(|| format!("cycle {number}"))?;
        go_on().with_context(|| format!("after cycle {number}"))?;
    }
    // What goes by the agent is served by the last one of them.
    let answer = stage.ask(&["http://echo/"])?;
    ensure!(answer["status"] == 200, "by the agent: {answer:#}");
    let took = started.elapsed();
    let end = |(name, load): (_, Load)| Ok((name, load.end(Some(BYTES), DEADLINE)?));
    Ok(Report {
        cycles: plan.cycles,
        took,
        loads: loads.into_iter().map(end).collect::<Result<_>>()?,
    })
}

/// One agent ends somehow, and another one is there at the end.
fn cycle(stage: &mut Stage, number: u32, in_the_middle: impl Fn() -> Result<()>) -> Result<()> {
    let newer = AgentOptions::default().argument("--takeover");
    match number % 4 {
        kind @ (0 | 1) => {
            match kind {
                0 => stage.agent.kill()?,
                _ => drop(stage.agent.stop()?),
            }
            in_the_middle()?;
            stage.agent = Agent::start(&stage.lab, &AgentOptions::default())?;
        }
        kind => {
            // The next one's layout is the usual one again.
            let layout = format!("--layout=v{}", 900 + number / 4 % 2);
            let options = match kind {
                2 => newer,
                _ => newer.argument(layout),
            };
            let next = Agent::start(&stage.lab, &options)?;
            in_the_middle()?;
            std::mem::replace(&mut stage.agent, next).wait()?;
        }
    }
    Ok(())
}

impl Report {
    /// An error where anything was reset, refused, or not what had been sent.
    pub fn verdict(&self) -> Result<()> {
        let wrong: usize = self.loads.iter().map(|(_, answers)| answers.wrong).sum();
        let examples = self.loads.iter().flat_map(|(_, answers)| &answers.examples);
        ensure!(
            wrong == 0,
            "{wrong} wrong answers: {:#?}",
            examples.collect::<Vec<_>>()
        );
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.took.as_secs();
        writeln!(f, "{} cycles in {seconds} s", self.cycles)?;
        for (name, answers) in &self.loads {
            writeln!(
                f,
                "{name}: {} answers of {BYTES} bytes, {} wrong",
                answers.all, answers.wrong
            )?;
        }
        Ok(())
    }
}
