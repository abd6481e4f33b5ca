//! One end of a connection: each call is named, and its answer is kept for the comparison.

use std::cell::RefCell;
use std::rc::Rc;

use anyhow::Result;
use serde_json::{Value, json};

use super::{Answers, Puppet};

/// How long to wait for what comes, in milliseconds; far longer than it takes.
const COMES: i32 = 5000;
/// How long to wait for what does not come.
const COMES_NOT: i32 = 200;

/// A puppet that holds `socket`, one end of the connection.
pub struct End {
    /// Who holds it.
    pub puppet: Puppet,
    name: &'static str,
    answers: Rc<RefCell<Answers>>,
}

impl End {
    pub(super) fn new(name: &'static str, puppet: Puppet, answers: Rc<RefCell<Answers>>) -> Self {
        Self {
            puppet,
            name,
            answers,
        }
    }

    /// Gives an order about the socket; its answer is not compared.
    pub fn ask(&self, mut order: Value) -> Result<Value> {
        if order["on"].is_null() {
            order["on"] = json!("socket");
        }
        self.puppet.order(order)
    }

    /// Gives an order about the socket; its answer is compared under this label.
    pub fn call(&self, label: &str, order: Value) -> Result<()> {
        let answer = self.ask(order)?;
        let text = answer
            .as_str()
            .map_or_else(|| answer.to_string(), str::to_owned);
        self.answers
            .borrow_mut()
            .push((format!("{} {label}", self.name), text));
        Ok(())
    }

    /// Something else that was seen, to be compared under this label.
    pub fn note(&self, label: &str, seen: &str) {
        self.answers
            .borrow_mut()
            .push((format!("{} {label}", self.name), seen.to_owned()));
    }

    /// send(2).
    pub fn send(&self, text: &str) -> Result<()> {
        self.call(
            &format!("sends {text}"),
            json!({"op": "send", "text": text}),
        )
    }

    /// send(2) with flags.
    pub fn send_with(&self, text: &str, flags: i32) -> Result<()> {
        let label = format!("sends {text}");
        self.call(&label, json!({"op": "send", "text": text, "flags": flags}))
    }

    /// recv(2).
    pub fn recv(&self, label: &str, size: usize) -> Result<()> {
        self.call(label, json!({"op": "recv", "size": size}))
    }

    /// recv(2) with flags.
    pub fn recv_with(&self, label: &str, size: usize, flags: i32) -> Result<()> {
        self.call(label, json!({"op": "recv", "size": size, "flags": flags}))
    }

    /// recvmsg(2): what came beside the bytes too.
    pub fn recvmsg(&self, label: &str, size: usize, flags: i32) -> Result<()> {
        self.call(
            label,
            json!({"op": "recvmsg", "size": size, "flags": flags}),
        )
    }

    /// Waits until there is something to read. Not compared: see [`End::polls`].
    pub fn readable(&self) -> Result<()> {
        self.ask(json!({"op": "poll", "events": libc::POLLIN, "within": COMES}))
            .map(drop)
    }

    /// poll(2) for these events, one of which is to come.
    pub fn polls(&self, label: &str, events: i16) -> Result<()> {
        self.call(
            label,
            json!({"op": "poll", "events": events, "within": COMES}),
        )
    }

    /// poll(2) for these events, none of which is to come.
    pub fn polls_in_vain(&self, label: &str, events: i16) -> Result<()> {
        self.call(
            label,
            json!({"op": "poll", "events": events, "within": COMES_NOT}),
        )
    }

    /// Watches the socket by an epoll instance of this name.
    pub fn watch(&self, epoll: &str, events: i32) -> Result<()> {
        self.ask(json!({"op": "epoll", "on": epoll, "of": "socket", "events": events}))
            .map(drop)
    }

    /// epoll_wait(2): an event is to come.
    pub fn waits(&self, label: &str, epoll: &str) -> Result<()> {
        self.call(label, json!({"op": "wait", "on": epoll, "within": COMES}))
    }

    /// epoll_wait(2): none is to come.
    pub fn waits_in_vain(&self, label: &str, epoll: &str) -> Result<()> {
        self.call(
            label,
            json!({"op": "wait", "on": epoll, "within": COMES_NOT}),
        )
    }

    /// shutdown(2).
    pub fn shutdown(&self, how: i32) -> Result<()> {
        self.call("shuts down", json!({"op": "shutdown", "how": how}))
    }

    /// close(2).
    pub fn close(&self) -> Result<()> {
        self.call("closes", json!({"op": "close"}))
    }

    /// close(2) that sends a RST.
    pub fn reset(&self) -> Result<()> {
        self.call("is to reset", json!({"op": "linger", "seconds": 0}))?;
        self.close()
    }

    /// ioctl(2): `FIONREAD`, `TIOCOUTQ`, `SIOCATMARK`.
    pub fn ioctl(&self, label: &str, what: &str) -> Result<()> {
        self.call(label, json!({"op": "ioctl", "what": what}))
    }

    /// getsockopt(2) of an int.
    pub fn get(&self, label: &str, level: i32, name: i32) -> Result<()> {
        self.call(label, json!({"op": "get", "level": level, "name": name}))
    }

    /// setsockopt(2) of an int.
    pub fn set(&self, label: &str, level: i32, name: i32, value: i32) -> Result<()> {
        self.call(
            label,
            json!({"op": "set", "level": level, "name": name, "value": value}),
        )
    }

    /// Waits until the other side's kernel has everything that was sent here.
    pub fn delivered(&self) -> Result<()> {
        let pending = || {
            let left = self.ask(json!({"op": "ioctl", "what": "TIOCOUTQ"}));
            left.is_ok_and(|left| left == 0)
        };
        anyhow::ensure!(
            crate::eventually(crate::stage::DEADLINE, pending),
            "what was sent never was acknowledged"
        );
        Ok(())
    }

    /// Starts a call on another thread, which sleeps in it by now.
    pub fn begin(&self, name: &str, mut order: Value) -> Result<()> {
        order["background"] = json!(name);
        self.ask(order).map(drop)
    }

    /// The answer of a call that was begun, which is to come.
    pub fn ends(&self, name: &str) -> Result<()> {
        self.call(name, json!({"op": "finish", "on": name, "within": COMES}))
    }

    /// The answer of a call that was begun: none is to come.
    pub fn still_waits(&self, name: &str) -> Result<()> {
        self.call(
            name,
            json!({"op": "finish", "on": name, "within": COMES_NOT}),
        )
    }
}
