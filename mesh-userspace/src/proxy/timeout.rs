//! A route's timeouts. Nothing is set up where the route has none.
//!
//! As in Envoy, the clocks start when the request was received to its end: a slow upload is not the
//! upstream's fault.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::Sleep;

use super::{body::Tally, failure::Failure};

/// The route's timeout for all tries, and its perTryTimeout.
pub struct Timeouts {
    all: Clock,
    one: Clock,
    /// Present while the clocks wait for the end of the request's body.
    upload: Option<Rc<Tally>>,
}

struct Clock {
    limit: Option<Duration>,
    /// Set when it was started.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Clock {
    fn new(limit: Option<Duration>) -> Self {
        Self { limit, sleep: None }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.limit {
            None => Poll::Pending,
            Some(limit) => self
                .sleep
                .get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)))
                .as_mut()
                .poll(cx),
        }
    }
}

impl Timeouts {
    /// Either may be absent.
    pub fn new(all: Option<Duration>, one: Option<Duration>) -> Self {
        Self {
            all: Clock::new(all),
            one: Clock::new(one),
            upload: None,
        }
    }

    /// Starts the clocks, at the end of the request's body if it has one.
    pub fn start(&mut self, upload: Option<&Rc<Tally>>) {
        if self.all.limit.is_some() || self.one.limit.is_some() {
            self.upload = upload.cloned();
        }
    }

    /// A new try has its own clock.
    pub fn restart_try(&mut self) {
        self.one.sleep = None;
    }

    /// Runs a try within both.
    pub async fn within_try<F: Future>(&mut self, future: F) -> Result<F::Output, Failure> {
        let mut future = pin!(future);
        poll_fn(|cx| {
            if let Poll::Ready(value) = future.as_mut().poll(cx) {
                return Poll::Ready(Ok(value));
            }
            if !self.poll_started(cx) {
                return Poll::Pending;
            }
            if self.all.poll(cx).is_ready() {
                return Poll::Ready(Err(Failure::Timeout));
            }
            self.one.poll(cx).map(|()| Err(Failure::PerTryTimeout))
        })
        .await
    }

    /// Runs what is between tries within the one for all.
    pub async fn within_all<F: Future>(&mut self, future: F) -> Result<F::Output, Failure> {
        let mut future = pin!(future);
        poll_fn(|cx| {
            if let Poll::Ready(value) = future.as_mut().poll(cx) {
                return Poll::Ready(Ok(value));
            }
            if !self.poll_started(cx) {
                return Poll::Pending;
            }
            self.all.poll(cx).map(|()| Err(Failure::Timeout))
        })
        .await
    }

    fn poll_started(&mut self, cx: &mut Context<'_>) -> bool {
        if let Some(upload) = &self.upload
            && upload.poll_ended(cx).is_ready()
        {
            self.upload = None;
        }
        self.upload.is_none()
    }

    /// What is left for the response's body: whichever clock ends first.
    pub fn remaining(&mut self) -> Option<Pin<Box<Sleep>>> {
        match (self.all.sleep.take(), self.one.sleep.take()) {
            (Some(all), Some(one)) if one.deadline() < all.deadline() => Some(one),
            (Some(all), _) => Some(all),
            (None, one) => one,
        }
    }
}
