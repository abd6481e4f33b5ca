//! An HTTP/1.1 connection to a server, driven by the task that uses it.
//!
//! hyper wants the connection's own future polled somewhere. A task of its own would cost two or three
//! task switches per message; here the request's future, and then its response's body, poll it in place.

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::{Request, Response};
use hyper::{
    body::{Body, Frame, Incoming},
    client::conn::{TrySendError, http1},
};
use tokio::task::coop;

use super::{
    super::{
        body::RequestBody,
        socket::{Socket, Tap, Traffic},
    },
    resend,
    wake::DriverWaker,
};

/// The most that hyper reads ahead on a connection, and the largest response head.
const BUFFER: usize = 128 * 1024;

/// How often a connection is driven before other tasks get their turn.
const TURNS: usize = 32;

/// What became of a connection that was set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// It can take another request.
    Ready,
    /// It could not be found out in this turn (tokio's budget for the task is used up).
    Busy,
    /// It is closed, or can't be used again.
    Ended,
}

/// See the module.
pub struct Http1Connection {
    sender: http1::SendRequest<RequestBody>,
    connection: http1::Connection<Socket, RequestBody>,
    driver: Arc<DriverWaker>,
    /// `driver` as a waker, made once.
    waker: Waker,
    /// The connection's own future has ended.
    ended: bool,
    /// Something happened that the connection was not polled for yet.
    unseen: bool,
    tap: Rc<Tap>,
    traffic: Rc<Traffic>,
    /// Bytes that were read before the request under way.
    read_before: u64,
    /// Sweeps that it has been idle for.
    pub(super) idle_sweeps: u32,
}

impl Http1Connection {
    /// Takes over a connected socket; nothing is sent yet.
    pub async fn new(socket: Socket, preserve_case: bool) -> Result<Box<Self>, hyper::Error> {
        let (tap, traffic) = (socket.tap().clone(), socket.traffic().clone());
        let (sender, connection) = http1::Builder::new()
            .preserve_header_case(preserve_case)
            .max_buf_size(BUFFER)
            .handshake(socket)
            .await?;
        let driver = Arc::new(DriverWaker::new());
        Ok(Box::new(Self {
            sender,
            connection,
            waker: Waker::from(driver.clone()),
            driver,
            ended: false,
            unseen: false,
            tap,
            traffic,
            read_before: 0,
            idle_sweeps: 0,
        }))
    }

    /// Sends a request and waits for the head of its response. A request of which nothing was sent comes
    /// back in the error. `keep`: [`Self::resend`] may be asked for it.
    pub async fn send(
        &mut self,
        request: Request<RequestBody>,
        keep: bool,
    ) -> Result<Response<Incoming>, TrySendError<Request<RequestBody>>> {
        self.tap.reset(keep);
        self.read_before = self.traffic.read.get();
        let mut response = pin!(self.sender.try_send_request(request));
        // It can't be there before the connection was polled.
        poll_fn(|cx| self.drive(cx, false, |cx| response.as_mut().poll(cx))).await
    }

    /// The request that was sent last, if it was kept and the server answered nothing at all.
    pub fn resend(&self) -> Option<Request<RequestBody>> {
        let unanswered = self.traffic.read.get() == self.read_before;
        let head = self.tap.take().filter(|_| unanswered)?;
        resend::parse(&head)
    }

    /// The next frame of a response that came by this connection.
    pub fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
        incoming: &mut Incoming,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.drive(cx, true, |cx| Pin::new(&mut *incoming).poll_frame(cx))
    }

    /// Polls `step` and the connection in turn until `step` is ready or neither can go on. Only what the
    /// connection does can make `step` ready, so `step` needs no wake-up of its own.
    fn drive<R>(
        &mut self,
        cx: &mut Context<'_>,
        step_first: bool,
        mut step: impl FnMut(&mut Context<'_>) -> Poll<R>,
    ) -> Poll<R> {
        let mut own = Context::from_waker(&self.waker);
        let mut none = Context::from_waker(Waker::noop());
        self.driver.enter();
        for _ in 0..TURNS {
            self.unseen |= self.driver.take_woken();
            if step_first && let Poll::Ready(value) = step(&mut none) {
                // Taking a part of a body makes room for the next one, which hyper tells by a wake-up.
                self.driver.take_woken();
                return Poll::Ready(value);
            }
            self.driver.take_woken();
            if !self.ended {
                // How it ended is told to `step`.
                self.ended = self.connection.poll_without_shutdown(&mut own).is_ready();
                self.unseen = self.driver.take_woken();
            }
            if let Poll::Ready(value) = step(&mut none) {
                self.driver.take_woken();
                return Poll::Ready(value);
            }
            if !coop::has_budget_remaining() {
                // `step` may be ready and not allowed to say so in this turn of the task.
                break;
            }
            if !self.unseen && self.driver.leave(cx.waker()) {
                return Poll::Pending;
            }
        }
        // Let the others run.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Finishes what is left of a complete exchange, and sets the connection aside.
    pub fn settle(&mut self) -> Settled {
        self.driver.enter();
        self.unseen |= self.driver.take_woken();
        // After a short answer the connection is ready already.
        if !self.ended && !self.unseen && self.sender.is_ready() && self.driver.pool() {
            return Settled::Ready;
        }
        for _ in 0..TURNS {
            self.driver.take_woken();
            let mut own = Context::from_waker(&self.waker);
            if self.ended || self.connection.poll_without_shutdown(&mut own).is_ready() {
                return Settled::Ended;
            }
            self.unseen = false;
            if self.driver.pool() {
                return if self.sender.is_ready() {
                    Settled::Ready
                } else {
                    Settled::Ended
                };
            }
        }
        self.driver.pool_stirred();
        Settled::Busy
    }

    /// Whether a connection that was set aside is still good. Costs nothing unless something happened on
    /// its socket.
    pub fn is_usable(&mut self) -> bool {
        !self.driver.is_stirred() || self.settle() == Settled::Ready
    }

    /// Drives the connection until it can take another request; false if it ended instead.
    pub async fn until_ready(&mut self) -> bool {
        poll_fn(|cx| {
            self.driver.enter();
            for _ in 0..TURNS {
                self.driver.take_woken();
                let mut own = Context::from_waker(&self.waker);
                if self.ended || self.connection.poll_without_shutdown(&mut own).is_ready() {
                    self.ended = true;
                    return Poll::Ready(false);
                }
                if self.sender.is_ready() {
                    return Poll::Ready(true);
                }
                if self.driver.leave(cx.waker()) {
                    return Poll::Pending;
                }
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await
    }

    /// After a response that switched protocols: the socket, with what was already read of it put back.
    pub async fn into_upgraded(mut self: Box<Self>) -> io::Result<Socket> {
        if !self.ended {
            poll_fn(|cx| self.connection.poll_without_shutdown(cx))
                .await
                .map_err(io::Error::other)?;
        }
        let parts = self.connection.into_parts();
        let mut socket = parts.io;
        socket.unread(parts.read_buf);
        Ok(socket)
    }
}
