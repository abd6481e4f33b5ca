//! Visits to Bookinfo's page, and what they saw.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::Demo;
use crate::Pod;

/// How many visitors come at a time.
const CONCURRENCY: u64 = 4;
const DEADLINE: Duration = Duration::from_mins(1);

/// What one visit saw.
#[derive(Clone, Debug)]
pub(super) struct Visit {
    /// `v1`, `v2`, `v3`; the status or the error where there was no answer from reviews.
    pub(super) version: String,
    pub(super) stars: Stars,
    pub(super) took: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stars {
    /// reviews did not ask for any.
    None,
    Black,
    Red,
    /// ratings did not give any.
    Missing,
}

impl Demo {
    /// `count` visits of `user` (nobody: not logged in).
    pub(super) fn visit(&self, user: Option<&str>, count: u64) -> Result<Vec<Visit>> {
        let who = user.unwrap_or("visitors");
        self.terminal
            .progress(&format!("{count} requests by {who}"));
        let (count, at_a_time) = (count.to_string(), CONCURRENCY.min(count).to_string());
        let request_id = format!("x-request-id: {who}-{:x}-{{n}}", rand::random::<u32>());
        let mut words = vec![
            "http",
            "-n",
            &count,
            "-c",
            &at_a_time,
            "--reconnect",
            "-H",
            &request_id,
            "http://productpage:9080/api/v1/products/0/reviews",
        ];
        let cookie = user.map(|user| format!("cookie: session={user}"));
        if let Some(cookie) = &cookie {
            words.extend(["-H", cookie]);
        }
        let report = self.visitor.run(Pod::peer(words)?, DEADLINE)?.json()?;
        let responses = report["responses"].as_array().context("no responses")?;
        Ok(responses.iter().map(Visit::of).collect())
    }
}

impl Visit {
    fn of(response: &Value) -> Self {
        let body = &response["body"];
        let pod = body["podname"].as_str();
        let version = match (pod.and_then(|pod| pod.rsplit_once('-')), &response["error"]) {
            (Some((_, version)), _) => version.to_owned(),
            (None, Value::String(error)) => error.clone(),
            (None, _) => format!("status {}", response["status"]),
        };
        let rating = &body["reviews"][0]["rating"];
        let stars = match (rating["color"].as_str(), rating["error"].is_string()) {
            (Some("red"), _) => Stars::Red,
            (Some(_), _) => Stars::Black,
            (None, true) => Stars::Missing,
            (None, false) => Stars::None,
        };
        let took = response["ms"].as_f64().unwrap_or_default();
        Self {
            version,
            stars,
            took: Duration::from_secs_f64(took / 1e3),
        }
    }
}

impl fmt::Display for Stars {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::None => "without stars",
            Self::Black => "black stars",
            Self::Red => "red stars",
            Self::Missing => "ratings unavailable",
        })
    }
}

/// How many visits there were of each kind, as one line.
pub(super) fn census(visits: &[Visit], kind: impl Fn(&Visit) -> String) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for visit in visits {
        *counts.entry(kind(visit)).or_default() += 1;
    }
    let parts: Vec<_> = counts
        .iter()
        .map(|(kind, count)| format!("{kind} {count}"))
        .collect();
    parts.join(" · ")
}

/// How many visits saw `version`.
pub(super) fn count(visits: &[Visit], version: &str) -> u64 {
    visits
        .iter()
        .filter(|visit| visit.version == version)
        .count() as u64
}

/// Whether every visit saw `version`.
pub(super) fn all_saw(visits: &[Visit], version: &str) -> bool {
    !visits.is_empty() && visits.iter().all(|visit| visit.version == version)
}

/// The shortest and the longest.
pub(super) fn range(visits: &[Visit]) -> (Duration, Duration) {
    let times = || visits.iter().map(|visit| visit.took);
    (
        times().min().unwrap_or_default(),
        times().max().unwrap_or_default(),
    )
}
