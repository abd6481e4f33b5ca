//! What a stream client and a stream server have in common: one stamped stream each way.
//!
//! A stream starts with its id and its length (8 bytes each, little-endian); stamped bytes follow.
//! Who speaks second takes an id that follows from the first one's, so that streams of different
//! connections can't pass for one another.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::stamp;
use crate::{poll, sys};

/// What the answering stream's id differs by.
const ANSWER: u64 = 0x5555_5555_5555_5555;
pub(super) const HEADER: usize = 16;
const ERRORS_KEPT: usize = 8;

/// When a side sends, seen from its peer's stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Order {
    /// At the same time
    Together,
    /// Before it reads the other's
    First,
    /// After it has read the other's whole
    Last,
}

#[derive(Clone, Debug, Args)]
pub(super) struct Plan {
    /// When to send
    #[arg(long, value_enum, default_value = "together")]
    pub order: Order,
    /// How many stamped bytes to send on each connection
    #[arg(long, default_value_t = 65_536)]
    pub bytes: u64,
    /// The sizes of the writes, taken in turn
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "1,7,64,1000,4096,16384,65536"
    )]
    pub writes: Vec<usize>,
    /// How many microseconds to wait between two writes
    #[arg(long, default_value_t = 0)]
    pub gap_us: u64,
    /// The size of the reads
    #[arg(long, default_value_t = 65_536)]
    pub read: usize,
    /// Shut down the sending side after the stream, and expect the same of the peer
    #[arg(long)]
    pub half_close: bool,
    /// Use non-blocking sockets and `poll()`
    #[arg(long)]
    pub poll: bool,
    /// How long a single read or write may take
    #[arg(long, default_value_t = 20)]
    pub timeout_s: u64,
}

/// What one connection carried, headers included.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Carried {
    pub sent: u64,
    pub received: u64,
}

/// What all connections of a process carried.
#[derive(Debug, Default)]
pub(super) struct Tally {
    inner: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    ok: u64,
    failed: u64,
    sent: u64,
    received: u64,
    errors: Vec<String>,
    addresses: Vec<Value>,
}

/// One side of a connection.
#[derive(Debug)]
pub(super) struct Side<'a> {
    stream: &'a TcpStream,
    plan: &'a Plan,
}

impl Tally {
    pub(super) fn add(&self, stream: Option<&TcpStream>, result: Result<Carried>) {
        let mut counts = self.counts();
        match result {
            Ok(carried) => {
                counts.ok += 1;
                counts.sent += carried.sent;
                counts.received += carried.received;
            }
            Err(error) => {
                counts.failed += 1;
                if counts.errors.len() < ERRORS_KEPT {
                    counts.errors.push(format!("{error:#}"));
                }
            }
        }
        if counts.addresses.len() < ERRORS_KEPT
            && let Some(stream) = stream
        {
            let text = |address: io::Result<std::net::SocketAddr>| {
                address.map_or_else(|error| error.to_string(), |address| address.to_string())
            };
            counts.addresses.push(json!({
                "local": text(stream.local_addr()), "peer": text(stream.peer_addr()),
            }));
        }
    }

    pub(super) fn report(&self) -> Value {
        let counts = self.counts();
        json!({
            "ok": counts.ok, "failed": counts.failed, "sent": counts.sent,
            "received": counts.received, "errors": counts.errors, "addresses": counts.addresses,
        })
    }

    fn counts(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.inner
            .lock()
            .expect("invariant: nothing panics under this lock")
    }
}

/// An id that no other stream of this machine has.
pub(super) fn new_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    u64::from(std::process::id()) << 32 | NEXT.fetch_add(1, Ordering::Relaxed)
}

pub(super) fn header(id: u64, length: u64) -> [u8; HEADER] {
    let mut bytes = [0; HEADER];
    bytes[..8].copy_from_slice(&id.to_le_bytes());
    bytes[8..].copy_from_slice(&length.to_le_bytes());
    bytes
}

impl<'a> Side<'a> {
    pub(super) fn new(stream: &'a TcpStream, plan: &'a Plan) -> Result<Self> {
        stream.set_nodelay(true).context("set TCP_NODELAY")?;
        if plan.poll {
            stream.set_nonblocking(true).context("set O_NONBLOCK")?;
        } else {
            let timeout = Some(poll::patient(Duration::from_secs(plan.timeout_s)));
            stream
                .set_read_timeout(timeout)
                .context("set SO_RCVTIMEO")?;
            stream
                .set_write_timeout(timeout)
                .context("set SO_SNDTIMEO")?;
        }
        Ok(Self { stream, plan })
    }

    /// Both streams, by the side that speaks first. `sent_header`: it is on its way already.
    pub(super) fn lead(&self, id: u64, sent_header: bool, sent: impl Fn()) -> Result<Carried> {
        let answer = |peer| {
            ensure!(peer == id ^ ANSWER, "the answer {peer:x} is not to {id:x}");
            Ok(())
        };
        let send = || self.send(id, sent_header);
        if self.plan.order == Order::Together {
            return std::thread::scope(|scope| {
                let sending = scope.spawn(send);
                let received = self.receive(answer);
                let sent = sending.join().expect("invariant: sending does not panic");
                Ok(Carried {
                    sent: sent?,
                    received: received?,
                })
            });
        }
        let carried = send()?;
        sent();
        Ok(Carried {
            sent: carried,
            received: self.receive(answer)?,
        })
    }

    /// Both streams, by the side that speaks second.
    pub(super) fn follow(&self) -> Result<Carried> {
        let (peer, length) = self.receive_header()?;
        let id = peer ^ ANSWER;
        if self.plan.order == Order::Together {
            return std::thread::scope(|scope| {
                let sending = scope.spawn(|| self.send(id, false));
                let received = self.receive_body(peer, length);
                let sent = sending.join().expect("invariant: sending does not panic");
                Ok(Carried {
                    sent: sent?,
                    received: received?,
                })
            });
        }
        let received = self.receive_body(peer, length)?;
        Ok(Carried {
            sent: self.send(id, false)?,
            received,
        })
    }

    /// Sends back whatever comes, until the peer's end of stream.
    pub(super) fn echo(&self) -> Result<Carried> {
        let mut carried = Carried::default();
        let mut chunk = vec![0; self.plan.read];
        loop {
            let length = self.read(&mut chunk).context("read")?;
            if length == 0 {
                return Ok(carried);
            }
            carried.received += length as u64;
            self.write_all(&chunk[..length]).context("write")?;
            carried.sent += length as u64;
        }
    }

    fn send(&self, id: u64, sent_header: bool) -> Result<u64> {
        let total = self.plan.bytes;
        if !sent_header {
            self.write_all(&header(id, total))
                .context("send the header")?;
        }
        let longest = self.plan.writes.iter().max().copied().unwrap_or(1).max(1);
        let mut chunk = vec![0; longest];
        let mut sent = 0;
        // Every connection starts elsewhere in the list.
        let mut sizes = self
            .plan
            .writes
            .iter()
            .cycle()
            .skip(id as usize % self.plan.writes.len());
        while sent < total {
            if self.plan.gap_us > 0 {
                std::thread::sleep(Duration::from_micros(self.plan.gap_us));
            }
            let size = sizes.next().copied().unwrap_or(1).max(1) as u64;
            let size = size.min(total - sent) as usize;
            stamp::fill(id, sent, &mut chunk[..size]);
            self.write_all(&chunk[..size])
                .with_context(|| format!("send after {sent} of {total} bytes"))?;
            sent += size as u64;
        }
        if self.plan.half_close {
            self.stream
                .shutdown(Shutdown::Write)
                .context("shut down the sending side")?;
        }
        Ok(HEADER as u64 + total)
    }

    fn receive(&self, check: impl Fn(u64) -> Result<()>) -> Result<u64> {
        let (id, length) = self.receive_header()?;
        check(id)?;
        self.receive_body(id, length)
    }

    fn receive_header(&self) -> Result<(u64, u64)> {
        let mut bytes = [0; HEADER];
        let mut filled = 0;
        while filled < HEADER {
            match self
                .read(&mut bytes[filled..])
                .context("receive the header")?
            {
                0 => bail!("the stream ended after {filled} bytes of the header"),
                length => filled += length,
            }
        }
        let word = |from: usize| {
            let bytes = bytes[from..from + 8].try_into();
            u64::from_le_bytes(bytes.expect("invariant: 8 bytes"))
        };
        Ok((word(0), word(8)))
    }

    fn receive_body(&self, id: u64, length: u64) -> Result<u64> {
        let mut chunk = vec![0; self.plan.read.max(1)];
        let mut received = 0;
        while received < length {
            let room = chunk.len().min((length - received) as usize);
            let got = self
                .read(&mut chunk[..room])
                .with_context(|| format!("receive after {received} of {length} bytes"))?;
            ensure!(
                got > 0,
                "the stream {id:x} ended after {received} of {length} bytes"
            );
            if let Some(place) = stamp::first_mismatch(id, received, &chunk[..got]) {
                bail!("the stream {id:x} of {length} bytes is wrong at {place}");
            }
            received += got as u64;
        }
        if self.plan.half_close {
            let more = self.read(&mut chunk).context("receive the end")?;
            ensure!(more == 0, "{more} bytes after the end of the stream {id:x}");
        }
        Ok(HEADER as u64 + length)
    }

    fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        let mut stream = self.stream;
        self.retry(libc::POLLIN, || stream.read(into))
    }

    fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        let mut stream = self.stream;
        while !bytes.is_empty() {
            let written = self.retry(libc::POLLOUT, || stream.write(bytes))?;
            bytes = &bytes[written..];
        }
        Ok(())
    }

    /// Repeats `call` when it was interrupted, and when a non-blocking socket was not ready.
    fn retry(&self, events: i16, mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
        let timeout = poll::patient(Duration::from_secs(self.plan.timeout_s));
        let started = Instant::now();
        loop {
            match call() {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock && self.plan.poll => {
                    if !sys::wait_for(self.stream, events, timeout)? {
                        return Err(ErrorKind::TimedOut.into());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    // SO_RCVTIMEO's way to say that it is over; sooner it would be a lie.
                    let text =
                        format!("{error} on a blocking socket after {:?}", started.elapsed());
                    return Err(io::Error::new(ErrorKind::TimedOut, text));
                }
                result => return result,
            }
        }
    }
}
