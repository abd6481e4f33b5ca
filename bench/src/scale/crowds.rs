//! A node with many services that nobody dials, and one that is.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lab::crowd::Crowd;

use super::site::{Mesh, Pair};

/// A node with so many services.
pub struct Crowded {
    pair: Pair,
    ready: Duration,
}

impl Crowded {
    /// Each service has one pod of another node.
    pub fn new(services: u32) -> Result<Self> {
        let crowd = Crowd {
            services,
            endpoints: 1,
        };
        let mut written = Instant::now();
        let pair = Pair::new(&format!("services-{services}"), Mesh::With, |lab| {
            crowd.write(lab.manifests())?;
            written = Instant::now();
            Ok(())
        })?;
        let ready = written.elapsed();
        Ok(Self { pair, ready })
    }

    /// Milliseconds from the agent's start until it was ready.
    pub fn ready_ms(&self) -> f64 {
        self.ready.as_secs_f64() * 1e3
    }

    /// VmRSS of the agent.
    pub fn resident_mib(&self) -> Result<f64> {
        let agent = self.pair.agent.as_ref().context("invariant: an agent")?;
        let path = format!("/proc/{}/status", agent.id());
        let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|value| value.split_whitespace().next()?.parse::<f64>().ok());
        Ok(kib.with_context(|| format!("no VmRSS in {path}"))? / 1024.0)
    }

    /// Bytes of all BPF maps.
    pub fn maps(&self) -> Result<f64> {
        self.pair.maps()?.context("invariant: an agent")
    }

    /// Connections to the one service that is dialled: processor microseconds of both pods for each.
    pub fn connect(&self, each: Duration) -> Result<f64> {
        self.pair.connect(each)
    }
}
