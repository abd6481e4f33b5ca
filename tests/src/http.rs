//! The little HTTP that the lab's own servers and clients speak, over hyper.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};

/// Any body that a server of the lab answers with.
pub type Body = UnsyncBoxBody<Bytes, BodyError>;

/// Why a body ended early.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// A body of these bytes.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// An answer of JSON.
pub fn json(status: StatusCode, value: &serde_json::Value) -> Response<Body> {
    respond(status, "application/json", value.to_string())
}

/// An answer of the type `content_type`.
pub fn respond(status: StatusCode, content_type: &str, body: impl Into<Bytes>) -> Response<Body> {
    Response::builder()
        .status(status)
        .header(http::header::CONTENT_TYPE, content_type)
        .body(full(body))
        .expect("invariant: a status and a constant header make a response")
}

/// Listens on `port` of all addresses.
pub async fn listen(port: u16) -> Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))
        .await
        .with_context(|| format!("listen on port {port}"))
}

/// Serves HTTP/1.1 and HTTP/2 (by prior knowledge), with keep-alive and upgrades, for ever.
/// `handler` is given the client's address too.
pub async fn serve<H, F>(listener: TcpListener, handler: H) -> Result<()>
where
    H: Fn(Request<Incoming>, SocketAddr) -> F + Clone + Send + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    loop {
        let (stream, client) = listener.accept().await.context("accept")?;
        stream.set_nodelay(true).context("set TCP_NODELAY")?;
        let handler = handler.clone();
        let service = service_fn(move |request| {
            let answer = handler(request, client);
            async move { Ok::<_, Infallible>(answer.await) }
        });
        tokio::spawn(async move {
            // A client that goes away in the middle is its own affair.
            let _ = auto::Builder::new(TokioExecutor::new())
                .serve_connection_with_upgrades(TokioIo::new(stream), service)
                .await;
        });
    }
}

/// Sends one request over a connection of its own and reads the whole answer.
///
/// `authority` is `host:port`; the request's URI is its path. No connection is kept: which endpoint
/// a direct connection meets is decided when it is made, as the original Bookinfo's clients do.
pub async fn fetch(
    authority: &str,
    request: Request<Full<Bytes>>,
    timeout: Duration,
) -> Result<Response<Bytes>> {
    let exchange = async {
        let stream = TcpStream::connect(authority)
            .await
            .with_context(|| format!("connect to {authority}"))?;
        stream.set_nodelay(true).context("set TCP_NODELAY")?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .context("start HTTP/1.1")?;
        let driver = tokio::spawn(connection);
        let response = sender
            .send_request(request)
            .await
            .context("send a request")?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.context("read the answer")?.to_bytes();
        driver.abort();
        Ok(Response::from_parts(head, body))
    };
    tokio::time::timeout(timeout, exchange)
        .await
        .with_context(|| format!("{authority} did not answer within {timeout:?}"))?
}
