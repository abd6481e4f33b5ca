//! A request body that can be sent again: what passes is kept up to a bound.

use std::{
    cell::RefCell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Body, Frame, Incoming, SizeHint};

/// Bytes of a body that are kept for another try. A larger request is not retried once it was sent.
pub const REPLAY_LIMIT: usize = 64 * 1024;

/// The kept body; readers of it are handed out, one per try.
#[derive(Clone)]
pub struct Replay(Rc<RefCell<Shared>>);

struct Shared {
    source: Incoming,
    hint: SizeHint,
    kept: Vec<Kept>,
    kept_bytes: usize,
    /// The source has nothing more.
    ended: bool,
    /// The bound was passed, or the source failed: no other try.
    lost: bool,
    /// Which reader may read; a try that was given up must not eat the next one's bytes.
    turn: u32,
}

enum Kept {
    Data(Bytes),
    Trailers(HeaderMap),
}

impl Kept {
    fn frame(&self) -> Frame<Bytes> {
        match self {
            Self::Data(data) => Frame::data(data.clone()),
            Self::Trailers(trailers) => Frame::trailers(trailers.clone()),
        }
    }
}

impl Replay {
    /// Keeps what readers read from `source`.
    pub fn new(source: Incoming) -> Self {
        Self(Rc::new(RefCell::new(Shared {
            hint: source.size_hint(),
            ended: source.is_end_stream(),
            source,
            kept: Vec::new(),
            kept_bytes: 0,
            lost: false,
            turn: 0,
        })))
    }

    /// Whether another reader would read the whole body.
    pub fn is_whole(&self) -> bool {
        !self.0.borrow().lost
    }

    /// A reader from the start; those handed out before end.
    pub fn reader(&self) -> ReplayReader {
        let mut shared = self.0.borrow_mut();
        shared.turn += 1;
        ReplayReader {
            shared: self.0.clone(),
            turn: shared.turn,
            next: 0,
        }
    }
}

/// One try's view of the body.
pub struct ReplayReader {
    shared: Rc<RefCell<Shared>>,
    turn: u32,
    next: usize,
}

/// Another try took over.
#[derive(Debug, thiserror::Error)]
#[error("the try was given up")]
struct GivenUp;

impl ReplayReader {
    /// See [`Body::poll_frame`].
    pub fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, super::body::BodyError>>> {
        let mut shared = self.shared.borrow_mut();
        let shared = &mut *shared;
        if self.turn != shared.turn {
            return Poll::Ready(Some(Err(GivenUp.into())));
        }
        if let Some(kept) = shared.kept.get(self.next) {
            self.next += 1;
            return Poll::Ready(Some(Ok(kept.frame())));
        }
        if shared.ended {
            return Poll::Ready(None);
        }
        let frame = match ready!(Pin::new(&mut shared.source).poll_frame(cx)) {
            None => {
                shared.ended = true;
                return Poll::Ready(None);
            }
            Some(Err(error)) => {
                shared.lost = true;
                return Poll::Ready(Some(Err(error.into())));
            }
            Some(Ok(frame)) => frame,
        };
        shared.ended = shared.source.is_end_stream();
        if !shared.lost {
            shared.keep(&frame);
            self.next = shared.kept.len();
        }
        Poll::Ready(Some(Ok(frame)))
    }

    /// See [`Body::is_end_stream`].
    pub fn is_end_stream(&self) -> bool {
        let shared = self.shared.borrow();
        shared.ended && self.next >= shared.kept.len()
    }

    /// See [`Body::size_hint`].
    pub fn size_hint(&self) -> SizeHint {
        self.shared.borrow().hint
    }
}

impl Shared {
    fn keep(&mut self, frame: &Frame<Bytes>) {
        if let Some(data) = frame.data_ref() {
            self.kept_bytes += data.len();
            if self.kept_bytes > REPLAY_LIMIT {
                self.lost = true;
                self.kept.clear();
                return;
            }
            self.kept.push(Kept::Data(data.clone()));
        } else if let Some(trailers) = frame.trailers_ref() {
            self.kept.push(Kept::Trailers(trailers.clone()));
        }
    }
}
