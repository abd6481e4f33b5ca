//! What a race came to: what both ends say, and what the kernel has counted.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::number;
use crate::{Agent, poll, stage};

/// Fewer connections of a variant say nothing about a share.
const ENOUGH: u64 = 50;
/// Variants that are accelerated unless the client sends before the server's end is there, and the
/// share of their bytes that must have been.
const ACCELERATED: [&str; 3] = ["client-first", "turns", "half-close"];
const SHARE: f64 = 0.3;

/// Why the connections that were seen open were accelerated or plain.
#[derive(Clone, Debug, Default)]
pub struct Reasons(BTreeMap<String, u64>);

/// One variant.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// Connections that ended as they should, at the client.
    pub ok: u64,
    /// The same at the server.
    pub ok_at_server: u64,
    /// Those that were cut off on purpose, at the client.
    pub cut: u64,
    /// Those that failed, at either end.
    pub failed: u64,
    /// Bytes of whole conversations, both directions.
    pub bytes: u64,
    /// Bytes of all connections to the variant's service, as the kernel counted them.
    pub counted: u64,
    /// Of these, those that went from socket to socket.
    pub redirected: u64,
}

/// What a race came to.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The variants.
    pub rows: Vec<Row>,
    /// The first failures, in words.
    pub errors: Vec<String>,
    /// What the kernel has counted: `paired` and its like.
    pub events: BTreeMap<String, u64>,
    /// What glances at the open connections found.
    pub reasons: Reasons,
    /// Connects that were tried from another port, as theirs was in use.
    pub retried: u64,
    /// Of all bytes that the kernel counted, to services or not: all, and those from socket to socket.
    pub bytes: (u64, u64),
    /// Connections that the kernel saw opened, and closed.
    pub opened: (u64, u64),
    /// How long it took.
    pub seconds: f64,
    /// How often the agent was killed or acceleration switched.
    pub disturbed: u64,
}

impl Reasons {
    /// Adds what is open now: the answer of `meshctl connections`.
    pub fn add(&mut self, open: &[Value]) {
        for connection in open {
            let reason = match (&connection["accelerated"], &connection["reason"]) {
                (Value::Bool(true), _) => "accelerated",
                (_, Value::String(reason)) => reason,
                _ => "undecided",
            };
            *self.0.entry(reason.to_owned()).or_default() += 1;
        }
    }
}

impl Report {
    pub(super) fn new(client: &Value, server: &Value, reasons: Reasons) -> Result<Self> {
        let mut report = Self {
            reasons,
            retried: number(client, "retried")?,
            ..Self::default()
        };
        for side in [client, server] {
            let errors = side["errors"].as_array().context("no list of errors")?;
            let errors = errors.iter().filter_map(Value::as_str);
            report.errors.extend(errors.map(str::to_owned));
        }
        let variants = client["variants"].as_object().context("no variants")?;
        for (name, at_client) in variants {
            let at_server = &server["variants"][name];
            report.rows.push(Row {
                name: name.clone(),
                ok: number(at_client, "ok")?,
                ok_at_server: number(at_server, "ok")?,
                cut: number(at_client, "cut")?,
                failed: number(at_client, "failed")? + number(at_server, "failed")?,
                bytes: number(at_client, "sent")? + number(at_client, "received")?,
                ..Row::default()
            });
        }
        Ok(report)
    }

    /// Reads the kernel's counters, once every connection has been settled.
    pub(super) fn count(&mut self, agent: &Agent) -> Result<()> {
        let mut rows = Vec::new();
        poll::eventually(stage::DEADLINE, || {
            rows = agent.traffic().unwrap_or_default();
            let total = crate::traffic::total(&rows, |_| true);
            self.opened = (total.opened, total.closed);
            total.opened == total.closed
        });
        for row in &rows {
            let (bytes, redirected) = (row.sent + row.received, row.redirected);
            self.bytes.0 += bytes;
            self.bytes.1 += redirected;
            let name = row.service.split('.').next().unwrap_or_default();
            if let Some(variant) = self.rows.iter_mut().find(|row| row.name == name) {
                variant.counted += bytes;
                variant.redirected += redirected;
            }
        }
        let events = agent.meshctl_json(&["maps", "dump", "events"])?;
        for event in events.as_array().context("the events are no list")? {
            if let (Some(name), Some(count)) = (event["key"].as_str(), event["value"].as_u64()) {
                self.events.insert(name.to_owned(), count);
            }
        }
        Ok(())
    }

    /// All that ended as they should, at the client.
    pub fn whole(&self) -> u64 {
        self.rows.iter().map(|row| row.ok).sum()
    }

    /// An error where anything was lost, out of order, stuck, refused, or hardly accelerated.
    pub fn verdict(&self) -> Result<()> {
        let failed: u64 = self.rows.iter().map(|row| row.failed).sum();
        if failed > 0 || !self.errors.is_empty() {
            bail!(
                "{failed} failures, the first of them:\n{}",
                self.errors.join("\n")
            );
        }
        for row in self.rows.iter().filter(|row| row.cut == 0) {
            ensure!(
                row.ok == row.ok_at_server,
                "{}: {} connections at the client, {} at the server",
                row.name,
                row.ok,
                row.ok_at_server
            );
        }
        for row in self.rows.iter().filter(|row| row.ok >= ENOUGH) {
            let share = ratio(row.redirected, row.counted);
            ensure!(
                !ACCELERATED.contains(&row.name.as_str()) || share > SHARE,
                "only {share:.2} of the bytes of `{}` went from socket to socket",
                row.name
            );
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            out,
            "{:<22} {:>9} {:>9} {:>8} {:>7} {:>10}  socket to socket",
            "variant", "whole", "at server", "cut", "failed", "MB"
        )?;
        for row in &self.rows {
            writeln!(
                out,
                "{:<22} {:>9} {:>9} {:>8} {:>7} {:>10.1}  {:.2}",
                row.name,
                row.ok,
                row.ok_at_server,
                row.cut,
                row.failed,
                megabytes(row.bytes),
                ratio(row.redirected, row.counted),
            )?;
        }
        let cut: u64 = self.rows.iter().map(|row| row.cut).sum();
        writeln!(
            out,
            "\n{} whole, {cut} cut off on purpose, in {:.0} s; the agent was killed or acceleration \
             switched {} times; {} connects were tried again from another port",
            self.whole(),
            self.seconds,
            self.disturbed,
            self.retried
        )?;
        writeln!(
            out,
            "the kernel counted {} opened, {} closed, {:.0} MB, {:.2} of them from socket to socket",
            self.opened.0,
            self.opened.1,
            megabytes(self.bytes.0),
            ratio(self.bytes.1, self.bytes.0)
        )?;
        writeln!(out, "its events: {}", line(&self.events))?;
        write!(out, "connections seen open: {}", line(&self.reasons.0))
    }
}

fn line(counts: &BTreeMap<String, u64>) -> String {
    let words: Vec<String> = counts
        .iter()
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    words.join(", ")
}

#[expect(clippy::cast_precision_loss, reason = "shares need no more digits")]
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        return 0.0;
    }
    part as f64 / whole as f64
}

#[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
