//! `apps`: what Zerohop does for programs that know nothing of it: Redis and nginx, with their own load
//! generators.
//!
//! Arms: `veth`, two pods joined by one veth pair and nothing else; `bridge`, pod to pod by the node's
//! bridge; both without programs. `direct`, to a Service with Zerohop, accelerated as it decides by itself
//! (no annotations); `direct-off`, the same with acceleration off.

mod load;
mod site;

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use crate::figures::{Bound, Figures, in_turn};
use crate::machine;
use load::App;
use site::{Arm, Cores, Site};

/// How much to measure.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Rounds over all arms.
    pub rounds: usize,
    /// How long one measurement takes, about: load generators count in seconds or in requests.
    pub each: Duration,
    /// The arms by name; all where empty.
    pub arms: Vec<String>,
    /// Parts of the names of cases; all where empty.
    pub cases: Vec<String>,
}

const RATE: &str = "requests";
const CPU: &str = "processor time of both pods";
const P50: &str = "p50";
const P99: &str = "p99";
const SHARE: &str = "share of the bytes that went from socket to socket";

impl Plan {
    /// About five minutes.
    pub fn full() -> Self {
        Self {
            rounds: 7,
            each: Duration::from_secs(1),
            arms: Vec::new(),
            cases: Vec::new(),
        }
    }

    /// A first impression.
    pub fn quick() -> Self {
        Self {
            rounds: 2,
            ..Self::full()
        }
    }
}

/// Runs the plan, prints the figures and writes them to `path`.
pub fn run(plan: &Plan, path: &Path) -> Result<()> {
    let site = Site::new(&plan.arms)?;
    for line in site.look()? {
        println!("{line}");
    }
    let mut figures = Figures::default();
    let cases: Vec<(App, Cores)> = Cores::all()
        .iter()
        .flat_map(|cores| App::ALL.map(|app| (app, *cores)))
        .filter(|case| {
            let name = name(*case);
            plan.cases.is_empty() || plan.cases.iter().any(|part| name.contains(part))
        })
        .collect();
    for round in 0..plan.rounds {
        for (number, case) in cases.iter().enumerate() {
            let name = name(*case);
            eprint!(
                "\rround {}/{}, {}/{}: {name:<34}",
                round + 1,
                plan.rounds,
                number + 1,
                cases.len()
            );
            for arm in in_turn(&site.arms(), round) {
                match site.measure(*case, arm, plan.each) {
                    Ok(measured) => {
                        let outcome = &measured.outcome;
                        let requests = outcome.requests;
                        let mut record = |figure, unit, value| {
                            figures.record(&name, arm.name(), figure, unit, value);
                        };
                        record(RATE, "1/s", requests / outcome.seconds);
                        let cpu = measured.cpu_seconds / requests * 1000.0;
                        record(CPU, "ms/1000 requests", cpu * 1e3);
                        record(P50, "ms", outcome.p50_ms);
                        record(P99, "ms", outcome.p99_ms);
                        if let Some(share) = measured.redirected_share {
                            record(SHARE, "of 1", share);
                        }
                    }
                    Err(error) => figures.fail(&name, arm.name(), RATE, "1/s", &error),
                }
            }
        }
    }
    eprintln!();
    report(plan, &site, &cases, figures, path)
}

fn report(
    plan: &Plan,
    site: &Site,
    cases: &[(App, Cores)],
    mut figures: Figures,
    path: &Path,
) -> Result<()> {
    let (direct, veth) = (Arm::Direct.name(), Arm::Veth.name());
    for case in cases {
        let name = name(*case);
        let ratio = figures.ratio(&name, direct, veth, RATE);
        figures.target(
            format!("{name}: requests/s x veth"),
            ratio,
            Bound::AtLeast(1.25),
        );
    }
    for figure in [RATE, CPU, P50, P99, SHARE] {
        figures.print(figure, veth);
    }
    figures.print_targets();
    let ran = json!({
        "benchmark": "apps",
        "machine": machine::describe(),
        "versions": Site::versions(),
        "rounds": plan.rounds,
        "secondsEach": plan.each.as_secs_f64(),
        "connections": load::CONNECTIONS,
        "arms": site.arms().iter().map(|arm| arm.name()).collect::<Vec<_>>(),
    });
    figures.write(path, &ran, &[veth, Arm::Bridge.name()])?;
    figures.verdict()
}

fn name((app, cores): (App, Cores)) -> String {
    format!("{}, {}", app.name(), cores.name())
}
