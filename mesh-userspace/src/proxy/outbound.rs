//! A request on its way to an upstream. It stays in one place until a connection takes it: a head is some
//! hundred bytes, and many hands look at it.

use std::rc::Rc;

use http::Request;
use hyper::body::{Body, Incoming};

use super::{
    body::{RequestBody, Tally},
    replay::Replay,
};

/// See the module.
pub struct Outbound {
    request: Option<Request<RequestBody>>,
    tally: Option<Rc<Tally>>,
    kept: Option<Kept>,
}

/// What another try would send, where a try may fail after it was sent.
struct Kept {
    head: Request<()>,
    body: Option<Replay>,
}

impl Outbound {
    /// As it came from the client.
    pub fn new(request: Request<Incoming>) -> Self {
        let (parts, body) = request.into_parts();
        let tally = (!body.is_end_stream()).then(Rc::<Tally>::default);
        let body = match &tally {
            None => RequestBody::empty(),
            Some(tally) => RequestBody::incoming(body, tally.clone()),
        };
        Self {
            request: Some(Request::from_parts(parts, body)),
            tally,
            kept: None,
        }
    }

    /// The request, before it is sent.
    pub fn request(&mut self) -> &mut Request<RequestBody> {
        self.request
            .as_mut()
            .expect("invariant: a request is looked at before it is sent")
    }

    /// What its body does; absent where it has none.
    pub fn tally(&self) -> Option<&Rc<Tally>> {
        self.tally.as_ref()
    }

    /// For a connection to send.
    pub fn take(&mut self) -> Request<RequestBody> {
        self.request
            .take()
            .expect("invariant: a request is sent by one connection at a time")
    }

    /// Nothing of it was sent.
    pub fn put_back(&mut self, request: Request<RequestBody>) {
        self.request = Some(request);
    }

    /// Keeps a copy, the body's as it passes and within the bound, so that [`Self::restore`] can bring the
    /// request back after it was sent.
    pub fn keep(&mut self) {
        let tally = self.tally.clone();
        let request = self.request();
        let mut head = Request::new(());
        *head.method_mut() = request.method().clone();
        *head.uri_mut() = request.uri().clone();
        *head.version_mut() = request.version();
        *head.headers_mut() = request.headers().clone();
        *head.extensions_mut() = request.extensions().clone();
        let body = tally.and_then(|tally| {
            let incoming = request.body_mut().take_incoming()?;
            let replay = Replay::new(incoming);
            *request.body_mut() = RequestBody::replay(replay.reader(), tally);
            Some(replay)
        });
        self.kept = Some(Kept { head, body });
    }

    /// Makes it ready for another try; false where what was sent is not kept whole.
    pub fn restore(&mut self) -> bool {
        if self.request.is_some() {
            return true;
        }
        let Some(kept) = &self.kept else {
            return false;
        };
        let body = match (&kept.body, &self.tally) {
            (Some(replay), Some(tally)) if replay.is_whole() => {
                RequestBody::replay(replay.reader(), tally.clone())
            }
            (None, None) => RequestBody::empty(),
            _ => return false,
        };
        let (parts, ()) = kept.head.clone().into_parts();
        self.request = Some(Request::from_parts(parts, body));
        true
    }
}
