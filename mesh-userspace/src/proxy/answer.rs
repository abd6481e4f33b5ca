//! An answer on its way to the client: the upstream's, or the mesh's own.

use std::{pin::Pin, rc::Rc};

use bytes::Bytes;
use http::{Response, StatusCode, header::CONTENT_TYPE, response};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use tokio::time::Sleep;

use super::{
    body::Tally,
    client::UpgradeUpstream,
    headers::{self, Survey},
    response_body::ResponseSource,
    upstream::{Http1Connection, InFlight, StreamPlace},
};

/// See the module. It is boxed where it is made: it passes through many hands.
pub struct Answer {
    /// Status and fields.
    pub head: response::Parts,
    /// Bytes of the fields as they came.
    pub head_size: u64,
    /// Where its body comes from.
    pub source: ResponseSource,
    /// What the request's body did.
    pub request: Option<Rc<Tally>>,
    /// When the body has to be through.
    pub deadline: Option<Pin<Box<Sleep>>>,
}

impl Answer {
    fn new(head: response::Parts, head_size: u64, source: ResponseSource) -> Box<Self> {
        Box::new(Self {
            head,
            head_size,
            source,
            request: None,
            deadline: None,
        })
    }

    /// The mesh's own words.
    pub fn local(status: StatusCode, body: Bytes) -> Box<Self> {
        let (mut head, ()) = Response::new(()).into_parts();
        head.status = status;
        if !body.is_empty() {
            let text = http::HeaderValue::from_static("text/plain");
            head.headers.insert(CONTENT_TYPE, text);
        }
        let size = Survey::of(&head.headers).size;
        Self::new(head, size, ResponseSource::Local(body))
    }

    /// By an HTTP/1.1 connection.
    pub fn by_http1(
        answer: Response<Incoming>,
        connection: Box<Http1Connection>,
        in_flight: InFlight,
    ) -> Box<Self> {
        let (head, incoming) = answer.into_parts();
        let source = ResponseSource::Http1 {
            incoming,
            connection,
            in_flight,
        };
        Self::new(head, 0, source)
    }

    /// By a stream of an HTTP/2 connection.
    pub fn by_http2(
        answer: Response<Incoming>,
        place: StreamPlace,
        in_flight: InFlight,
    ) -> Box<Self> {
        let (head, incoming) = answer.into_parts();
        let source = ResponseSource::Stream {
            incoming,
            _place: Some(place),
            in_flight,
        };
        Self::new(head, 0, source)
    }

    /// Takes out what is between the upstream and the proxy only.
    pub fn pass_on(&mut self, client_http2: bool) {
        let survey = Survey::of(&self.head.headers);
        self.head_size = survey.size;
        headers::strip_response(&mut self.head, &survey, client_http2);
    }

    /// Lets the upload go on by itself: the answer began before the request was through, so whoever reads
    /// the answer must not be the only one to drive the connection.
    pub fn detach_upload(&mut self) {
        match std::mem::replace(&mut self.source, ResponseSource::Ended) {
            ResponseSource::Http1 {
                incoming,
                connection,
                in_flight,
            } => {
                let server = in_flight.server().clone();
                tokio::task::spawn_local(async move {
                    let mut connection = connection;
                    if connection.until_ready().await {
                        server.put_idle(connection);
                    }
                });
                self.source = ResponseSource::Stream {
                    incoming,
                    _place: None,
                    in_flight,
                };
            }
            other => self.source = other,
        }
    }

    /// The upstream's side of a switched exchange, if it came from an upstream.
    pub fn take_upgrade(&mut self) -> Option<UpgradeUpstream> {
        match std::mem::replace(&mut self.source, ResponseSource::Ended) {
            ResponseSource::Http1 {
                connection,
                in_flight,
                ..
            } => Some(UpgradeUpstream::Http1(connection, in_flight)),
            ResponseSource::Stream { in_flight, .. } => {
                let upgrade = self.head.extensions.remove::<OnUpgrade>()?;
                Some(UpgradeUpstream::Http2(upgrade, in_flight))
            }
            own => {
                self.source = own;
                None
            }
        }
    }
}
