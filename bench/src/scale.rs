//! `scale`: what a connection takes in memory, and whether anything grows slower with how many
//! connections are open or how many services there are.
//!
//! First, for each number of open connections, a node without programs (`bridge`) and one with Zerohop
//! (`direct`), all at the same time, so that rounds go over all of them: questions over connections by
//! chance, and new connections. Then, for each number of services, a node with so many, and connections
//! to one of them.

mod crowds;
mod memory;
mod site;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use crate::figures::{Bound, Figures, in_turn};
use crate::machine;
use crowds::Crowded;
use memory::Taken;
use site::{Held, Mesh};

/// How much to measure.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Rounds over all arms.
    pub rounds: usize,
    /// How long one measurement takes.
    pub each: Duration,
    /// How many connections to hold open.
    pub open: Vec<u32>,
    /// How many services to have.
    pub services: Vec<u32>,
}

const PING: &str = "processor time of a question and its answer, 64 bytes";
const CONNECT: &str = "processor time of connect, 64 bytes there and back, close";
const OPENING: &str = "processor time of opening";
const MEMORY: &str = "kernel memory of an open connection, both ends";
const OF_MAPS: &str = "of it in BPF maps";
const MAPS: &str = "all BPF maps";
const SHARE: &str = "share of the bytes that went from socket to socket";
const LOAD: &str = "time until the configuration is in force";
const RESIDENT: &str = "resident memory of the agent";
/// How much more the most may cost than the fewest. For open connections beyond what plain TCP costs more
/// then: sockets that are not in the processor's cache cost everybody.
const FLAT: f64 = 1.15;

impl Plan {
    /// About five minutes, and 2 GB.
    pub fn full() -> Self {
        Self {
            rounds: 9,
            each: Duration::from_millis(300),
            open: vec![100, 1000, 10_000, 100_000],
            services: vec![10, 100, 1000, 10_000],
        }
    }

    /// A first impression.
    pub fn quick() -> Self {
        Self {
            rounds: 3,
            each: Duration::from_millis(200),
            open: vec![100, 10_000],
            services: vec![10, 1000],
        }
    }
}

/// Runs the plan, prints the figures and writes them to `path`.
pub fn run(plan: &Plan, path: &Path) -> Result<()> {
    let mut figures = Figures::default();
    if !plan.open.is_empty() {
        measure_open(plan, &mut figures)?;
    }
    if !plan.services.is_empty() {
        measure_services(plan, &mut figures)?;
    }
    targets(plan, &mut figures);
    let base = Mesh::Without.name();
    for figure in [
        PING, CONNECT, OPENING, MEMORY, OF_MAPS, MAPS, SHARE, LOAD, RESIDENT,
    ] {
        figures.print(figure, base);
    }
    figures.print_targets();
    let ran = json!({
        "benchmark": "scale",
        "machine": machine::describe(),
        "rounds": plan.rounds,
        "secondsEach": plan.each.as_secs_f64(),
        "open": plan.open,
        "services": plan.services,
    });
    figures.write(path, &ran, &[base])?;
    figures.verdict()
}

fn open_case(open: u32) -> String {
    format!("{open} connections open")
}

fn services_case(services: u32) -> String {
    format!("{services} services")
}

fn measure_open(plan: &Plan, figures: &mut Figures) -> Result<()> {
    let mut arms = Vec::new();
    for &open in &plan.open {
        for mesh in [Mesh::Without, Mesh::With] {
            eprint!("\ropening {open:>6} {:<8}", mesh.name());
            let before = Taken::now()?;
            let held = Held::new(open, mesh).with_context(|| open_case(open))?;
            let taken = Taken::now()?.since(before);
            let (case, arm) = (open_case(open), mesh.name());
            let each = |bytes: f64| bytes / f64::from(open);
            let opening = held.opening_cpu_seconds() * 1e6;
            figures.record(&case, arm, OPENING, "us/connection", each(opening));
            // Fewer are lost in what the machine does besides.
            if open >= 10_000 {
                figures.record(&case, arm, MEMORY, "bytes", each(taken.bytes));
            }
            if let Some(maps) = held.maps()? {
                figures.record(&case, arm, MAPS, "MB", maps.now / 1e6);
                figures.record(&case, arm, OF_MAPS, "bytes", each(maps.grown));
            }
            arms.push((open, mesh, held));
        }
    }
    eprintln!();
    let numbers: Vec<usize> = (0..arms.len()).collect();
    for round in 0..plan.rounds {
        eprint!("\rround {}/{} of open connections", round + 1, plan.rounds);
        for number in in_turn(&numbers, round) {
            let (open, mesh, held) = &mut arms[number];
            let (case, arm) = (open_case(*open), mesh.name());
            let ping = held.ping(plan.each).with_context(|| case.clone())?;
            figures.record(&case, arm, PING, "us", ping);
            let connect = held.connect(plan.each).with_context(|| case.clone())?;
            figures.record(&case, arm, CONNECT, "us", connect);
        }
    }
    eprintln!();
    for (open, mesh, held) in arms {
        if let Some(share) = held.close()? {
            figures.record(&open_case(open), mesh.name(), SHARE, "of 1", share);
        }
    }
    Ok(())
}

fn measure_services(plan: &Plan, figures: &mut Figures) -> Result<()> {
    let arm = Mesh::With.name();
    let mut nodes = Vec::new();
    for &services in &plan.services {
        eprint!("\rmaking {services:>6} services");
        let node = Crowded::new(services).with_context(|| services_case(services))?;
        let case = services_case(services);
        figures.record(&case, arm, LOAD, "ms", node.ready_ms());
        figures.record(&case, arm, RESIDENT, "MiB", node.resident_mib()?);
        figures.record(&case, arm, MAPS, "MB", node.maps()? / 1e6);
        nodes.push((services, node));
    }
    eprintln!();
    let numbers: Vec<usize> = (0..nodes.len()).collect();
    for round in 0..plan.rounds {
        eprint!("\rround {}/{} of services", round + 1, plan.rounds);
        for number in in_turn(&numbers, round) {
            let (services, node) = &nodes[number];
            let case = services_case(*services);
            let connect = node.connect(plan.each).with_context(|| case.clone())?;
            figures.record(&case, arm, CONNECT, "us", connect);
        }
    }
    eprintln!();
    Ok(())
}

fn targets(plan: &Plan, figures: &mut Figures) {
    let (with, without) = (Mesh::With.name(), Mesh::Without.name());
    let ends = |numbers: &[u32]| {
        numbers
            .iter()
            .min()
            .copied()
            .zip(numbers.iter().max().copied())
    };
    if let Some((few, many)) = ends(&plan.open) {
        let (few, many) = (open_case(few), open_case(many));
        for figure in [PING, CONNECT] {
            let grows = |arm| figures.ratio_of_cases((&many, arm), (&few, arm), figure);
            let value = grows(with).zip(grows(without));
            let value = value.map(|(with, without)| with / without);
            let text = format!("{figure}: {many} x {few}, beside the same of {without}");
            figures.target(text, value, Bound::AtMost(FLAT));
        }
    }
    if let Some((few, many)) = ends(&plan.services) {
        let (few, many) = (services_case(few), services_case(many));
        let value = figures.ratio_of_cases((&many, with), (&few, with), CONNECT);
        let text = format!("{CONNECT}: {many} x {few}");
        figures.target(text, value, Bound::AtMost(FLAT));
    }
}
