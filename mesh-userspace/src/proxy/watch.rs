//! What the worker keeps of a connection: how to end it, and whether it does anything.
//!
//! Every connection is looked at at a steady beat instead of setting a timer for each request.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::{Context, Waker},
};

use super::{response_body::BusyCount, socket::Traffic};

/// Beats (of 5 s) that an HTTP client may take to send a head: one minute.
const HEAD_BEATS: u32 = 12;

/// Beats that an HTTP client may be silent between requests: one hour, as in Envoy.
const IDLE_BEATS: u32 = 720;

/// The same once it was asked to leave: five to ten seconds.
const LEAVING_BEATS: u32 = 1;

/// See the module.
#[derive(Debug, Default)]
pub struct Watch {
    closing: Cell<bool>,
    leaving: Cell<bool>,
    killed: Cell<bool>,
    /// It is known what the client speaks.
    started: Cell<bool>,
    /// Only HTTP clients are closed for what they do not do: other protocols have rules of their own.
    http: Cell<bool>,
    waker: RefCell<Option<Waker>>,
    busy: BusyCount,
    traffic: RefCell<Rc<Traffic>>,
    /// Bytes that had been read when the last request was known to be complete.
    complete: Cell<u64>,
    /// Bytes that had been written at the last beat.
    written: Cell<u64>,
    idle_beats: Cell<u32>,
    head_beats: Cell<u32>,
}

impl Watch {
    /// What passes the connection's socket.
    pub fn observe(&self, traffic: Rc<Traffic>) {
        self.traffic.replace(traffic);
    }

    /// Requests under way.
    pub fn busy(&self) -> &BusyCount {
        &self.busy
    }

    /// It is known what the client speaks, or that it says nothing.
    pub fn start(&self, http: bool) {
        self.started.set(true);
        self.http.set(http);
    }

    /// Asks the connection to end after the requests under way.
    pub fn close(&self) {
        self.closing.set(true);
        self.wake();
    }

    /// Asks the connection to end with its next answer, or once it has been silent for a while: whoever is
    /// about to send a request must not find it closed.
    pub fn leave(&self) {
        self.leaving.set(true);
        self.wake();
    }

    /// Whether its next answer shall be the last.
    pub fn is_leaving(&self) -> bool {
        self.leaving.get()
    }

    /// Whether it was asked to end.
    pub fn is_closing(&self) -> bool {
        self.closing.get()
    }

    /// Drops the connection.
    pub fn kill(&self) {
        self.killed.set(true);
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Registers the connection's task; true: the connection has to go at once.
    pub fn poll_gone(&self, cx: &Context<'_>) -> bool {
        let mut waker = self.waker.borrow_mut();
        if !waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            *waker = Some(cx.waker().clone());
        }
        // A client that has said nothing yet has nothing under way.
        self.killed.get() || self.closing.get() && !self.started.get()
    }

    /// A beat: ends the connection of an HTTP client that does nothing, or sends its head too slowly.
    pub fn beat(&self) {
        let (read, written) = {
            let traffic = self.traffic.borrow();
            (traffic.read.get(), traffic.written.get())
        };
        let answered = self.written.replace(written) != written;
        if !self.http.get() || self.busy.get() > 0 || answered {
            self.complete.set(read);
            self.idle_beats.set(0);
            self.head_beats.set(0);
            return;
        }
        self.idle_beats.set(self.idle_beats.get() + 1);
        if read > self.complete.get() {
            self.head_beats.set(self.head_beats.get() + 1);
        }
        let patience = if self.leaving.get() {
            LEAVING_BEATS
        } else {
            IDLE_BEATS
        };
        if self.head_beats.get() > HEAD_BEATS {
            self.kill();
        } else if self.idle_beats.get() > patience {
            self.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http() -> (Watch, Rc<Traffic>) {
        let watch = Watch::default();
        let traffic = Rc::new(Traffic::default());
        watch.observe(traffic.clone());
        watch.start(true);
        (watch, traffic)
    }

    fn beats(watch: &Watch, count: u32) {
        (0..count).for_each(|_| watch.beat());
    }

    #[test]
    fn a_silent_client_is_asked_to_leave_after_an_hour() {
        let (watch, _) = http();
        beats(&watch, IDLE_BEATS);
        assert!(!watch.is_closing());
        watch.beat();
        assert!(watch.is_closing() && !watch.killed.get());
    }

    #[test]
    fn one_that_is_to_leave_goes_when_it_has_been_silent_for_a_while() {
        let (watch, traffic) = http();
        beats(&watch, IDLE_BEATS / 2);
        watch.leave();
        assert!(watch.is_leaving() && !watch.is_closing());
        traffic.written.set(5);
        beats(&watch, 1 + LEAVING_BEATS);
        assert!(!watch.is_closing());
        watch.beat();
        assert!(watch.is_closing() && !watch.killed.get());
    }

    #[test]
    fn a_head_that_trickles_in_is_cut_off_after_a_minute() {
        let (watch, traffic) = http();
        for _ in 0..=HEAD_BEATS {
            assert!(!watch.killed.get());
            traffic.read.set(traffic.read.get() + 1);
            watch.beat();
        }
        assert!(watch.killed.get());
    }

    #[test]
    fn a_head_after_a_long_silence_has_its_minute() {
        let (watch, traffic) = http();
        beats(&watch, 100);
        traffic.read.set(10);
        beats(&watch, HEAD_BEATS);
        assert!(!watch.killed.get());
    }

    #[test]
    fn requests_under_way_and_answers_start_the_clocks_anew() {
        let (watch, traffic) = http();
        traffic.read.set(10);
        beats(&watch, HEAD_BEATS);
        let busy = watch.busy().begin();
        beats(&watch, 10 * IDLE_BEATS);
        drop(busy);
        beats(&watch, IDLE_BEATS);
        traffic.written.set(5);
        beats(&watch, IDLE_BEATS);
        assert!(!watch.is_closing() && !watch.killed.get());
    }

    #[test]
    fn other_protocols_are_left_alone() {
        let (watch, _) = http();
        watch.start(false);
        beats(&watch, 10 * IDLE_BEATS);
        assert!(!watch.is_closing() && !watch.killed.get());
    }
}
