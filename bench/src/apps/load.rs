//! The applications, their load generators, and what these print.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::l7::load::wrk;

/// Connections at a time.
pub const CONNECTIONS: usize = 50;
/// `redis-benchmark` counts in requests: about what one second takes on one core.
const REDIS_REQUESTS_A_SECOND: f64 = 60_000.0;

/// An application and what it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum App {
    /// Redis, GET of 3 bytes.
    RedisGet,
    /// Redis, SET of 3 bytes.
    RedisSet,
    /// nginx, a file of 1 KiB over keep-alive connections.
    Nginx,
}

/// What a load came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Requests that were answered.
    pub requests: f64,
    /// Seconds that it took.
    pub seconds: f64,
    /// Median latency in milliseconds.
    pub p50_ms: f64,
    /// 99th percentile.
    pub p99_ms: f64,
}

impl App {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::RedisGet, Self::RedisSet, Self::Nginx];

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::RedisGet => "Redis GET",
            Self::RedisSet => "Redis SET",
            Self::Nginx => "nginx 1 KiB",
        }
    }

    /// Where it listens.
    pub fn port(self) -> u16 {
        match self {
            Self::RedisGet | Self::RedisSet => 6379,
            Self::Nginx => 8080,
        }
    }

    /// The command that asks it for about so long.
    pub fn load(self, host: &str, each: Duration, core: usize) -> Command {
        let mut command = Command::new("taskset");
        command.args(["-c", &core.to_string()]);
        let test = match self {
            Self::RedisGet => "get",
            Self::RedisSet => "set",
            Self::Nginx => {
                let seconds = each.as_millis().div_ceil(1000);
                command.args(["wrk", "-t1", "--latency"]);
                command.args([format!("-c{CONNECTIONS}"), format!("-d{seconds}s")]);
                command.arg(format!("http://{host}:{}/file", self.port()));
                return command;
            }
        };
        let requests = REDIS_REQUESTS_A_SECOND * each.as_secs_f64();
        command.args(["redis-benchmark", "--csv", "-t", test, "-h", host]);
        command.args([
            "-p",
            &self.port().to_string(),
            "-c",
            &CONNECTIONS.to_string(),
        ]);
        command.args(["-n", &format!("{requests:.0}")]);
        command
    }

    /// Reads what the command printed; an error where a request failed.
    pub fn outcome(self, printed: &str, each: Duration) -> Result<Outcome> {
        let what = || format!("the load generator printed:\n{printed}");
        if self == Self::Nginx {
            let outcome = wrk(printed).with_context(what)?;
            return Ok(Outcome {
                requests: outcome.requests,
                seconds: outcome.seconds,
                p50_ms: outcome.p50_ms.with_context(what)?,
                p99_ms: outcome.p99_ms.with_context(what)?,
            });
        }
        redis(printed, REDIS_REQUESTS_A_SECOND * each.as_secs_f64()).with_context(what)
    }
}

/// `"test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms",…`,
/// then a line of values.
fn redis(printed: &str, requests: f64) -> Result<Outcome> {
    let row = |line: &str| -> Vec<String> {
        let words = line
            .split(',')
            .map(|word| word.trim_matches('"').to_owned());
        words.collect()
    };
    let mut lines = printed.lines().filter(|line| line.starts_with('"'));
    let (names, values) = (
        row(lines.next().context("no names of columns")?),
        row(lines.next().context("no values")?),
    );
    let value = |name: &str| -> Result<f64> {
        let place = names.iter().position(|column| column == name);
        let value = place.and_then(|place| values.get(place)?.parse().ok());
        value.with_context(|| format!("no {name}"))
    };
    Ok(Outcome {
        requests,
        seconds: requests / value("rps")?,
        p50_ms: value("p50_latency_ms")?,
        p99_ms: value("p99_latency_ms")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_redis_benchmark_prints_is_read() {
        let printed = "\"test\",\"rps\",\"avg_latency_ms\",\"min_latency_ms\",\"p50_latency_ms\",\
            \"p95_latency_ms\",\"p99_latency_ms\",\"max_latency_ms\"\n\
            \"GET\",\"50000.00\",\"0.400\",\"0.100\",\"0.391\",\"0.600\",\"0.799\",\"2.000\"\n";
        let outcome = redis(printed, 100_000.0).unwrap();
        assert!((outcome.seconds - 2.0).abs() < f64::EPSILON);
        assert!((outcome.p99_ms - 0.799).abs() < f64::EPSILON);
        assert!(redis("Could not connect", 1.0).is_err());
    }
}
