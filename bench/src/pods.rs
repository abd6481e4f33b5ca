//! What several benchmarks do to the lab's pods: join two without a bridge, read what they took.

use std::fs;
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use lab::{Pod, Process};

/// For `ip`.
const GRACE: Duration = Duration::from_secs(15);

/// The two ends of the veth pair `number`, 0 to 63.
pub fn pair(number: u8) -> [Ipv4Addr; 2] {
    [1, 2].map(|end| Ipv4Addr::new(192, 0, 2, number * 4 + end))
}

/// Joins two pods by the veth pair `number`, beside the node's bridge.
pub fn join(first: &Pod, second: &Pod, number: u8) -> Result<()> {
    let name = format!("pair{number}");
    let link = |pod: &Pod| ["netns".to_owned(), pod.netns().to_owned()];
    let mut add = Command::new("ip");
    add.args(["link", "add", &name])
        .args(link(first))
        .args(["type", "veth", "peer", "name", &name])
        .args(link(second));
    Process::start(add)?
        .wait(GRACE)?
        .success()
        .context("add a veth pair")?;
    for (pod, address) in [first, second].into_iter().zip(pair(number)) {
        let address = format!("{address}/30");
        for words in [
            &["address", "add", &address, "dev", &name][..],
            &["link", "set", &name, "up"],
        ] {
            pod.exec("ip", words, GRACE)?
                .success()
                .context("set up a veth pair")?;
        }
    }
    Ok(())
}

/// Processor seconds that all that ever ran in a pod has taken: `usage_usec` of its cgroup.
pub fn cpu_seconds(pod: &Pod) -> Result<f64> {
    let path = pod.cgroup().join("cpu.stat");
    let what = || format!("read {}", path.display());
    let text = fs::read_to_string(&path).with_context(what)?;
    let usage = text
        .lines()
        .find_map(|line| line.strip_prefix("usage_usec "));
    let microseconds: u64 = usage
        .and_then(|number| number.parse().ok())
        .with_context(what)?;
    Ok(Duration::from_micros(microseconds).as_secs_f64())
}
