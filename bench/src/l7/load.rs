//! The load: wrk for HTTP/1.1, h2load for HTTP/2; and reading what they print.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// What the client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1 with keep-alive, 32 connections.
    Http1,
    /// HTTP/2 without TLS by prior knowledge, 4 connections with 8 streams each.
    Http2,
}

/// A load.
#[derive(Clone, Debug)]
pub struct Load {
    /// What is spoken.
    pub protocol: Protocol,
    /// How long.
    pub duration: Duration,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Requests that were answered with 200.
    pub requests: f64,
    /// Seconds that it took.
    pub seconds: f64,
    /// Median latency in milliseconds; wrk alone says it.
    pub p50_ms: Option<f64>,
    /// 99th percentile, likewise.
    pub p99_ms: Option<f64>,
    /// Mean latency in milliseconds.
    pub mean_ms: Option<f64>,
}

impl Protocol {
    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http1 => "HTTP/1.1, 32 connections",
            Self::Http2 => "HTTP/2, 4 x 8 streams",
        }
    }
}

impl Load {
    /// One of each protocol.
    pub fn all(duration: Duration) -> [Self; 2] {
        [Protocol::Http1, Protocol::Http2].map(|protocol| Self { protocol, duration })
    }

    /// The command that drives `url`, on a core of its own.
    pub fn command(&self, url: &str, core: usize) -> Command {
        let mut command = Command::new("taskset");
        command.args(["-c", &core.to_string()]);
        let milliseconds = self.duration.as_millis();
        match self.protocol {
            // wrk knows whole seconds only; shorter loads are for warming up.
            Protocol::Http1 => command
                .args(["wrk", "-t1", "-c32", "--latency"])
                .arg(format!("-d{}s", milliseconds.div_ceil(1000))),
            Protocol::Http2 => command
                .args(["h2load", "-t1", "-c4", "-m8"])
                .arg(format!("--duration={milliseconds}ms")),
        };
        command.arg(url);
        command
    }

    /// Reads what the command printed; an error if any request failed.
    pub fn outcome(&self, printed: &str) -> Result<Outcome> {
        let outcome = match self.protocol {
            Protocol::Http1 => wrk(printed),
            Protocol::Http2 => h2load(printed),
        };
        outcome.with_context(|| format!("the load generator printed:\n{printed}"))
    }
}

/// Reads what `wrk --latency` printed; an error if any request failed.
pub fn wrk(printed: &str) -> Result<Outcome> {
    if let Some(line) =
        line_with(printed, "Non-2xx").or_else(|| line_with(printed, "Socket errors"))
    {
        bail!("requests failed: {}", line.trim());
    }
    // "  123456 requests in 3.00s, 45.6MB read"
    let summary = line_with(printed, " requests in ").context("no summary")?;
    let mut words = summary.split_whitespace();
    let requests = words
        .next()
        .and_then(|word| word.parse().ok())
        .context("no count")?;
    let time = words.nth(2).context("no time")?.trim_end_matches(',');
    // "    Latency     1.23ms    ..." in the statistics of threads, then "     50%    1.02ms".
    let latency = |label: &str| {
        let mut words = printed.lines().map(str::split_whitespace);
        words.find_map(|mut words| {
            (words.next() == Some(label)).then(|| milliseconds(words.next()?))?
        })
    };
    Ok(Outcome {
        requests,
        seconds: milliseconds(time).context("no time")? / 1000.0,
        p50_ms: latency("50%"),
        p99_ms: latency("99%"),
        mean_ms: printed
            .lines()
            .filter_map(|line| line.trim().strip_prefix("Latency"))
            .find_map(|rest| milliseconds(rest.split_whitespace().next()?)),
    })
}

fn h2load(printed: &str) -> Result<Outcome> {
    // "finished in 3.00s, 12345.67 req/s, 1.23MB/s"
    let finished = line_with(printed, "finished in ").context("no summary")?;
    let time = finished
        .trim_start_matches("finished in ")
        .split(',')
        .next()
        .unwrap_or_default();
    // "status codes: 37037 2xx, 0 3xx, 0 4xx, 0 5xx"
    let codes = line_with(printed, "status codes: ").context("no status codes")?;
    let count = |class: &str| {
        let part = codes
            .trim_start_matches("status codes: ")
            .split(", ")
            .find(|part| part.ends_with(class))?;
        part.split(' ').next()?.parse::<f64>().ok()
    };
    for class in ["3xx", "4xx", "5xx"] {
        if count(class) != Some(0.0) {
            bail!("requests failed: {codes}");
        }
    }
    // "requests: 37037 total, 37069 started, 37037 done, 37037 succeeded, 0 failed, 0 errored, 0 timeout"
    let totals = line_with(printed, "requests: ").context("no totals")?;
    if !totals.contains(" 0 failed, 0 errored, 0 timeout") {
        bail!("requests failed: {totals}");
    }
    // "time for request:    123us     4.56ms     789us     12us    87.50%": min max mean sd
    let times = line_with(printed, "time for request:").context("no times")?;
    let mean = times
        .trim_start_matches("time for request:")
        .split_whitespace()
        .nth(2);
    Ok(Outcome {
        requests: count("2xx").context("no count")?,
        seconds: milliseconds(time).context("no time")? / 1000.0,
        p50_ms: None,
        p99_ms: None,
        mean_ms: mean.and_then(milliseconds),
    })
}

fn line_with<'a>(text: &'a str, what: &str) -> Option<&'a str> {
    text.lines().find(|line| line.contains(what))
}

/// A time as both print it: `12us`, `1.5ms`, `3.00s`, `1.00m`.
fn milliseconds(text: &str) -> Option<f64> {
    let unit = text.find(|c: char| c.is_ascii_alphabetic())?;
    let value: f64 = text[..unit].parse().ok()?;
    let factor = match &text[unit..] {
        "us" => 0.001,
        "ms" => 1.0,
        "s" => 1000.0,
        "m" => 60_000.0,
        _ => return None,
    };
    Some(value * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRK: &str = "Running 3s test @ http://127.0.0.1:8081/\n  1 threads and 32 connections\n  \
        Thread Stats   Avg      Stdev     Max   +/- Stdev\n    Latency     1.23ms  500.00us   9.00ms   90.00%\n    \
        Req/Sec    25.00k     1.00k   30.00k    70.00%\n  Latency Distribution\n     50%    1.10ms\n     \
        75%    1.50ms\n     90%    2.00ms\n     99%    4.50ms\n  75000 requests in 3.00s, 20.00MB read\n\
        Requests/sec:  25000.00\nTransfer/sec:      6.67MB\n";

    #[test]
    fn wrk_is_read() {
        let outcome = wrk(WRK).unwrap();
        let expected = Outcome {
            requests: 75000.0,
            seconds: 3.0,
            p50_ms: Some(1.1),
            p99_ms: Some(4.5),
            mean_ms: Some(1.23),
        };
        assert_eq!(outcome, expected);
    }

    #[test]
    fn failed_requests_are_an_error() {
        let failed = format!("{WRK}  Non-2xx or 3xx responses: 7\n");
        assert!(
            wrk(&failed)
                .unwrap_err()
                .to_string()
                .contains("Non-2xx or 3xx responses: 7")
        );
    }

    #[test]
    fn h2load_is_read() {
        let printed = "finished in 3.00s, 12345.67 req/s, 1.23MB/s\n\
            requests: 37037 total, 37069 started, 37037 done, 37037 succeeded, 0 failed, 0 errored, 0 timeout\n\
            status codes: 37037 2xx, 0 3xx, 0 4xx, 0 5xx\n\
            time for request:      120us      4.56ms       789us       12us    87.50%\n";
        let outcome = h2load(printed).unwrap();
        assert!((outcome.requests - 37037.0).abs() < f64::EPSILON);
        assert_eq!(outcome.mean_ms, Some(0.789));
    }
}
