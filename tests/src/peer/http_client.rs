//! `lab-peer http`: sends requests and prints what came back.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use clap::Args;
use http::{HeaderMap, HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::{echo, stamp};
use crate::http as web;
use crate::poll;

#[derive(Clone, Debug, Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "they are flags of a command line"
)]
pub(super) struct Arguments {
    /// What to ask for
    url: Uri,
    /// How many requests
    #[arg(short = 'n', long, default_value_t = 1)]
    requests: u64,
    /// How many at a time, each over a connection of its own
    #[arg(short = 'c', long, default_value_t = 1)]
    concurrency: u64,
    /// The method
    #[arg(short = 'X', long, default_value = "GET")]
    method: http::Method,
    /// `name: value`; in a value, `{n}` is the request's number
    #[arg(short = 'H', long = "header")]
    headers: Vec<String>,
    /// The body
    #[arg(long, default_value = "")]
    body: String,
    /// A body of so many stamped bytes instead
    #[arg(long)]
    body_bytes: Option<u64>,
    /// Trailers after the body, `name: value`
    #[arg(long = "trailer")]
    trailers: Vec<String>,
    /// HTTP/2 by prior knowledge
    #[arg(long)]
    http2: bool,
    /// A connection per request
    #[arg(long)]
    reconnect: bool,
    /// How long a request may take, in milliseconds
    #[arg(long, default_value_t = 20_000)]
    timeout_ms: u64,
    /// Go on until standard input ends, printing one line of JSON per answer
    #[arg(long)]
    until_eof: bool,
    /// Print of each answer only what tells right from wrong
    #[arg(long)]
    brief: bool,
}

enum Sender {
    Http1(http1::SendRequest<web::Body>),
    Http2(http2::SendRequest<web::Body>),
}

struct Connection {
    sender: Sender,
    local: String,
    peer: String,
}

pub(super) async fn run(arguments: Arguments) -> Result<()> {
    ensure!(
        arguments.concurrency > 0,
        "a concurrency of 0 asks for nothing"
    );
    let arguments = Arc::new(arguments);
    let next = Arc::new(AtomicU64::new(0));
    let over = Arc::new(AtomicU64::new(if arguments.until_eof {
        u64::MAX
    } else {
        arguments.requests
    }));
    if arguments.until_eof {
        stop_at_eof(Arc::clone(&over));
    }
    let started = Instant::now();
    let workers: Vec<_> = (0..arguments.concurrency)
        .map(|_| {
            tokio::spawn(work(
                Arc::clone(&arguments),
                Arc::clone(&next),
                Arc::clone(&over),
            ))
        })
        .collect();
    let mut responses = Vec::new();
    for worker in workers {
        responses.extend(worker.await?);
    }
    if !arguments.until_eof {
        responses.sort_by_key(|response| response["n"].as_u64());
        let seconds = started.elapsed().as_secs_f64();
        println!("{}", json!({"seconds": seconds, "responses": responses}));
    }
    Ok(())
}

fn stop_at_eof(over: Arc<AtomicU64>) {
    std::thread::spawn(move || {
        // Whatever ends the input ends the requests.
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        over.store(0, Ordering::SeqCst);
    });
}

async fn work(arguments: Arc<Arguments>, next: Arc<AtomicU64>, over: Arc<AtomicU64>) -> Vec<Value> {
    let mut responses = Vec::new();
    let mut connection = None;
    loop {
        let number = next.fetch_add(1, Ordering::SeqCst);
        if number >= over.load(Ordering::SeqCst) {
            return responses;
        }
        let started = Instant::now();
        let timeout = poll::patient(Duration::from_millis(arguments.timeout_ms));
        let exchange = exchange(&arguments, number, &mut connection);
        let mut response = match tokio::time::timeout(timeout, exchange).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => json!({"error": format!("{error:#}")}),
            Err(_) => json!({"error": format!("no answer within {timeout:?}")}),
        };
        if response.get("error").is_some() || arguments.reconnect {
            connection = None;
        }
        if arguments.brief {
            response = brief(&response);
        }
        response["n"] = json!(number);
        response["ms"] = json!(started.elapsed().as_secs_f64() * 1e3);
        if arguments.until_eof {
            let mut out = std::io::stdout().lock();
            if writeln!(out, "{response}").is_err() {
                return responses;
            }
        } else {
            responses.push(response);
        }
    }
}

fn brief(response: &Value) -> Value {
    let kept = ["status", "error", "stampedTo"];
    let mut brief: Value = kept
        .iter()
        .filter_map(|&name| Some((name.to_owned(), response.get(name)?.clone())))
        .collect();
    if let Some(server) = response["body"].get("server") {
        brief["body"] = json!({"server": server});
    }
    brief
}

async fn exchange(
    arguments: &Arguments,
    number: u64,
    connection: &mut Option<Connection>,
) -> Result<Value> {
    if connection
        .as_ref()
        .is_some_and(|open| open.sender.is_closed())
    {
        *connection = None;
    }
    // The server may have said that its last answer was the last: nothing is lost, as nothing was sent.
    if let Some(Connection {
        sender: Sender::Http1(sender),
        ..
    }) = connection
        && sender.ready().await.is_err()
    {
        *connection = None;
    }
    let connection = match connection {
        Some(connection) => connection,
        None => connection.insert(connect(arguments).await?),
    };
    let request = request(arguments, number)?;
    let response = match &mut connection.sender {
        Sender::Http1(sender) => {
            sender.ready().await.context("wait for the connection")?;
            sender.send_request(request).await
        }
        Sender::Http2(sender) => sender.send_request(request).await,
    };
    let mut report = report(response.context("send a request")?).await?;
    report["local"] = json!(connection.local);
    report["peer"] = json!(connection.peer);
    Ok(report)
}

async fn connect(arguments: &Arguments) -> Result<Connection> {
    let host = arguments.url.host().context("the URL has no host")?;
    let port = arguments.url.port_u16().unwrap_or(80);
    let stream = TcpStream::connect((host, port))
        .await
        .with_context(|| format!("connect to {host}:{port}"))?;
    stream.set_nodelay(true)?;
    let local = stream.local_addr()?.to_string();
    let peer = stream.peer_addr()?.to_string();
    let io = TokioIo::new(stream);
    let sender = if arguments.http2 {
        let (sender, driver) = http2::handshake(TokioExecutor::new(), io).await?;
        tokio::spawn(driver);
        Sender::Http2(sender)
    } else {
        let (sender, driver) = http1::handshake(io).await?;
        tokio::spawn(driver.with_upgrades());
        Sender::Http1(sender)
    };
    Ok(Connection {
        sender,
        local,
        peer,
    })
}

impl Sender {
    fn is_closed(&self) -> bool {
        match self {
            Self::Http1(sender) => sender.is_closed(),
            Self::Http2(sender) => sender.is_closed(),
        }
    }
}

fn request(arguments: &Arguments, number: u64) -> Result<Request<web::Body>> {
    let number = number.to_string();
    let authority = arguments.url.authority().context("the URL has no host")?;
    let mut builder = Request::builder().method(&arguments.method);
    let headers = fields(&arguments.headers, &number)?;
    builder = if arguments.http2 {
        builder.uri(&arguments.url)
    } else {
        let path = arguments
            .url
            .path_and_query()
            .map_or("/", |path| path.as_str());
        let builder = builder.uri(path);
        if headers.contains_key(http::header::HOST) {
            builder
        } else {
            builder.header(http::header::HOST, authority.as_str())
        }
    };
    for (name, value) in &headers {
        builder = builder.header(name, value);
    }
    let body = match arguments.body_bytes {
        Some(length) => echo::Stamped::new(length).boxed_unsync(),
        None => Full::new(Bytes::from(arguments.body.clone()))
            .map_err(|never| match never {})
            .boxed_unsync(),
    };
    let body = if arguments.trailers.is_empty() {
        body
    } else {
        let trailers = fields(&arguments.trailers, &number)?;
        let names: Vec<_> = trailers.keys().map(http::HeaderName::as_str).collect();
        builder = builder.header(http::header::TRAILER, names.join(", "));
        if !arguments.http2 {
            builder = builder.header(http::header::TRANSFER_ENCODING, "chunked");
        }
        body.with_trailers(async move { Some(Ok(trailers)) })
            .boxed_unsync()
    };
    builder.body(body).context("make a request")
}

fn fields(lines: &[String], number: &str) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line
            .split_once(':')
            .with_context(|| format!("not `name: value`: {line}"))?;
        headers.append(
            http::HeaderName::try_from(name.trim())?,
            HeaderValue::try_from(value.trim().replace("{n}", number))?,
        );
    }
    Ok(headers)
}

async fn report(response: Response<Incoming>) -> Result<Value> {
    let (head, body) = response.into_parts();
    let body = body.collect().await.context("read the answer")?;
    let trailers: Vec<_> = body
        .trailers()
        .into_iter()
        .flatten()
        .map(echo::pair)
        .collect();
    let bytes = body.to_bytes();
    let headers: Vec<_> = head.headers.iter().map(echo::pair).collect();
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(8192)]);
    Ok(json!({
        "status": head.status.as_u16(), "version": format!("{:?}", head.version),
        "headers": headers, "trailers": trailers, "length": bytes.len(),
        "stampedTo": stamp::matches_until(stamp::HTTP_STREAM, &bytes),
        "body": serde_json::from_slice(&bytes).unwrap_or_else(|_| json!(text)),
    }))
}
