//! One connection, its two ends, and what the kernel answered to them.

use std::cell::RefCell;
use std::rc::Rc;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{Answers, End, Mode, Puppet};
use crate::stage::DEADLINE;
use crate::{Agent, Pod, host, poll};

/// A play of a script.
pub struct Scene<'a> {
    /// Who connects.
    pub client: End,
    /// Who accepts.
    pub server: End,
    /// What their sockets are like.
    pub mode: Mode,
    agent: &'a Agent,
    pods: [Pod; 2],
    accelerated: bool,
    answers: Rc<RefCell<Answers>>,
}

impl<'a> Scene<'a> {
    pub(super) fn new(
        agent: &'a Agent,
        client: &Pod,
        server: &Pod,
        mode: Mode,
        accelerated: bool,
    ) -> Result<Self> {
        let answers = Rc::default();
        Ok(Self {
            client: End::new("client", Puppet::new(client)?, Rc::clone(&answers)),
            server: End::new("server", Puppet::new(server)?, Rc::clone(&answers)),
            mode,
            agent,
            pods: [client.clone(), server.clone()],
            accelerated,
            answers,
        })
    }

    pub(super) fn answers(&self) -> Answers {
        self.answers.borrow().clone()
    }

    /// Connects the two, and lets each end send once: from then on both directions go as they will. Where
    /// this is the accelerated play, they must have been redirected.
    pub fn warm(&self) -> Result<()> {
        self.open()?;
        self.greet()?;
        self.require_redirected()
    }

    /// Connects the two.
    pub fn open(&self) -> Result<()> {
        self.open_with(&json!([]), &json!([]))
    }

    /// Connects the two, with socket options (lists of level, name, value) on the listener and on the
    /// client's socket before it connects.
    pub fn open_with(&self, listener: &Value, client: &Value) -> Result<()> {
        let nonblocking = self.mode == Mode::NonBlocking;
        let listening = self.server.puppet.order(json!({
            "op": "listen", "on": "listener", "nonblocking": nonblocking, "options": listener,
        }))?;
        let to = format!("{}:{}", self.pods[1].address(), listening["port"]);
        self.client.puppet.order(json!({
            "op": "connect", "on": "socket", "to": to, "nonblocking": nonblocking, "options": client,
        }))?;
        self.server.puppet.order(json!({
            "op": "accept", "on": "socket", "from": "listener", "nonblocking": nonblocking,
        }))?;
        Ok(())
    }

    /// Each end sends once, the client first.
    pub fn greet(&self) -> Result<()> {
        self.client.send("good morning")?;
        self.server.readable()?;
        self.server.recv("greeted", 100)?;
        self.server.send("good evening")?;
        self.client.readable()?;
        self.client.recv("answered", 100)
    }

    /// A new puppet in the client's pod, whose answers count like any.
    pub fn another_client(&self) -> Result<End> {
        let puppet = Puppet::new(&self.pods[0])?;
        Ok(End::new("other process", puppet, Rc::clone(&self.answers)))
    }

    /// Where the server listens.
    pub fn server_address(&self) -> Result<String> {
        let names = self.server.ask(json!({"op": "names"}))?;
        Ok(names["own"].as_str().context("no address")?.to_owned())
    }

    /// In the accelerated play: both directions must have been redirected.
    pub fn require_redirected(&self) -> Result<()> {
        self.require(&|row| row["accelerated"] == true && row["reason"].is_null())
    }

    /// In the accelerated play: nothing must have been redirected, and the reason must say `why`.
    pub fn require_plain(&self, why: &str) -> Result<()> {
        self.require(&|row| {
            let reason = row["reason"].as_str().unwrap_or_default();
            row["accelerated"] == false && row["bytesRedirected"] == 0 && reason.contains(why)
        })
    }

    /// In the accelerated play: nothing is redirected any more, and the reason must say `why`.
    pub fn require_gone_over(&self, why: &str) -> Result<()> {
        self.require(&|row| {
            let reason = row["reason"].as_str().unwrap_or_default();
            row["accelerated"] == false && reason.contains(why)
        })
    }

    /// Takes the server's pod off the wire, or puts it back.
    pub fn wire(&self, up: bool) -> Result<()> {
        let word = if up { "up" } else { "down" };
        let netns = self.pods[1].netns();
        host::ip_batch(&["-n", netns], &format!("link set eth0 {word}\n"))
    }

    fn require(&self, wanted: &dyn Fn(&Value) -> bool) -> Result<()> {
        if !self.accelerated {
            return Ok(());
        }
        let names = self.client.ask(json!({"op": "names"}))?;
        let mut last = Value::Null;
        let found = poll::eventually(DEADLINE / 3, || {
            let rows = self.agent.connections().unwrap_or_default();
            let mine = rows.into_iter().find(|row| row["local"] == names["own"]);
            last = mine.unwrap_or_default();
            wanted(&last)
        });
        ensure!(found, "meshctl connections: {last:#}");
        Ok(())
    }
}
