//! The kernel's own figures: connections by way, bytes from socket to socket, and the latencies.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Demo, Seen};
use crate::{Pod, eventually, rules, traffic};

/// How often each way is measured, in turn: what disturbs the machine disturbs all.
const ROUNDS: usize = 3;
const REQUESTS: &str = "400";
const DEADLINE: Duration = Duration::from_mins(1);
const DETAILS: &str = "http://details:9080/details/0";
const RULES: &str = "details.yaml";

/// The three ways that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arm {
    Direct,
    Agent,
    NotAccelerated,
}

pub(super) fn show(demo: &Demo) -> Result<Seen> {
    let rows = demo.agent.traffic()?;
    let of = |way: &str| traffic::total(&rows, |row| row.way == way);
    let (direct, agent, pass) = (of("direct"), of("agent"), of("pass"));
    let all = traffic::total(&rows, |_| true);
    let status = demo.agent.meshctl_json(&["status"])?;
    let state = status["acceleration"]["state"]
        .as_str()
        .unwrap_or("unknown");
    let reason = status["acceleration"]["reason"]
        .as_str()
        .unwrap_or_default();
    let mut lines = vec![
        format!(
            "connections: {} direct · {} by the agent · {} not the mesh's",
            direct.opened, agent.opened, pass.opened
        ),
        format!(
            "bytes: {} in all, {} of them from socket to socket inside the kernel",
            bytes(all.sent + all.received),
            bytes(all.redirected)
        ),
        format!("acceleration: {state} ({reason})"),
    ];
    let medians = medians(demo)?;
    lines.push(format!(
        "p50 of GET details/0: direct {:.0?} · by the agent {:.0?} · direct, acceleration off {:.0?}",
        medians[0], medians[1], medians[2]
    ));
    lines.push(format!(
        "the agent: {} resident, for {} pods",
        resident(demo.agent.id()),
        demo.lab.pods().len()
    ));
    Ok(Seen {
        holds: direct.opened > 0
            && agent.opened > 0
            && (all.redirected > 0) == (state == "on")
            && medians.iter().all(|median| !median.is_zero()),
        lines,
    })
}

/// The median latency of the same request over one connection: direct, by the agent, and direct
/// with acceleration off.
fn medians(demo: &Demo) -> Result<[Duration; 3]> {
    let arms = [Arm::Direct, Arm::Agent, Arm::NotAccelerated];
    let mut samples: [Vec<f64>; 3] = Default::default();
    for round in 0..ROUNDS {
        for (arm, samples) in arms.iter().zip(&mut samples) {
            demo.terminal.progress(&format!(
                "latencies, round {} of {ROUNDS}: {arm:?}",
                round + 1
            ));
            samples.extend(measure(demo, *arm)?);
        }
    }
    Ok(samples.map(|mut samples| {
        samples.sort_by(f64::total_cmp);
        let median = samples.get(samples.len() / 2).copied().unwrap_or_default();
        Duration::from_secs_f64(median / 1e3)
    }))
}

/// Latencies in milliseconds.
fn measure(demo: &Demo, arm: Arm) -> Result<Vec<f64>> {
    let way = match arm {
        Arm::Agent => {
            demo.lab.manifests().write(RULES, rules::DETAILS_BY_AGENT)?;
            "agent"
        }
        Arm::Direct | Arm::NotAccelerated => "direct",
    };
    if arm == Arm::NotAccelerated {
        demo.agent.meshctl(&["acceleration", "off"])?.success()?;
    }
    let changed = eventually(super::EFFECT_DEADLINE, || {
        let answer = demo.agent.query("default/visitor", &[], DETAILS);
        answer.is_ok_and(|answer| answer["way"] == way)
    });
    let report = demo
        .visitor
        .run(Pod::peer(["http", "-n", REQUESTS, DETAILS])?, DEADLINE);
    if arm == Arm::NotAccelerated {
        demo.agent.meshctl(&["acceleration", "on"])?.success()?;
    }
    if arm == Arm::Agent {
        demo.lab.manifests().remove(RULES)?;
    }
    anyhow::ensure!(changed, "details never went {way}");
    let report = report?.json()?;
    let responses = report["responses"].as_array().context("no responses")?;
    responses
        .iter()
        .map(|response| {
            anyhow::ensure!(response["status"] == 200, "GET {DETAILS}: {response}");
            response["ms"].as_f64().context("no time")
        })
        .collect()
}

/// The resident memory of a process, for people.
pub(super) fn resident(pid: u32) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|value| value.split_whitespace().next()?.parse::<u64>().ok());
    kib.map_or_else(|| "unknown".to_owned(), |kib| bytes(kib * 1024))
}

fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["bytes", "KiB", "MiB", "GiB"];
    let mut unit = 0;
    let mut size = 1_u64;
    while count / size >= 1024 && unit + 1 < UNITS.len() {
        size *= 1024;
        unit += 1;
    }
    if unit == 0 {
        format!("{count} bytes")
    } else {
        format!(
            "{}.{} {}",
            count / size,
            count % size * 10 / size,
            UNITS[unit]
        )
    }
}
