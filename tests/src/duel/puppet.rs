//! A puppet in a pod, and its strings.

use std::io::Write;
use std::process::ChildStdin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::stage::DEADLINE;
use crate::{Pod, Process};

/// A process that does to sockets what it is told.
#[derive(Debug)]
pub struct Puppet {
    strings: Mutex<(Process, ChildStdin)>,
    orders: AtomicU64,
}

impl Puppet {
    /// A puppet in this pod.
    pub fn new(pod: &Pod) -> Result<Self> {
        let mut process = pod.spawn(Pod::peer(["puppet"])?)?;
        let stdin = process.take_stdin().context("no standard input")?;
        Ok(Self {
            strings: Mutex::new((process, stdin)),
            orders: AtomicU64::new(0),
        })
    }

    /// Gives an order and waits for its answer.
    pub fn order(&self, mut order: Value) -> Result<Value> {
        let number = self.orders.fetch_add(1, Ordering::SeqCst);
        order["number"] = json!(number);
        let mut strings = self.strings.lock().unwrap_or_else(PoisonError::into_inner);
        let (process, stdin) = &mut *strings;
        writeln!(stdin, "{order}")
            .with_context(|| format!("order {order}: {}", process.stderr()))?;
        let mark = format!(" #{number}\n");
        process
            .wait_stdout(&mark, DEADLINE)
            .with_context(|| format!("order {order}"))?;
        let said = process.stdout();
        let line = said
            .lines()
            .find_map(|line| line.strip_suffix(mark.trim_end()));
        let Some(line) = line else {
            bail!("no answer to {order} in {said}");
        };
        serde_json::from_str(line).with_context(|| format!("the answer to {order}: {line}"))
    }

    /// Stops or continues the process.
    pub fn signal(&self, signal: i32) -> Result<()> {
        let mut strings = self.strings.lock().unwrap_or_else(PoisonError::into_inner);
        strings.0.signal(signal)
    }
}
