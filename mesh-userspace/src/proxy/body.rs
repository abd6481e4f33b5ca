//! A request's body on its way to the upstream. Nothing is boxed or copied per frame; backpressure is the
//! other side not asking for the next one.

use std::{
    cell::Cell,
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::Sleep;

use super::replay::ReplayReader;

/// Whatever broke a body.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// How long a body is held back for an upstream's `100 Continue`. A server may leave it out
/// (RFC 9110, 10.1.1: a client does not wait indefinitely).
const CONTINUE_PATIENCE: Duration = Duration::from_secs(1);

/// What a request's body did; shared with whoever waits for the answer.
#[derive(Default)]
pub struct Tally {
    /// Bytes of content that were passed on.
    pub bytes: Cell<u64>,
    /// All was passed on, or nobody wants more of it.
    pub ended: Cell<bool>,
    waiting: Cell<Option<Waker>>,
}

impl Tally {
    /// Ready once the body is through.
    pub fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.ended.get() {
            return Poll::Ready(());
        }
        self.waiting.set(Some(cx.waker().clone()));
        Poll::Pending
    }

    fn end(&self) {
        self.ended.set(true);
        if let Some(waker) = self.waiting.take() {
            waker.wake();
        }
    }
}

/// A request's body on its way to the upstream.
pub struct RequestBody(Source);

enum Source {
    Empty,
    /// Boxed: most requests have none, and a request is moved often.
    Live(Box<Live>),
}

struct Live {
    /// Absent once it was taken out.
    content: Option<Content>,
    tally: Rc<Tally>,
    gate: Option<Gate>,
}

enum Content {
    Incoming(Incoming),
    Replay(ReplayReader),
}

impl RequestBody {
    /// Of a request without content.
    pub fn empty() -> Self {
        Self(Source::Empty)
    }

    /// Straight from the client.
    pub fn incoming(body: Incoming, tally: Rc<Tally>) -> Self {
        Self::live(Content::Incoming(body), tally)
    }

    /// Kept for another try.
    pub fn replay(reader: ReplayReader, tally: Rc<Tally>) -> Self {
        Self::live(Content::Replay(reader), tally)
    }

    fn live(content: Content, tally: Rc<Tally>) -> Self {
        tally.bytes.set(0);
        tally.ended.set(false);
        Self(Source::Live(Box::new(Live {
            content: Some(content),
            tally,
            gate: None,
        })))
    }

    /// Holds the body back until the upstream asks for it: asking the client's connection for it is what
    /// makes hyper send the client its `100 Continue`.
    pub fn hold_until(&mut self, signal: &Arc<ContinueSignal>) {
        if let Source::Live(live) = &mut self.0 {
            live.gate = Some(Gate {
                signal: signal.clone(),
                patience: Box::pin(tokio::time::sleep(CONTINUE_PATIENCE)),
            });
        }
    }

    /// What comes from the client, of which nothing was read yet; leaves nothing.
    pub fn take_incoming(&mut self) -> Option<Incoming> {
        match std::mem::replace(&mut self.0, Source::Empty) {
            Source::Live(mut live) => match live.content.take() {
                Some(Content::Incoming(incoming)) => Some(incoming),
                Some(Content::Replay(_)) | None => None,
            },
            Source::Empty => None,
        }
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        matches!(self.0, Source::Empty)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Source::Live(live) = &mut self.0 else {
            return Poll::Ready(None);
        };
        if let Some(gate) = &mut live.gate {
            ready!(gate.poll_open(cx));
            live.gate = None;
        }
        let frame = ready!(match &mut live.content {
            Some(Content::Incoming(incoming)) => Pin::new(incoming)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(BodyError::from))),
            Some(Content::Replay(reader)) => reader.poll_frame(cx),
            None => Poll::Ready(None),
        });
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    let bytes = &live.tally.bytes;
                    bytes.set(bytes.get() + data.len() as u64);
                }
            }
            Some(Err(_)) | None => live.tally.end(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Source::Empty => true,
            Source::Live(live) => match &live.content {
                Some(Content::Incoming(incoming)) => incoming.is_end_stream(),
                Some(Content::Replay(reader)) => reader.is_end_stream(),
                None => true,
            },
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Source::Empty => SizeHint::with_exact(0),
            Source::Live(live) => match &live.content {
                Some(Content::Incoming(incoming)) => incoming.size_hint(),
                Some(Content::Replay(reader)) => reader.size_hint(),
                None => SizeHint::with_exact(0),
            },
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.tally.end();
    }
}

/// Set when the upstream said `100 Continue`. hyper calls back from a `Send` closure, hence the atomics.
#[derive(Debug, Default)]
pub struct ContinueSignal {
    open: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl ContinueSignal {
    /// Lets the body pass.
    pub fn open(&self) {
        self.open.store(true, Ordering::SeqCst);
        let waker = self
            .waker
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

struct Gate {
    signal: Arc<ContinueSignal>,
    patience: Pin<Box<Sleep>>,
}

impl Gate {
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        *self
            .signal
            .waker
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
        if self.signal.open.load(Ordering::SeqCst) {
            return Poll::Ready(());
        }
        self.patience.as_mut().poll(cx)
    }
}
