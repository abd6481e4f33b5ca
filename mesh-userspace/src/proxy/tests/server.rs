//! Servers that tests script, and the bodies of their answers.

use std::{
    cell::Cell,
    collections::VecDeque,
    future::Future,
    net::Ipv4Addr,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{
    Request, Response,
    body::{Frame, Incoming},
    service::service_fn,
};
use tokio::net::{TcpListener, TcpStream};

use crate::proxy::{runtime::LocalExecutor, socket::Socket};

/// A server that a test scripts; gone when it is dropped.
pub struct Server {
    pub port: u16,
    connections: Rc<Cell<usize>>,
    requests: Rc<Cell<usize>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// Runs `script` for each connection, which is told its number from 0.
    pub async fn raw<F: Future<Output = ()> + 'static>(
        script: impl Fn(TcpStream, usize) -> F + 'static,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Rc::new(Cell::new(0));
        let counter = connections.clone();
        let task = tokio::task::spawn_local(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let number = counter.get();
                counter.set(number + 1);
                tokio::task::spawn_local(script(stream, number));
            }
        });
        Self {
            port,
            connections,
            requests: Rc::default(),
            task,
        }
    }

    /// Answers HTTP/1.1 requests, which are numbered from 0 over all connections.
    pub async fn http<F: Future<Output = Response<Body>> + 'static>(
        handler: impl Fn(Request<Incoming>, usize) -> F + 'static,
    ) -> Self {
        Self::hyper(false, handler).await
    }

    /// Answers HTTP/2 requests.
    pub async fn http2<F: Future<Output = Response<Body>> + 'static>(
        handler: impl Fn(Request<Incoming>, usize) -> F + 'static,
    ) -> Self {
        Self::hyper(true, handler).await
    }

    async fn hyper<F: Future<Output = Response<Body>> + 'static>(
        http2: bool,
        handler: impl Fn(Request<Incoming>, usize) -> F + 'static,
    ) -> Self {
        let requests = Rc::new(Cell::new(0));
        let counter = requests.clone();
        let handler = Rc::new(handler);
        let mut server = Self::raw(move |stream, _| {
            let (handler, counter) = (handler.clone(), counter.clone());
            let service = service_fn(move |request| {
                let number = counter.get();
                counter.set(number + 1);
                let answer = handler(request, number);
                async move { Ok::<_, std::convert::Infallible>(answer.await) }
            });
            async move {
                let socket = Socket::new(stream);
                // How a client's connection ends is the client's business.
                let _ = if http2 {
                    let builder = hyper::server::conn::http2::Builder::new(LocalExecutor);
                    builder.serve_connection(socket, service).await
                } else {
                    let builder = hyper::server::conn::http1::Builder::new();
                    builder.serve_connection(socket, service).await
                };
            }
        })
        .await;
        server.requests = requests;
        server
    }

    /// Connections that were accepted.
    pub fn connections(&self) -> usize {
        self.connections.get()
    }

    /// Requests that were answered or are being answered.
    pub fn requests(&self) -> usize {
        self.requests.get()
    }
}

/// A body of any kind.
pub type Body = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// A body that is there.
pub fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// A body of these frames, of unknown length.
pub fn frames<const N: usize>(frames: [Frame<Bytes>; N]) -> Body {
    Frames(frames.into()).boxed_unsync()
}

struct Frames(VecDeque<Frame<Bytes>>);

impl hyper::body::Body for Frames {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Ready(self.0.pop_front().map(Ok))
    }
}

/// An answer with a status and a text.
pub fn answer(status: u16, text: &str) -> Response<Body> {
    let mut answer = Response::new(full(text.to_owned()));
    *answer.status_mut() = status.try_into().unwrap();
    answer
}
