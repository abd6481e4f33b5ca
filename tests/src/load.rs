//! Requests that go on and on from a pod, while something happens to the node.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::stage::server_of;
use crate::{Pod, Process, eventually};

/// How many wrong answers are kept to show.
const SHOWN: usize = 5;

/// A running `lab-peer http --until-eof`.
#[derive(Debug)]
pub struct Load {
    process: Process,
    what: String,
}

/// What all answers of a load were.
#[derive(Debug, Default)]
pub struct Answers {
    /// How many there were.
    pub all: usize,
    /// By the server's name, the status or the error.
    pub by_server: BTreeMap<String, usize>,
    /// How many had a status that is not 200, an error, or a stamped body that is not what it should be.
    pub wrong: usize,
    /// The first of those.
    pub examples: Vec<Value>,
}

impl Load {
    /// Starts asking; `arguments` are those of `lab-peer http`.
    pub fn start(pod: &Pod, arguments: &[&str]) -> Result<Self> {
        let mut words = vec!["http", "--until-eof", "--brief"];
        words.extend(arguments);
        Ok(Self {
            process: pod.spawn(Pod::peer(words)?)?,
            what: format!("{} {}", pod.full_name(), arguments.join(" ")),
        })
    }

    /// How many answers there were by now.
    pub fn answers(&self) -> usize {
        self.process.lines()
    }

    /// Waits for so many more.
    pub fn wait_for(&self, more: usize, deadline: Duration) -> Result<()> {
        let before = self.answers();
        eventually(deadline, || self.answers() >= before + more)
            .then_some(())
            .with_context(|| format!("{} stalls: {}", self.what, self.process.stderr()))
    }

    /// Stops asking; `bytes` is what a stamped body has to hold, where the answers have one.
    pub fn end(mut self, bytes: Option<u64>, deadline: Duration) -> Result<Answers> {
        drop(self.process.take_stdin());
        let output = self.process.wait(deadline)?.success()?;
        let mut answers = Answers::default();
        for line in output.stdout.lines() {
            let answer: Value = serde_json::from_str(line).context("the load's lines")?;
            answers.all += 1;
            *answers.by_server.entry(server_of(&answer)).or_default() += 1;
            let whole = bytes.is_none_or(|bytes| answer["stampedTo"] == bytes);
            if answer["status"] != 200 || !whole {
                answers.wrong += 1;
                if answers.examples.len() < SHOWN {
                    answers.examples.push(answer);
                }
            }
        }
        Ok(answers)
    }
}
