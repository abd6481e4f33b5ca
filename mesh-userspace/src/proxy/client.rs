//! A client's connection, from the accept to its end.

use std::{
    cell::RefCell,
    convert::Infallible,
    future::poll_fn,
    net::SocketAddr,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::Poll,
};

use hyper::{
    server::conn::{http1, http2},
    service::service_fn,
};
use tokio::net::TcpStream;

use super::{
    detect::{Spoken, detect},
    pump::{Flow, Stream, pump},
    request,
    response_body::{Busy, BusyCount},
    runtime::{LocalExecutor, WorkerTimer},
    socket::Socket,
    tcp,
    upstream::{Http1Connection, InFlight},
    watch::Watch,
    worker::{Pod, Worker},
};
use crate::{
    mesh::model::{Protocol, Snapshot, Workload},
    telemetry::{RequestLine, RequestRecord, ResponseFlags},
};

/// The most that is read ahead of an HTTP/1.1 client, and its largest head.
const HTTP1_BUFFER: usize = 128 * 1024;

/// HTTP/2 limits against a client that asks for too much at once (Envoy's defaults where it has them).
const HTTP2_STREAMS: u32 = 1024;
const HTTP2_HEADER_LIST: u32 = 64 * 1024;
const HTTP2_PENDING_RESETS: usize = 50;

/// A client's connection and what its requests need.
pub struct Client {
    /// Whose thread this is.
    pub worker: Rc<Worker>,
    /// Whose client it is.
    pub pod: Rc<Pod>,
    /// Where it wanted to go.
    pub dialled: SocketAddr,
    /// Requests under way.
    pub busy: BusyCount,
    /// The pod's workload in the snapshot that was seen last.
    source: RefCell<(u64, Arc<Workload>)>,
    /// Set by a request whose upstream switched protocols, taken when the client's side is flushed.
    pub upgrade: RefCell<Option<Upgrade>>,
}

/// An exchange that goes on as a stream of bytes.
pub struct Upgrade {
    /// The upstream's side.
    pub upstream: UpgradeUpstream,
    /// Ends with the stream.
    pub record: Box<RequestRecord>,
    /// Counts it as under way.
    pub busy: Busy,
}

/// The upstream's side of an [`Upgrade`].
pub enum UpgradeUpstream {
    /// All of an HTTP/1.1 connection.
    Http1(Box<Http1Connection>, InFlight),
    /// A stream of an HTTP/2 connection.
    Http2(hyper::upgrade::OnUpgrade, InFlight),
}

impl Client {
    /// The client's workload as the current snapshot, which the worker just gave out, has it.
    pub fn source(&self, snapshot: &Snapshot) -> Arc<Workload> {
        let generation = self.worker.generation();
        let mut source = self.source.borrow_mut();
        if source.0 != generation {
            *source = (generation, self.pod.workload(snapshot));
        }
        source.1.clone()
    }
}

/// Runs an accepted connection to its end.
pub async fn serve(
    worker: Rc<Worker>,
    pod: Rc<Pod>,
    stream: TcpStream,
    peer: SocketAddr,
    watch: Rc<Watch>,
) {
    let dialled = match worker.interception.original_destination(&pod.sockets, peer) {
        Ok(Some(dialled)) => dialled,
        Ok(None) => {
            tracing::debug!(pod = %pod.name, %peer, "a connection that was not intercepted is closed");
            return;
        }
        Err(error) => {
            tracing::warn!(pod = %pod.name, %peer, %error, "original destination unknown, connection closed");
            return;
        }
    };
    let socket = Socket::new(stream);
    watch.observe(socket.traffic().clone());
    let snapshot = worker.snapshot();
    let source = (worker.generation(), pod.workload(&snapshot));
    drop(snapshot);
    let client = Rc::new(Client {
        worker,
        pod,
        dialled,
        busy: watch.busy().clone(),
        source: RefCell::new(source),
        upgrade: RefCell::default(),
    });
    let mut run = pin!(run(&client, socket, &watch));
    poll_fn(|cx| {
        if watch.poll_gone(cx) {
            return Poll::Ready(());
        }
        run.as_mut().poll(cx)
    })
    .await;
}

async fn run(client: &Rc<Client>, mut socket: Socket, watch: &Watch) {
    let declared = declared_protocol(client);
    let patience = client.worker.settings.detection_timeout;
    let spoken = detect(&mut socket, declared, client.dialled.port(), patience).await;
    watch.start(matches!(spoken, Ok(Spoken::Http1 | Spoken::Http2)));
    match spoken {
        // The client was gone before it said anything.
        Err(_) => {}
        Ok(Spoken::Tcp) => tcp::serve(client, socket).await,
        Ok(Spoken::Http1) => {
            serve_http1(client, socket, watch).await;
        }
        Ok(Spoken::Http2) => {
            serve_http2(client, socket, watch).await;
        }
    }
}

fn declared_protocol(client: &Client) -> Protocol {
    let snapshot = client.worker.snapshot();
    let frontend = snapshot.frontends.get(&client.dialled);
    frontend.map_or(Protocol::Auto, |frontend| frontend.service_port().protocol)
}

async fn serve_http1(client: &Rc<Client>, socket: Socket, watch: &Watch) {
    let service = service_fn(|request| request::handle(client.clone(), request));
    let mut connection = http1::Builder::new()
        .preserve_header_case(client.worker.settings.preserve_header_case)
        .max_buf_size(HTTP1_BUFFER)
        .header_read_timeout(None)
        .serve_connection(socket, service);
    let mut told = false;
    let ended = poll_fn(|cx| {
        loop {
            if watch.is_closing() && !told {
                told = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
            let polled = Pin::new(&mut connection).poll(cx);
            // Only while a request is under way: its answer tells the client. Without one, this would close
            // the connection under a request that is on its way.
            if polled.is_pending() && watch.is_leaving() && !told && watch.busy().get() > 0 {
                told = true;
                Pin::new(&mut connection).graceful_shutdown();
                continue;
            }
            return polled;
        }
    })
    .await;
    match ended {
        Ok(()) => {
            let Some(upgrade) = client.upgrade.take() else {
                return;
            };
            let parts = connection.into_parts();
            let mut socket = parts.io;
            socket.unread(parts.read_buf);
            splice(socket, upgrade).await;
        }
        Err(error) if error.is_parse() => record_bad_request(client),
        Err(_) => {}
    }
}

/// hyper answered it; the service never saw it.
#[cold]
fn record_bad_request(client: &Client) {
    let telemetry = client.worker.telemetry.clone();
    let source = client.source(&client.worker.snapshot());
    let mut record = RequestRecord::start(telemetry, source, || RequestLine {
        method: http::Method::default(),
        path: "-".into(),
        version: http::Version::HTTP_11,
        authority: "-".into(),
    });
    record.code = 400;
    record.flag(ResponseFlags::DPE);
    record.complete = true;
}

async fn serve_http2(client: &Rc<Client>, socket: Socket, watch: &Watch) {
    let owned = client.clone();
    let service = service_fn(move |request| request::handle(owned.clone(), request));
    let mut connection = pin!(
        http2::Builder::new(LocalExecutor)
            .timer(WorkerTimer)
            .adaptive_window(true)
            .max_concurrent_streams(HTTP2_STREAMS)
            .max_header_list_size(HTTP2_HEADER_LIST)
            .max_pending_accept_reset_streams(HTTP2_PENDING_RESETS)
            .serve_connection(socket, service)
    );
    let mut told = false;
    // Its streams have records of their own.
    let _ = poll_fn(|cx| {
        // GOAWAY leaves room for what is on its way.
        if (watch.is_closing() || watch.is_leaving()) && !told {
            told = true;
            connection.as_mut().graceful_shutdown();
        }
        connection.as_mut().poll(cx)
    })
    .await;
}

/// Bytes both ways after a protocol switch.
pub async fn splice(mut downstream: impl Stream, upgrade: Upgrade) {
    let Upgrade {
        upstream,
        mut record,
        busy,
    } = upgrade;
    let _busy = busy;
    let record = &mut record;
    let ended = match upstream {
        UpgradeUpstream::Http1(connection, in_flight) => {
            let _in_flight = in_flight;
            match connection.into_upgraded().await {
                Ok(mut upstream) => run_splice(&mut downstream, &mut upstream, record).await,
                Err(_) => false,
            }
        }
        UpgradeUpstream::Http2(upgraded, in_flight) => {
            let _in_flight = in_flight;
            match upgraded.await {
                Ok(mut upstream) => run_splice(&mut downstream, &mut upstream, record).await,
                Err(_) => false,
            }
        }
    };
    record.complete = true;
    if !ended {
        record.flag(ResponseFlags::UC);
    }
}

async fn run_splice(
    downstream: &mut impl Stream,
    upstream: &mut impl Stream,
    record: &mut RequestRecord,
) -> bool {
    pump(downstream, upstream, |flow, bytes| match flow {
        Flow::Received => record.request_bytes += bytes,
        Flow::Sent => record.response_bytes += bytes,
    })
    .await
    .is_ok()
}

/// What hyper's service returns: a failure is an answer too.
pub type Served<B> = Result<http::Response<B>, Infallible>;
