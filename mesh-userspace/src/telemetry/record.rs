//! One record per request and per connection, whatever happens: it is written when it is dropped.

use std::{
    fmt,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use super::{
    flags::ResponseFlags,
    series::{RequestProtocol, TcpSeries},
    worker::{HttpLabels, WorkerTelemetry},
};
use crate::{
    config::model::ObjectName,
    mesh::model::{HttpRoute, Service, Workload},
};

/// The service that a request or connection was for.
#[derive(Debug, Clone, Default)]
pub enum Target {
    /// Nothing was found for it.
    #[default]
    Unknown,
    /// Sent to the address that was dialled, which belongs to no service.
    Passthrough,
    /// A service.
    Service(Arc<Service>),
}

impl Target {
    /// Names a service, which mostly is the one that it names already.
    pub fn set(&mut self, service: &Arc<Service>) {
        if !matches!(self, Self::Service(named) if Arc::ptr_eq(named, service)) {
            *self = Self::Service(service.clone());
        }
    }

    /// `destination_service`, for people.
    pub fn host(&self) -> &str {
        match self {
            Self::Unknown => super::UNKNOWN,
            Self::Passthrough => "PassthroughCluster",
            Self::Service(service) => &service.host,
        }
    }
}

/// One request, from its head to the last byte of its response.
pub struct RequestRecord {
    worker: Rc<WorkerTelemetry>,
    started: Instant,
    /// The client.
    pub source: Arc<Workload>,
    /// The server's workload, once an endpoint was chosen.
    pub destination: Option<Arc<Workload>>,
    /// The service.
    pub target: Target,
    /// What decided.
    pub route: Option<Arc<HttpRoute>>,
    /// The endpoint of the last try.
    pub upstream: Option<SocketAddr>,
    /// `http` or `grpc`.
    pub protocol: RequestProtocol,
    /// The answer's status; 0 until there is one.
    pub code: u16,
    /// `grpc-status` of the answer's head or trailers.
    pub grpc_status: Option<u16>,
    /// Why it ended so.
    pub flags: ResponseFlags,
    /// Tries, the first included.
    pub attempts: u32,
    /// Head and body, as they were received from the client.
    pub request_bytes: u64,
    /// Head and body, as they were passed to the client.
    pub response_bytes: u64,
    /// The answer was passed on to its end. Unless it is set, the client is taken to have left early.
    pub complete: bool,
    line: Option<Box<RequestLine>>,
}

/// What only the access log needs.
#[derive(Debug, Clone)]
pub struct RequestLine {
    /// `GET`.
    pub method: http::Method,
    /// Path and query as the client sent them.
    pub path: String,
    /// `HTTP/1.1`.
    pub version: http::Version,
    /// Host.
    pub authority: String,
}

impl RequestRecord {
    /// Starts the clock. `line` is called only where an access log is written.
    pub fn start(
        worker: Rc<WorkerTelemetry>,
        source: Arc<Workload>,
        line: impl FnOnce() -> RequestLine,
    ) -> Self {
        let line = worker.access_log().map(|_| Box::new(line()));
        Self {
            worker,
            started: Instant::now(),
            source,
            destination: None,
            target: Target::Unknown,
            route: None,
            upstream: None,
            protocol: RequestProtocol::Http,
            code: 0,
            grpc_status: None,
            flags: ResponseFlags::NONE,
            attempts: 0,
            request_bytes: 0,
            response_bytes: 0,
            complete: false,
            line,
        }
    }

    /// Adds a flag.
    pub fn flag(&mut self, flag: ResponseFlags) {
        self.flags = self.flags.with(flag);
    }
}

impl fmt::Debug for RequestRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestRecord")
            .field("code", &self.code)
            .field("flags", &self.flags)
            .finish_non_exhaustive()
    }
}

impl Drop for RequestRecord {
    fn drop(&mut self) {
        if !self.complete && !self.flags.intersects(ResponseFlags::CUT_BY_UPSTREAM) {
            self.flag(ResponseFlags::DC);
        }
        let duration = self.started.elapsed();
        let labels = HttpLabels {
            source: &self.source,
            destination: self.destination.as_ref(),
            target: &self.target,
            protocol: self.protocol,
            code: self.code,
            grpc_status: self.grpc_status,
            flags: self.flags,
        };
        self.worker.with_http(&labels, |series| {
            series.observe(duration, self.request_bytes, self.response_bytes);
        });
        let (Some(log), Some(line)) = (self.worker.access_log(), &self.line) else {
            return;
        };
        log.log(&Entry {
            started_at: SystemTime::now() - duration,
            duration,
            source: &self.source.name,
            destination: self.target.host(),
            upstream: self.upstream,
            route: self.route.as_deref().map(route_name),
            code: self.code,
            flags: self.flags,
            received: self.request_bytes,
            sent: self.response_bytes,
            attempts: self.attempts,
            request: Some(EntryRequest {
                method: line.method.as_str(),
                path: &line.path,
                protocol: version_name(line.version),
                authority: &line.authority,
            }),
        });
    }
}

fn route_name(route: &HttpRoute) -> String {
    match (&route.name, route.index) {
        (Some(name), _) => name.clone(),
        (None, Some(index)) => index.to_string(),
        (None, None) => "default".into(),
    }
}

fn version_name(version: http::Version) -> &'static str {
    match version {
        http::Version::HTTP_10 => "HTTP/1.0",
        http::Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}

/// One TCP connection. Its bytes are counted as they flow, its end when it is dropped.
pub struct ConnectionRecord {
    worker: Rc<WorkerTelemetry>,
    started: Instant,
    source: Arc<Workload>,
    target: Target,
    upstream: Option<SocketAddr>,
    series: Arc<TcpSeries>,
    flags: ResponseFlags,
    sent: u64,
    received: u64,
}

impl ConnectionRecord {
    /// Counts the connection as opened.
    pub fn open(
        worker: Rc<WorkerTelemetry>,
        source: Arc<Workload>,
        destination: Option<&Arc<Workload>>,
        target: Target,
        upstream: Option<SocketAddr>,
        flags: ResponseFlags,
    ) -> Self {
        let series = worker.tcp(&source, destination, &target, flags);
        series.opened.add(1);
        Self {
            worker,
            started: Instant::now(),
            source,
            target,
            upstream,
            series,
            flags,
            sent: 0,
            received: 0,
        }
    }

    /// Bytes that were passed to the client.
    pub fn sent(&mut self, bytes: u64) {
        self.sent += bytes;
        self.series.sent.add(bytes);
    }

    /// Bytes that came from the client.
    pub fn received(&mut self, bytes: u64) {
        self.received += bytes;
        self.series.received.add(bytes);
    }
}

impl Drop for ConnectionRecord {
    fn drop(&mut self) {
        self.series.closed.add(1);
        let Some(log) = self.worker.access_log() else {
            return;
        };
        let duration = self.started.elapsed();
        log.log(&Entry {
            started_at: SystemTime::now() - duration,
            duration,
            source: &self.source.name,
            destination: self.target.host(),
            upstream: self.upstream,
            route: None,
            code: 0,
            flags: self.flags,
            received: self.received,
            sent: self.sent,
            attempts: 1,
            request: None,
        });
    }
}

/// What a line of the access log is made from.
pub struct Entry<'a> {
    /// When the request's head or the connection arrived.
    pub started_at: SystemTime,
    /// Until its last byte.
    pub duration: Duration,
    /// The client's pod.
    pub source: &'a ObjectName,
    /// The service's host.
    pub destination: &'a str,
    /// The endpoint.
    pub upstream: Option<SocketAddr>,
    /// The route's name or place.
    pub route: Option<String>,
    /// Status, 0 for none.
    pub code: u16,
    /// Why it ended so.
    pub flags: ResponseFlags,
    /// Bytes from the client.
    pub received: u64,
    /// Bytes to the client.
    pub sent: u64,
    /// Tries.
    pub attempts: u32,
    /// Absent for TCP.
    pub request: Option<EntryRequest<'a>>,
}

/// The request's part of an [`Entry`].
pub struct EntryRequest<'a> {
    /// `GET`.
    pub method: &'a str,
    /// Path and query.
    pub path: &'a str,
    /// `HTTP/1.1`.
    pub protocol: &'a str,
    /// Host.
    pub authority: &'a str,
}
