//! `start`: how long until an agent is ready with Bookinfo's configuration, until a rule that is
//! changed on disk decides requests, and until a policy has cut what it forbids.

mod cut;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::bookinfo::PORT;
use lab::bookinfo::deploy::Bookinfo;
use lab::{Agent, AgentOptions, Lab, Process, eventually_some};
use serde_json::json;

use crate::figures::{Bound, Figures};
use crate::machine;
use crate::peer::watch::now_nanoseconds;

const CASE: &str = "Bookinfo";
const ARM: &str = "zerohop";
const READY: &str = "time until ready";
const CHANGE: &str = "time until a changed rule decides";
const CUT: &str = "time until a policy has cut an accelerated connection";
const DEADLINE: Duration = Duration::from_secs(20);
/// Between two questions to an agent that is not ready: what the time is exact to.
const PAUSE: Duration = Duration::from_millis(1);
/// Bookinfo's subsets, and routes for each of its services, as its tutorials begin.
const SERVICES: [(&str, &[&str]); 4] = [
    ("productpage", &["v1"]),
    ("details", &["v1"]),
    ("reviews", &["v1", "v2", "v3"]),
    ("ratings", &["v1"]),
];

/// Measures both over `rounds`, prints the figures and writes them to `path`.
pub fn run(rounds: usize, path: &Path) -> Result<()> {
    let lab = Lab::new("start")?;
    let bookinfo = Bookinfo::deploy(&lab)?;
    lab.manifests().write("routes.yaml", &configuration("v1"))?;
    let mut figures = Figures::default();
    for round in 0..rounds {
        eprint!("\rstart {}/{rounds}", round + 1);
        figures.record(CASE, ARM, READY, "ms", time_until_ready(&lab)?);
    }
    let agent = Agent::start(&lab, &AgentOptions::default())?;
    let mut watcher = watch(&bookinfo)?;
    for round in 0..rounds {
        eprint!("\rchange {}/{rounds}", round + 1);
        let version = if round % 2 == 0 { "v2" } else { "v1" };
        figures.record(
            CASE,
            ARM,
            CHANGE,
            "ms",
            time_until_changed(&lab, &mut watcher, version)?,
        );
    }
    for round in 0..rounds {
        eprint!("\rcut {}/{rounds}   ", round + 1);
        let (client, server) = (bookinfo.pod("productpage")?, bookinfo.pod("details")?);
        let cut = cut::time_until_cut(&lab, client, server)?;
        figures.record(CASE, ARM, CUT, "ms", cut);
    }
    eprintln!();
    drop((watcher, agent));
    report(&mut figures, rounds, path)
}

fn report(figures: &mut Figures, rounds: usize, path: &Path) -> Result<()> {
    for figure in [READY, CHANGE, CUT] {
        figures.print(figure, ARM);
        if let Some(slowest) = figures.slowest(CASE, ARM, figure) {
            println!("  slowest of {rounds}: {slowest:.1} ms");
        }
    }
    let ready = figures.median(CASE, ARM, READY);
    figures.target("ready after, ms (median)", ready, Bound::AtMost(1000.0));
    let change = figures.slowest(CASE, ARM, CHANGE);
    figures.target(
        "a changed rule decides after, ms (slowest)",
        change,
        Bound::AtMost(100.0),
    );
    let cut = figures.slowest(CASE, ARM, CUT);
    figures.target(
        "a policy has cut both ends after, ms (slowest)",
        cut,
        Bound::AtMost(100.0),
    );
    figures.print_targets();
    let ran = json!({ "benchmark": "start", "machine": machine::describe(), "rounds": rounds });
    figures.write(path, &ran, &[])
}

/// From the start of the process until `/readyz` says 200, in milliseconds.
fn time_until_ready(lab: &Lab) -> Result<f64> {
    let start = Instant::now();
    let mut agent = Agent::launch(lab, &AgentOptions::default())?;
    while !matches!(agent.get("/readyz"), Ok((200, _))) {
        ensure!(agent.is_running(), "the agent ended:\n{}", agent.log());
        ensure!(
            start.elapsed() < DEADLINE,
            "not ready after {DEADLINE:?}:\n{}",
            agent.log()
        );
        std::thread::sleep(PAUSE);
    }
    let milliseconds = start.elapsed().as_secs_f64() * 1e3;
    agent
        .stop()?
        .success()
        .context("the agent did not stop cleanly")?;
    Ok(milliseconds)
}

/// Asks for reviews from productpage's pod, again and again.
fn watch(bookinfo: &Bookinfo) -> Result<Process> {
    let address = format!("{}:{PORT}", bookinfo.service("reviews")?.address);
    let mut command = Command::new(lab::binaries::find("bench-peer")?);
    command.args(["watch", &address, &format!("reviews:{PORT}"), "/reviews/0"]);
    let mut watcher = bookinfo.pod("productpage")?.spawn(command)?;
    watcher.wait_stdout(" 200 ", DEADLINE)?;
    Ok(watcher)
}

/// From before the write of a rule until the first request that it decided was sent, in milliseconds.
fn time_until_changed(lab: &Lab, watcher: &mut Process, version: &str) -> Result<f64> {
    let seen = watcher.stdout().lines().count();
    let written = now_nanoseconds();
    lab.manifests()
        .write("routes.yaml", &configuration(version))?;
    let pod = format!("reviews-{version}");
    let change = eventually_some(DEADLINE, || {
        let printed = watcher.stdout();
        let line = printed
            .lines()
            .skip(seen)
            .find(|line| line.contains(&pod))?;
        line.split(' ').next()?.parse::<u64>().ok()
    });
    let change = change.with_context(|| {
        format!(
            "reviews did not become {version} within {DEADLINE:?}: {}",
            watcher.stderr()
        )
    })?;
    Ok(Duration::from_nanos(change.saturating_sub(written)).as_secs_f64() * 1e3)
}

/// All services' subsets and rules: each at v1, reviews at `version`.
fn configuration(version: &str) -> String {
    let of_service = |(service, versions): (&str, &[&str])| {
        let subsets = versions
            .iter()
            .map(|version| format!("  - {{name: {version}, labels: {{version: {version}}}}}\n"));
        let subsets = subsets.collect::<Vec<_>>().concat();
        let destination_rule = format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\n\
             metadata: {{name: {service}, namespace: default}}\nspec:\n  host: {service}\n  subsets:\n{subsets}---\n"
        );
        destination_rule + &rule(service, if service == "reviews" { version } else { "v1" })
    };
    SERVICES.map(of_service).concat()
}

fn rule(service: &str, version: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {service}, namespace: default}}\n\
         spec:\n  hosts: [{service}]\n  http:\n  - route:\n    - destination: {{host: {service}, subset: {version}}}\n---\n"
    )
}
