//! `l4`: what a byte and a connection cost between two pods of one node.
//!
//! Arms: `veth`, two pods as the CNI connects them, no programs; `direct`, Zerohop's direct way to a
//! Service, accelerated; `direct-off`, the same with acceleration off; `unix`, an AF_UNIX socket: what
//! the kernel can do when it need not be TCP. Then connections that are no business of the mesh, with
//! and without its programs.

mod cases;
mod site;

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use cases::Case;
use serde_json::json;
use site::{Arm, Foreign, Measured, Site};

use crate::figures::{Bound, Figures, in_turn};
use crate::machine;
use crate::peer::Traffic;

/// How much to measure.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Rounds over all arms.
    pub rounds: usize,
    /// How long one measurement takes.
    pub each: Duration,
    /// Rounds of the connections that are no business of the mesh: the bound is tight.
    pub foreign_rounds: usize,
    /// The arms by name; all where empty.
    pub arms: Vec<String>,
    /// Parts of the names of cases; all where empty.
    pub cases: Vec<String>,
}

const RATE: &str = "rate";
const CPU: &str = "processor time of both ends";
const P50: &str = "p50";
const P99: &str = "p99";
const SHARE: &str = "share of the bytes that went from socket to socket";
const FOREIGN_RATE: &str = "rate of connections that are no business of the mesh";
const FOREIGN_CPU: &str = "their processor time, both ends";
const FOREIGN_P50: &str = "p50 of their connect()";
const WITHOUT: &str = "without";
const WITH: &str = "with";

impl Plan {
    /// The whole benchmark, about five minutes.
    pub fn full() -> Self {
        Self {
            rounds: 5,
            each: Duration::from_millis(400),
            foreign_rounds: 21,
            arms: Vec::new(),
            cases: Vec::new(),
        }
    }

    fn wants(&self, case: &str) -> bool {
        self.cases.is_empty() || self.cases.iter().any(|part| case.contains(part))
    }

    /// A first impression, about a minute.
    pub fn quick() -> Self {
        Self {
            rounds: 2,
            each: Duration::from_millis(150),
            foreign_rounds: 5,
            arms: Vec::new(),
            cases: Vec::new(),
        }
    }
}

/// Runs the plan, prints the figures and writes them to `path`.
pub fn run(plan: &Plan, path: &Path) -> Result<()> {
    let site = Site::new(&plan.arms)?;
    let mut figures = Figures::default();
    measure_arms(plan, &site, &mut figures);
    if site.has(Arm::Direct) {
        measure_foreign(plan, &site, &mut figures)?;
    }
    targets(&mut figures);
    for figure in [RATE, CPU, P50, P99] {
        figures.print(figure, Arm::Veth.name());
    }
    figures.print(SHARE, Arm::Veth.name());
    for figure in [FOREIGN_RATE, FOREIGN_CPU, FOREIGN_P50] {
        figures.print(figure, WITHOUT);
    }
    figures.print_targets();
    let ran = json!({
        "benchmark": "l4",
        "machine": machine::describe(),
        "rounds": plan.rounds,
        "secondsEach": plan.each.as_secs_f64(),
        "foreignRounds": plan.foreign_rounds,
        "arms": site.arms().iter().map(|arm| arm.name()).collect::<Vec<_>>(),
    });
    figures.write(path, &ran, &[Arm::Veth.name(), Arm::Bridge.name(), WITHOUT])?;
    figures.verdict()
}

fn measure_arms(plan: &Plan, site: &Site, figures: &mut Figures) {
    let mut cases = cases::all();
    cases.retain(|case| plan.wants(&case.name()));
    for round in 0..plan.rounds {
        for (number, case) in cases.iter().enumerate() {
            let name = case.name();
            progress(round, plan.rounds, number, cases.len(), &name);
            for arm in in_turn(site.arms(), round) {
                match site.measure(case, arm, plan.each) {
                    Ok(measured) => record(figures, case, arm, &measured),
                    Err(error) => figures.fail(&name, arm.name(), RATE, case.unit(), &error),
                }
            }
        }
    }
    eprintln!();
}

/// Connections to addresses that no service has, in a node with the agent and one without.
fn measure_foreign(plan: &Plan, site: &Site, figures: &mut Figures) -> Result<()> {
    for round in 0..plan.foreign_rounds {
        for (number, foreign) in Foreign::ALL.into_iter().enumerate() {
            let case = format!("connect to {}", foreign.name());
            if !plan.wants(&case) {
                continue;
            }
            progress(
                round,
                plan.foreign_rounds,
                number,
                Foreign::ALL.len(),
                &case,
            );
            for with in in_turn(&[false, true], round) {
                let measured = site.measure_foreign(foreign, with, plan.each)?;
                let client = &measured.client;
                let arm = if with { WITH } else { WITHOUT };
                let operations = whole(client.operations);
                figures.record(
                    &case,
                    arm,
                    FOREIGN_RATE,
                    "connections/s",
                    operations / client.seconds,
                );
                let cpu = (client.cpu_seconds + measured.server_cpu_seconds) / operations;
                figures.record(&case, arm, FOREIGN_CPU, "us/connection", cpu * 1e6);
                figures.record(&case, arm, FOREIGN_P50, "us", client.connect_p50_us);
            }
        }
    }
    eprintln!();
    Ok(())
}

fn record(figures: &mut Figures, case: &Case, arm: Arm, measured: &Measured) {
    let (name, arm, client) = (case.name(), arm.name(), &measured.client);
    let cpu = client.cpu_seconds + measured.server_cpu_seconds;
    let (operations, bytes) = (whole(client.operations), whole(client.bytes));
    if let Some(share) = measured.redirected_share {
        figures.record(&name, arm, SHARE, "of 1", share);
    }
    if case.traffic == Traffic::Stream {
        figures.record(&name, arm, RATE, case.unit(), bytes / 1e6 / client.seconds);
        figures.record(&name, arm, CPU, "ms/GB", cpu * 1e3 / (bytes / 1e9));
        return;
    }
    figures.record(&name, arm, RATE, case.unit(), operations / client.seconds);
    figures.record(&name, arm, CPU, "us/operation", cpu * 1e6 / operations);
    figures.record(&name, arm, P50, "us", client.p50_us);
    figures.record(&name, arm, P99, "us", client.p99_us);
}

fn targets(figures: &mut Figures) {
    let (direct, veth) = (Arm::Direct.name(), Arm::Veth.name());
    for (what, case, bound) in [
        (
            "1 KiB request-response, one core: rate x veth",
            "ping 1 KiB, one core",
            1.7,
        ),
        (
            "100 connections, 1 KiB, one core: rate x veth",
            "100 x ping 1 KiB, one core",
            2.5,
        ),
        (
            "16 KiB stream, one core: rate x veth",
            "stream 16 KiB, one core",
            2.0,
        ),
        (
            "256 KiB stream, one core: rate x veth",
            "stream 256 KiB, one core",
            1.2,
        ),
    ] {
        let ratio = figures.ratio(case, direct, veth, RATE);
        figures.target(what, ratio, Bound::AtLeast(bound));
    }
    for foreign in Foreign::ALL {
        let case = format!("connect to {}", foreign.name());
        let ratio = figures.ratio(&case, WITH, WITHOUT, FOREIGN_RATE);
        figures.target(
            format!("{case}: rate x without programs"),
            ratio,
            Bound::AtLeast(0.98),
        );
    }
}

fn progress(round: usize, rounds: usize, number: usize, all: usize, what: &str) {
    eprint!(
        "\rround {}/{rounds}, {}/{all}: {what:<44}",
        round + 1,
        number + 1
    );
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
fn whole(count: u64) -> f64 {
    count as f64
}
