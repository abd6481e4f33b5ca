//! What happens to single connections, as the programs tell it: to the log, and to whoever follows.
//!
//! The programs tell of refusals as long as an agent runs, and of opens, closes and failures only while
//! somebody asks for them, or the log takes them (`debug`). Nothing is decided or counted by this.

mod row;

use std::{
    collections::VecDeque,
    io::{self, PipeReader, PipeWriter},
    os::fd::AsFd as _,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use mesh_common::event::follow;

use crate::{
    admin::{EventKind, EventPage, EventRow},
    kernel::{
        events::EventReader,
        node::{Kernel, OwnDenial},
    },
};

/// What is held for whoever asks: twice what fits into the ring.
const HELD: usize = 4096;
/// How long the programs go on after somebody asked last: longer than any follower pauses.
const LEASE: Duration = Duration::from_secs(10);
/// How often it is looked whether that has passed.
const TICK: Duration = Duration::from_secs(1);
/// Refusals that are logged in one [`TICK`]: who is refused may try as often as it likes.
const LOGGED: u32 = 10;

/// The events that are held.
#[derive(Default)]
struct Held {
    rows: VecDeque<EventRow>,
    /// Number of the next.
    next: u64,
    /// What the programs tell.
    bits: u32,
    /// Somebody asked, so the programs tell everything until then.
    until: Option<Instant>,
    stopped: bool,
    logged: u32,
    not_logged: u64,
    /// What some follower asked for too late.
    lost: u64,
}

/// The events, and who tells them.
pub struct Events {
    kernel: Arc<Kernel>,
    held: Mutex<Held>,
    more: Condvar,
}

/// The thread that empties the ring.
pub struct EventsThread {
    events: Arc<Events>,
    wake: PipeWriter,
    thread: JoinHandle<()>,
}

impl Events {
    /// None yet.
    pub fn new(kernel: Arc<Kernel>) -> Self {
        Self {
            kernel,
            held: Mutex::default(),
            more: Condvar::new(),
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What happened after event number `after`; waits for the first for as long as `wait`. Who waits, follows.
    pub fn page(&self, after: u64, wait: Duration) -> EventPage {
        let mut held = self.held();
        if !wait.is_zero() {
            held.until = Some(Instant::now() + LEASE);
            self.tell(&mut held, follow::DENIALS | follow::CONNECTIONS);
            let waits = |held: &mut Held| held.next <= after && !held.stopped;
            held = match self.more.wait_timeout_while(held, wait, waits) {
                Ok((held, _)) => held,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
        let page = held.page(after);
        held.lost += page.lost;
        page
    }

    /// Events that followers came too late for.
    pub fn lost(&self) -> u64 {
        self.held().lost
    }

    /// A refusal that the agent itself has made.
    pub fn denied_by_agent(&self, denial: &OwnDenial) {
        self.take(row::of_own(denial));
    }

    fn take(&self, row: EventRow) {
        let mut held = self.held();
        held.log(&row);
        held.push(row);
        self.more.notify_all();
    }

    /// Makes the programs tell these.
    fn tell(&self, held: &mut Held, bits: u32) {
        if held.bits == bits || held.stopped {
            return;
        }
        match self.kernel.follow(bits) {
            Ok(()) => held.bits = bits,
            Err(error) => tracing::warn!(%error, "writing the settings map: events may be missing"),
        }
    }

    /// Stops telling what nobody asks for any more.
    fn tick(&self, always: u32) {
        let mut held = self.held();
        if held.until.is_none_or(|until| until <= Instant::now()) {
            held.until = None;
            self.tell(&mut held, always);
        }
        if held.not_logged > 0 {
            tracing::info!(count = held.not_logged, "more connections were refused");
        }
        (held.logged, held.not_logged) = (0, 0);
    }

    fn run(&self, mut reader: EventReader, stop: &PipeReader) {
        let always = if tracing::enabled!(tracing::Level::DEBUG) {
            follow::DENIALS | follow::CONNECTIONS
        } else {
            follow::DENIALS
        };
        let mut ticked = Instant::now();
        self.tick(always);
        while !self.held().stopped {
            if let Err(error) = reader.wait(stop.as_fd(), TICK) {
                tracing::error!(%error, "waiting for events: none is told from now on");
                break;
            }
            while let Some(record) = reader.take() {
                self.take(row::of(&self.kernel, &record));
            }
            if ticked.elapsed() >= TICK {
                ticked = Instant::now();
                self.tick(always);
            }
        }
        // Nobody would empty the ring.
        if let Err(error) = self.kernel.follow(0) {
            tracing::warn!(%error, "writing the settings map");
        }
    }
}

impl EventsThread {
    /// Starts to empty the ring.
    pub fn start(events: &Arc<Events>) -> io::Result<Self> {
        let reader = events.kernel.event_reader()?;
        let (stop, wake) = io::pipe()?;
        let of_thread = Arc::clone(events);
        let thread = thread::Builder::new()
            .name("events".into())
            .spawn(move || of_thread.run(reader, &stop))?;
        Ok(Self {
            events: Arc::clone(events),
            wake,
            thread,
        })
    }

    /// Ends it, and the waiting of whoever follows.
    pub fn stop(self) {
        self.events.held().stopped = true;
        self.events.more.notify_all();
        drop(self.wake);
        let _ = self.thread.join();
    }
}

impl Held {
    fn push(&mut self, row: EventRow) {
        if self.rows.len() == HELD {
            self.rows.pop_front();
        }
        self.rows.push_back(row);
        self.next += 1;
    }

    fn page(&self, after: u64) -> EventPage {
        let oldest = self.next - self.rows.len() as u64;
        // A number of an agent before this one: from the start.
        let after = if after > self.next { 0 } else { after };
        let skip = usize::try_from(after.saturating_sub(oldest)).unwrap_or(usize::MAX);
        EventPage {
            events: self.rows.iter().skip(skip).cloned().collect(),
            next: self.next,
            // Who asks for all asks for all that there are.
            lost: if after == 0 {
                0
            } else {
                oldest.saturating_sub(after)
            },
        }
    }

    fn log(&mut self, row: &EventRow) {
        if row.event != EventKind::Denied {
            tracing::debug!(
                event = ?row.event,
                source = row.source,
                destination = row.destination,
                service = row.service,
                way = row.way,
                reason = row.reason,
                bytes_sent = row.closed.as_ref().map(|closed| closed.bytes_sent),
                bytes_received = row.closed.as_ref().map(|closed| closed.bytes_received),
                duration_us = row.closed.as_ref().map(|closed| closed.duration_us),
                rtt_us = row.closed.as_ref().and_then(|closed| closed.rtt_us),
                "connection"
            );
            return;
        }
        self.logged += 1;
        if self.logged > LOGGED {
            self.not_logged += 1;
            return;
        }
        tracing::info!(
            source = row.source,
            destination = row.destination,
            policy = row.policy,
            place = row.reason,
            client = row.client.map(tracing::field::display),
            server = row.server.map(tracing::field::display),
            "connection refused"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denial(policy: usize) -> EventRow {
        row::of_own(&OwnDenial {
            source: "default/a".into(),
            destination: "default/b".into(),
            policy: policy.to_string(),
        })
    }

    #[test]
    fn who_follows_gets_every_event_once_or_is_told_how_many_are_gone() {
        let mut held = Held::default();
        (0..3).for_each(|policy| held.push(denial(policy)));
        let first = held.page(0);
        assert_eq!((first.events.len(), first.next, first.lost), (3, 3, 0));
        assert!(held.page(first.next).events.is_empty());
        (0..HELD + 2).for_each(|policy| held.push(denial(policy)));
        let second = held.page(first.next);
        assert_eq!((second.events.len(), second.lost), (HELD, 2));
        assert_eq!(second.events[0].policy.as_deref(), Some("2"));
        // A number of another agent's.
        assert_eq!(held.page(second.next + 1).events.len(), HELD);
    }
}
