//! A response's body on its way to the client. It carries the request's record to its end.

use std::{
    cell::Cell,
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::Sleep;

use super::{
    body::{BodyError, Tally},
    retry::grpc_status,
    upstream::{Http1Connection, InFlight, StreamPlace},
};
use crate::telemetry::{RequestRecord, ResponseFlags};

/// See the module.
pub struct ResponseBody {
    source: ResponseSource,
    /// Absent where the record went on with an upgraded connection.
    record: Option<Box<RequestRecord>>,
    request: Option<Rc<Tally>>,
    /// Told at the next poll: hyper drops what it has not flushed yet when a body fails.
    failed: Option<BodyError>,
    /// What is left of the route's timeouts.
    deadline: Option<Pin<Box<Sleep>>>,
    /// Counts the request as under way on the client's connection.
    pub(super) busy: Option<Busy>,
}

/// Where a response's body comes from.
pub enum ResponseSource {
    /// The proxy's own words.
    Local(Bytes),
    /// Nothing more.
    Ended,
    /// An HTTP/1.1 connection, driven by whoever reads the body.
    Http1 {
        /// The body.
        incoming: Incoming,
        /// Goes back to its pool at the end of the body.
        connection: Box<Http1Connection>,
        /// To which server.
        in_flight: InFlight,
    },
    /// A connection that is driven elsewhere.
    Stream {
        /// The body.
        incoming: Incoming,
        /// For HTTP/2.
        _place: Option<StreamPlace>,
        /// To which server.
        in_flight: InFlight,
    },
}

/// The route's timeout cut a response short.
#[derive(Debug, thiserror::Error)]
#[error("the response took longer than the route's timeout")]
struct TooLate;

impl ResponseBody {
    /// With the record that it ends.
    pub fn new(
        source: ResponseSource,
        record: Option<Box<RequestRecord>>,
        request: Option<Rc<Tally>>,
        deadline: Option<Pin<Box<Sleep>>>,
    ) -> Self {
        let mut body = Self {
            source,
            record,
            request,
            failed: None,
            deadline,
            busy: None,
        };
        if body.is_end_stream() {
            body.finish();
        }
        body
    }

    /// Gives the connection back, and marks the record as complete.
    fn finish(&mut self) {
        if let ResponseSource::Http1 {
            connection,
            in_flight,
            ..
        } = std::mem::replace(&mut self.source, ResponseSource::Ended)
        {
            in_flight.server().put_idle(connection);
        }
        self.deadline = None;
        if let Some(record) = &mut self.record {
            record.complete = true;
        }
    }

    fn poll_source(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.source {
            ResponseSource::Ended => Poll::Ready(None),
            ResponseSource::Local(bytes) => {
                let bytes = std::mem::take(bytes);
                Poll::Ready(bytes.has_remaining().then(|| Ok(Frame::data(bytes))))
            }
            ResponseSource::Http1 {
                incoming,
                connection,
                ..
            } => connection.poll_frame(cx, incoming),
            ResponseSource::Stream { incoming, .. } => Pin::new(incoming).poll_frame(cx),
        }
    }

    fn note(&mut self, frame: &Frame<Bytes>) {
        let Some(record) = &mut self.record else {
            return;
        };
        if let Some(data) = frame.data_ref() {
            record.response_bytes += data.len() as u64;
        } else if let Some(trailers) = frame.trailers_ref() {
            record.grpc_status = grpc_status(trailers).or(record.grpc_status);
        }
    }

    /// Lets hyper flush what came before the failure, then tells it.
    fn fail<T>(&mut self, error: BodyError, cx: &Context<'_>) -> Poll<T> {
        self.failed = Some(error);
        self.deadline = None;
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn flag(&mut self, flag: ResponseFlags) {
        if let Some(record) = &mut self.record {
            record.flag(flag);
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let frame = match self.poll_source(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                if let Some(deadline) = &mut self.deadline {
                    ready!(deadline.as_mut().poll(cx));
                    self.flag(ResponseFlags::UT);
                    return self.fail(TooLate.into(), cx);
                }
                return Poll::Pending;
            }
        };
        Poll::Ready(match frame {
            None => {
                self.finish();
                None
            }
            Some(Ok(frame)) => {
                self.note(&frame);
                if self.is_end_stream() {
                    self.finish();
                }
                Some(Ok(frame))
            }
            Some(Err(error)) => {
                self.flag(if error.is_parse() {
                    ResponseFlags::UPE
                } else {
                    ResponseFlags::UC
                });
                return self.fail(error.into(), cx);
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            ResponseSource::Ended => true,
            ResponseSource::Local(bytes) => bytes.is_empty(),
            ResponseSource::Http1 { incoming, .. } | ResponseSource::Stream { incoming, .. } => {
                incoming.is_end_stream()
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            ResponseSource::Ended => SizeHint::with_exact(0),
            ResponseSource::Local(bytes) => SizeHint::with_exact(bytes.len() as u64),
            ResponseSource::Http1 { incoming, .. } | ResponseSource::Stream { incoming, .. } => {
                incoming.size_hint()
            }
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if let (Some(record), Some(request)) = (&mut self.record, &self.request) {
            record.request_bytes += request.bytes.get();
        }
    }
}

/// Requests under way on one client connection, counted by its guards.
#[derive(Debug, Default, Clone)]
pub struct BusyCount(Rc<Cell<u32>>);

impl BusyCount {
    /// Requests under way.
    pub fn get(&self) -> u32 {
        self.0.get()
    }

    /// One more, until the guard is dropped.
    pub fn begin(&self) -> Busy {
        self.0.set(self.0.get() + 1);
        Busy(self.0.clone())
    }
}

/// See [`BusyCount`].
#[derive(Debug)]
pub struct Busy(Rc<Cell<u32>>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
