//! `lab-peer echo`: an HTTP server that answers with what it was asked.
//!
//! The query tells it how to answer: `status=503`, `delay=MS`, `bytes=N` (that many stamped
//! bytes), `trailers=1`, `id=X` (how many requests named X there were), `fail=N&id=X` (503 for the
//! first N of them), `unread=1` (an answer without reading the body). `Upgrade: echo` gets 101 and everything back. `POST
//! /stream` gets its body back as it comes.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use clap::Args;
use http::header::{CONNECTION, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use super::stamp;
use crate::http as web;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Where to listen
    #[arg(long)]
    port: u16,
    /// The name that it answers with
    #[arg(long, default_value = "echo")]
    name: String,
}

#[derive(Debug)]
struct Echo {
    name: String,
    /// Per id how many requests there were.
    tries: Mutex<HashMap<String, u32>>,
}

pub(super) async fn run(arguments: Arguments) -> Result<()> {
    let listener = web::listen(arguments.port).await?;
    let echo = Arc::new(Echo {
        name: arguments.name,
        tries: Mutex::default(),
    });
    web::serve(listener, move |request, client| {
        let echo = Arc::clone(&echo);
        async move { echo.answer(request, client).await }
    })
    .await
}

impl Echo {
    async fn answer(&self, request: Request<Incoming>, client: SocketAddr) -> Response<web::Body> {
        if request
            .headers()
            .get(UPGRADE)
            .is_some_and(|to| to == "echo")
        {
            return upgrade(request);
        }
        let query = query_of(request.uri().query().unwrap_or_default());
        let number = |key: &str| query.get(key).and_then(|value| value.parse::<u64>().ok());
        if request.uri().path() == "/stream" {
            return Response::new(request.into_body().map_err(Into::into).boxed_unsync());
        }
        if let Some(length) = number("bytes") {
            return Response::new(Stamped::new(length).boxed_unsync());
        }
        let tries = query.get("id").map(|id| self.count(id.clone()));
        if let Some(delay) = number("delay") {
            tokio::time::sleep(Duration::from_millis(delay)).await;
        }
        let failing = number("fail").is_some_and(|count| u64::from(tries.unwrap_or(1)) <= count);
        let status = if failing { Some(503) } else { number("status") };
        let status = status
            .and_then(|status| StatusCode::from_u16(status as u16).ok())
            .unwrap_or(StatusCode::OK);
        if query.contains_key("unread") {
            return web::respond(status, "text/plain", "refused unread");
        }
        let trailers = query.contains_key("trailers").then(|| request.version());
        let mut report = self.report(request, client).await;
        if let Some(tries) = tries {
            report["tries"] = json!(tries);
        }
        let mut response = web::json(status, &report);
        response.headers_mut().insert(
            "x-served-by",
            HeaderValue::from_str(&self.name).unwrap_or(HeaderValue::from_static("echo")),
        );
        if let Some(version) = trailers {
            let body = Full::new(Bytes::from(report.to_string()));
            let mut trailers = HeaderMap::new();
            trailers.insert("x-checksum", HeaderValue::from_static("of-the-end"));
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            response.headers_mut().insert(
                "trailer",
                HeaderValue::from_static("x-checksum, grpc-status"),
            );
            if version < Version::HTTP_2 {
                // hyper knows the length and would say it, but then trailers have no place.
                let chunked = HeaderValue::from_static("chunked");
                response.headers_mut().insert(TRANSFER_ENCODING, chunked);
            }
            *response.body_mut() = body
                .map_err(|never| match never {})
                .with_trailers(async move { Some(Ok(trailers)) })
                .boxed_unsync();
        }
        response
    }

    fn count(&self, id: String) -> u32 {
        let mut tries = self.tries.lock().unwrap_or_else(PoisonError::into_inner);
        let count = tries.entry(id).or_default();
        *count += 1;
        *count
    }

    async fn report(&self, request: Request<Incoming>, client: SocketAddr) -> Value {
        let (head, body) = request.into_parts();
        let headers: Vec<_> = head.headers.iter().map(pair).collect();
        let collected = body.collect().await;
        let (bytes, trailers) = match collected {
            Ok(collected) => {
                let trailers: Vec<_> = collected
                    .trailers()
                    .into_iter()
                    .flatten()
                    .map(pair)
                    .collect();
                (collected.to_bytes(), trailers)
            }
            Err(error) => (Bytes::from(format!("body error: {error}")), Vec::new()),
        };
        json!({
            "server": self.name, "method": head.method.as_str(), "uri": head.uri.to_string(),
            "version": format!("{:?}", head.version), "headers": headers, "client": client,
            "length": bytes.len(), "body": String::from_utf8_lossy(&bytes[..bytes.len().min(4096)]),
            "stampedTo": stamp::matches_until(stamp::HTTP_STREAM, &bytes), "trailers": trailers,
        })
    }
}

/// Header and value, as the reports write them.
pub(super) fn pair((name, value): (&http::HeaderName, &HeaderValue)) -> (String, String) {
    let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
    (name.as_str().to_owned(), value)
}

fn query_of(query: &str) -> HashMap<String, String> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// A body of stamped bytes, made as it is sent.
#[derive(Debug)]
pub(super) struct Stamped {
    sent: u64,
    length: u64,
}

impl Stamped {
    /// `length` bytes.
    pub(super) fn new(length: u64) -> Self {
        Self { sent: 0, length }
    }
}

impl http_body::Body for Stamped {
    type Data = Bytes;
    type Error = web::BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, web::BodyError>>> {
        const CHUNK: u64 = 16 * 1024;
        if self.sent == self.length {
            return Poll::Ready(None);
        }
        let mut bytes = vec![0; CHUNK.min(self.length - self.sent) as usize];
        stamp::fill(stamp::HTTP_STREAM, self.sent, &mut bytes);
        self.sent += bytes.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(bytes)))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length - self.sent)
    }
}

/// Answers 101 and sends everything back that comes afterwards.
fn upgrade(request: Request<Incoming>) -> Response<web::Body> {
    tokio::spawn(async move {
        let Ok(upgraded) = hyper::upgrade::on(request).await else {
            return;
        };
        let (mut reader, mut writer) = tokio::io::split(TokioIo::new(upgraded));
        // An end in the middle is the client's affair.
        let _ = tokio::io::copy(&mut reader, &mut writer).await;
        let _ = writer.shutdown().await;
    });
    Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(CONNECTION, "upgrade")
        .header(UPGRADE, "echo")
        .body(web::full(Bytes::new()))
        .expect("invariant: constant headers make a response")
}
