//! `lab-peer puppet`: does to sockets what it is told, one order per line of standard input, and says what
//! the kernel answered. Two of them play a script over a connection, the same over any connection.
//!
//! An order is an object: `op`, `on` (the name of a descriptor), and what the call takes. With
//! `background: NAME` the call is made on a thread of its own, and `finish` asks for its answer later.

use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::{Value, json};

mod bulk;
mod calls;
mod clock;
mod datagrams;
mod flood;
mod messages;
mod names;
mod ring;

#[derive(Debug, Args)]
pub(super) struct Arguments {}

/// What the puppet holds.
#[derive(Clone, Default)]
struct Puppet {
    descriptors: Arc<Mutex<HashMap<String, i32>>>,
}

/// An order, with its fields at hand.
struct Order(Value);

pub(super) fn run(_: &Arguments) -> Result<()> {
    let puppet = Puppet::default();
    let mut waiting: HashMap<String, Receiver<Value>> = HashMap::new();
    let mut answers = HashMap::new();
    for line in std::io::stdin().lock().lines() {
        let order = Order(serde_json::from_str(&line?).context("an order is JSON")?);
        let number = order.number("number")?;
        let answer = if order.text("op")? == "finish" {
            finish(&waiting, &mut answers, &order)?
        } else if let Some(name) = order.0["background"].as_str() {
            let (sender, receiver) = channel();
            answers.remove(name);
            waiting.insert(name.to_owned(), receiver);
            start(&puppet, order, sender)?;
            json!({"started": true})
        } else {
            puppet.perform(&order)?
        };
        let mut out = std::io::stdout().lock();
        writeln!(out, "{answer} #{number}")?;
        out.flush()?;
    }
    Ok(())
}

/// Makes the call on another thread, and waits until that sleeps in it (or has its answer already).
fn start(puppet: &Puppet, order: Order, answer: std::sync::mpsc::Sender<Value>) -> Result<()> {
    let puppet = puppet.clone();
    let (started, thread) = channel();
    let (over, is_over) = channel();
    std::thread::spawn(move || {
        let _ = started.send(calls::thread_id());
        let result = puppet.perform(&order);
        let _ = over.send(());
        let _ = answer.send(result.unwrap_or_else(|error| json!({"failed": format!("{error:#}")})));
    });
    let thread = thread.recv()?;
    crate::poll::eventually_some(Duration::from_secs(10), || {
        let sleeps = sleeps(thread);
        (sleeps || is_over.try_recv().is_ok()).then_some(())
    })
    .context("the thread neither sleeps nor ends")
}

/// Whether a thread of this process sleeps in a system call that moves bytes or waits for them.
fn sleeps(thread: i32) -> bool {
    let read = |what: &str| std::fs::read_to_string(format!("/proc/self/task/{thread}/{what}"));
    let stat = read("stat").unwrap_or_default();
    let asleep = stat
        .rsplit_once(')')
        .is_some_and(|(_, rest)| rest.trim_start().starts_with('S'));
    let call: i64 = read("syscall")
        .unwrap_or_default()
        .split_whitespace()
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or(-1);
    asleep && names::WAITING_CALLS.contains(&call)
}

fn finish(
    waiting: &HashMap<String, Receiver<Value>>,
    answers: &mut HashMap<String, Value>,
    order: &Order,
) -> Result<Value> {
    let name = order.text("on")?;
    if let Some(answer) = answers.get(name) {
        return Ok(answer.clone());
    }
    let answer = waiting
        .get(name)
        .with_context(|| format!("nothing goes on by the name {name}"))?
        .recv_timeout(Duration::from_millis(order.unsigned("within")?));
    if let Ok(answer) = answer {
        answers.insert(name.to_owned(), answer.clone());
        return Ok(answer);
    }
    Ok(json!("still waits"))
}

impl Puppet {
    fn perform(&self, order: &Order) -> Result<Value> {
        let op = order.text("op")?;
        Ok(match op {
            "listen" => {
                let fd = calls::socket()?;
                self.put(order.text("on")?, fd);
                set_options(fd, order)?;
                let port = calls::bind_and_listen(fd)?;
                calls::set_nonblocking(fd, order.flag("nonblocking"))?;
                json!({"port": port})
            }
            "listen at" => {
                let reuse = order.flag("reuse port");
                let fd = calls::listen_at(order.text("address")?, reuse)?;
                self.put(order.text("on")?, fd);
                json!("listening")
            }
            "connect" => {
                let fd = calls::socket()?;
                self.put(order.text("on")?, fd);
                set_options(fd, order)?;
                calls::set_nonblocking(fd, order.flag("nonblocking"))?;
                calls::connect(fd, order.text("to")?)?
            }
            "reconnect" => calls::connect(self.fd(order)?, order.text("to")?)?,
            "accept" => {
                let from = self.named(order.text("from")?)?;
                let fd = calls::accept(from, order.flag("nonblocking"))?;
                self.put(order.text("on")?, fd);
                json!("accepted")
            }
            "close" => {
                let fd = self.fd(order)?;
                self.table().remove(order.text("on")?);
                calls::close(fd)
            }
            "pipe" => {
                let ends = calls::pipe()?;
                self.put(&format!("{}.read", order.text("on")?), ends[0]);
                self.put(&format!("{}.write", order.text("on")?), ends[1]);
                json!("made")
            }
            "epoll" => {
                let fd = calls::epoll(
                    self.named(order.text("of")?)?,
                    i32::try_from(order.number("events")?)?.cast_unsigned(),
                )?;
                self.put(order.text("on")?, fd);
                json!("watching")
            }
            "splice" => {
                let (from, to) = (
                    self.named(order.text("from")?)?,
                    self.named(order.text("to")?)?,
                );
                bulk::splice(
                    from,
                    to,
                    usize::try_from(order.unsigned("size")?)?,
                    order.flags(),
                )
            }
            "take" => {
                let fd = messages::receive_descriptor(order.text("at")?)?;
                self.put(order.text("on")?, fd);
                json!("taken")
            }
            op if op.starts_with("udp ") => self.datagrams(op, order)?,
            "name process" => calls::name_process(order.text("text")?)?,
            _ => on_socket(self.fd(order)?, op, order)?,
        })
    }

    fn fd(&self, order: &Order) -> Result<i32> {
        self.named(order.text("on")?)
    }

    fn named(&self, name: &str) -> Result<i32> {
        let known = self.table().get(name).copied();
        known.with_context(|| format!("no descriptor is called {name}"))
    }

    fn put(&self, name: &str, fd: i32) {
        self.table().insert(name.to_owned(), fd);
    }

    fn table(&self) -> MutexGuard<'_, HashMap<String, i32>> {
        self.descriptors
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sets the options that the order names before anything else is done with the socket.
fn set_options(fd: i32, order: &Order) -> Result<()> {
    for option in order.0["options"].as_array().into_iter().flatten() {
        let number = |place: usize| option[place].as_i64().unwrap_or_default() as i32;
        let answer = calls::set_option(fd, number(0), number(1), number(2));
        if answer != json!(0) {
            bail!("setsockopt {option}: {answer}");
        }
    }
    Ok(())
}

/// The orders that are one call on one descriptor.
fn on_socket(fd: i32, op: &str, order: &Order) -> Result<Value> {
    let number = |field: &str| usize::try_from(order.unsigned(field).unwrap_or_default());
    let size = number("size")?;
    Ok(match op {
        "send" => calls::send(fd, &order.bytes()?, order.flags()),
        "recv" => calls::recv(fd, size, order.flags()),
        "recvmsg" => messages::receive(fd, size, order.flags()),
        "write all" => bulk::write_all(fd, size),
        "read all" => bulk::read_all(fd, size),
        "fill" => flood::fill(fd, size, number("from")?),
        "drain" => flood::drain(fd, size, number("from")?),
        "shutdown" => calls::shutdown(fd, order.number("how")? as i32),
        "poll" => calls::poll(
            fd,
            order.number("events")? as i16,
            order.number("within")? as i32,
        ),
        "wait" => calls::wait(fd, order.number("within")? as i32),
        "ioctl" => calls::ioctl(fd, order.text("what")?)?,
        "get" => calls::get_option(
            fd,
            order.number("level")? as i32,
            order.number("name")? as i32,
        ),
        "set" => calls::set_option(
            fd,
            order.number("level")? as i32,
            order.number("name")? as i32,
            order.number("value")? as i32,
        ),
        "set time-out" => calls::set_timeout(
            fd,
            order.number("name")? as i32,
            order.number("milliseconds")?,
        ),
        "ends at" => clock::ends_at(fd, number("within")?),
        "linger" => calls::set_linger(fd, order.number("seconds")? as i32),
        "names" => calls::names(fd)?,
        "info" => messages::tcp_info(fd),
        "discard" => calls::discard(fd, size),
        "write" => calls::write(fd, &order.bytes()?),
        "knows peer" => json!(calls::names(fd)?["peer"].is_string()),
        "set text" => calls::set_text(
            fd,
            order.number("level")? as i32,
            order.number("name")? as i32,
            order.text("text")?,
        ),
        "disconnect" => calls::disconnect(fd),
        "sendfile" => bulk::sendfile(fd, &order.bytes()?)?,
        "zero-copy receive" => bulk::zero_copy_receive(fd),
        "ring recv" => ring::recv(fd, size, order.flags())?,
        "ring send" => ring::send(fd, &order.bytes()?)?,
        "give" => messages::send_descriptor(fd, order.text("at")?)?,
        _ => bail!("there is no order {op}"),
    })
}

impl Order {
    fn text(&self, field: &str) -> Result<&str> {
        self.0[field]
            .as_str()
            .with_context(|| format!("{field} is missing in {}", self.0))
    }

    fn number(&self, field: &str) -> Result<i64> {
        self.0[field]
            .as_i64()
            .with_context(|| format!("{field} is missing in {}", self.0))
    }

    fn unsigned(&self, field: &str) -> Result<u64> {
        self.0[field]
            .as_u64()
            .with_context(|| format!("{field} is missing in {}", self.0))
    }

    fn flag(&self, field: &str) -> bool {
        self.0[field].as_bool().unwrap_or_default()
    }

    fn flags(&self) -> i32 {
        self.0["flags"].as_i64().unwrap_or_default() as i32
    }

    fn bytes(&self) -> Result<Vec<u8>> {
        match self.0["size"].as_u64() {
            Some(size) => Ok(bulk::pattern(size as usize)),
            None => self.text("text").map(|text| text.as_bytes().to_vec()),
        }
    }
}
