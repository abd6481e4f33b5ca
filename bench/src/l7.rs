//! `l7`: what a request costs by a proxy, and what the proxy itself takes.
//!
//! Arms: `direct`, no proxy; `haproxy`, `nginx`, `envoy`, one worker each, beside the client as
//! Zerohop is; `sidecars`, an Envoy in the client's pod and one in the server's, reached by iptables
//! REDIRECT; `zerohop`, by the agent, one worker. All have the same two routes: `end-user: jason` to
//! v2, else v1. Load and backends run on one core, the proxy on another where there are two.

pub(crate) mod backend;
pub(crate) mod load;
mod proxies;
mod site;
mod usage;

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use load::{Load, Protocol};
use serde_json::json;
use site::{Arm, Site};

use crate::figures::{Bound, Figures, in_turn};
use crate::machine;

/// How much to measure.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Rounds over all arms.
    pub rounds: usize,
    /// How long one measurement takes.
    pub each: Duration,
    /// The arms by name; all where empty.
    pub arms: Vec<String>,
}

const RATE: &str = "requests per second";
const P50: &str = "p50";
const P99: &str = "p99";
const MEAN: &str = "mean";
const CPU: &str = "proxy's CPU time for 1000 requests";
const PER_CPU: &str = "requests per CPU second of the proxy";
const RSS: &str = "proxy's RSS";
const PEAK: &str = "proxy's peak RSS";

impl Plan {
    /// The whole benchmark, under five minutes.
    pub fn full() -> Self {
        Self {
            rounds: 5,
            each: Duration::from_secs(3),
            arms: Vec::new(),
        }
    }

    /// A first impression, under a minute.
    pub fn quick() -> Self {
        Self {
            rounds: 2,
            each: Duration::from_secs(1),
            arms: Vec::new(),
        }
    }
}

/// Runs the plan, prints the figures and writes them to `path`.
pub fn run(plan: &Plan, path: &Path) -> Result<()> {
    let site = Site::new(&plan.arms)?;
    let mut figures = Figures::default();
    for arm in site.arms() {
        site.check(arm)?;
        // The first requests open the proxies' connections and fill their buffers.
        for load in Load::all(Duration::from_millis(300)) {
            site.measure(arm, &load)?;
        }
    }
    for round in 0..plan.rounds {
        for load in Load::all(plan.each) {
            for arm in in_turn(&site.arms(), round) {
                eprint!(
                    "\rround {}/{}: {} by {:<10}",
                    round + 1,
                    plan.rounds,
                    load.protocol.name(),
                    arm.name()
                );
                measure(&site, arm, &load, &mut figures)?;
            }
        }
    }
    eprintln!();
    let envoy = Arm::Envoy.name();
    for figure in [RATE, PER_CPU, CPU, P50, P99, MEAN, RSS, PEAK] {
        figures.print(figure, envoy);
    }
    targets(&mut figures);
    figures.print_targets();
    let ran = json!({
        "benchmark": "l7",
        "machine": machine::describe(),
        "rounds": plan.rounds,
        "secondsEach": plan.each.as_secs_f64(),
        "arms": site.arms().iter().map(|arm| arm.name()).collect::<Vec<_>>(),
        "versions": site.versions(),
        "body": backend::body("v1"),
    });
    figures.write(
        path,
        &ran,
        &[envoy, Arm::Haproxy.name(), Arm::Direct.name()],
    )
}

fn measure(site: &Site, arm: Arm, load: &Load, figures: &mut Figures) -> Result<()> {
    let Some((result, usage)) = site.measure(arm, load)? else {
        return Ok(());
    };
    let (case, arm) = (load.protocol.name(), arm.name());
    figures.record(case, arm, RATE, "1/s", result.requests / result.seconds);
    for (figure, value) in [
        (P50, result.p50_ms),
        (P99, result.p99_ms),
        (MEAN, result.mean_ms),
    ] {
        if let Some(value) = value {
            figures.record(case, arm, figure, "ms", value);
        }
    }
    let Some(usage) = usage else { return Ok(()) };
    let cpu_seconds = usage.cpu.as_secs_f64();
    figures.record(case, arm, CPU, "ms", cpu_seconds * 1e6 / result.requests);
    figures.record(case, arm, PER_CPU, "1/s", result.requests / cpu_seconds);
    figures.record(case, arm, RSS, "MiB", usage.resident_mib);
    figures.record(case, arm, PEAK, "MiB", usage.peak_mib);
    Ok(())
}

fn targets(figures: &mut Figures) {
    let (zerohop, envoy, case) = (
        Arm::Zerohop.name(),
        Arm::Envoy.name(),
        Protocol::Http1.name(),
    );
    let work = figures.ratio(case, zerohop, envoy, PER_CPU);
    figures.target(
        format!("{case}: requests per CPU second x envoy"),
        work,
        Bound::AtLeast(1.8),
    );
    let memory = figures.ratio(case, zerohop, envoy, RSS);
    figures.target(format!("{case}: RSS x envoy"), memory, Bound::AtMost(0.25));
}
