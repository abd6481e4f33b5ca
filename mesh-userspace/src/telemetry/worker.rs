//! A worker's own counters, found without locks, strings or allocation on the path of a request.
//!
//! Two steps: objects' addresses to a series (a small map that only this worker touches and that keeps the
//! objects alive, so that an address can't come to mean another object), and, on a miss, labels to a
//! series (behind a lock that otherwise only a scrape takes).

use std::{
    cell::RefCell,
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    access_log::AccessLog,
    flags::ResponseFlags,
    hash::FastMap,
    record::Target,
    series::{HttpKey, HttpSeries, Peers, RequestProtocol, ServiceLabels, TcpKey, TcpSeries},
};
use crate::mesh::model::{Workload, WorkloadLabels};

/// Entries of the address cache before it is emptied: old snapshots must not live on in it.
const CACHED: usize = 4096;

/// Series of one worker, as a scrape sees them.
#[derive(Debug, Default)]
pub struct Shard {
    pub(super) http: Mutex<HashMap<HttpKey, Arc<HttpSeries>>>,
    pub(super) tcp: Mutex<HashMap<TcpKey, Arc<TcpSeries>>>,
}

/// One worker's handle.
#[derive(Debug)]
pub struct WorkerTelemetry {
    shard: Arc<Shard>,
    http: RefCell<FastMap<AddressKey, CachedHttp>>,
    access_log: Option<AccessLog>,
    /// Series of each kind before what is new joins the overflow series.
    series_limit: usize,
}

/// What identifies an HTTP series, by reference.
#[derive(Debug)]
pub struct HttpLabels<'a> {
    /// The client.
    pub source: &'a Arc<Workload>,
    /// The server, where one was chosen.
    pub destination: Option<&'a Arc<Workload>>,
    /// The service.
    pub target: &'a Target,
    /// `request_protocol`.
    pub protocol: RequestProtocol,
    /// `response_code`.
    pub code: u16,
    /// `grpc_response_status`.
    pub grpc_status: Option<u16>,
    /// `response_flags`.
    pub flags: ResponseFlags,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct AddressKey {
    source: usize,
    destination: usize,
    /// 0 unknown, 1 passthrough, else the service's address.
    target: usize,
    code: u16,
    /// One above the status; 0 for none.
    grpc_status: u16,
    flags: ResponseFlags,
    protocol: RequestProtocol,
}

#[derive(Debug)]
struct CachedHttp {
    series: Arc<HttpSeries>,
    /// Keeps the addresses of the key taken.
    _objects: (Arc<Workload>, Option<Arc<Workload>>, Target),
}

impl WorkerTelemetry {
    pub(super) fn new(
        shard: Arc<Shard>,
        access_log: Option<AccessLog>,
        series_limit: usize,
    ) -> Self {
        Self {
            shard,
            http: RefCell::default(),
            access_log,
            series_limit,
        }
    }

    /// Where lines go, if anywhere.
    pub fn access_log(&self) -> Option<&AccessLog> {
        self.access_log.as_ref()
    }

    /// Lets go of objects of an older snapshot. Counters are kept.
    pub fn forget_objects(&self) {
        self.http.borrow_mut().clear();
    }

    /// Calls `observe` with the series of these labels.
    pub fn with_http(&self, labels: &HttpLabels<'_>, observe: impl FnOnce(&HttpSeries)) {
        let key = AddressKey {
            source: Arc::as_ptr(labels.source).addr(),
            destination: labels.destination.map_or(0, |d| Arc::as_ptr(d).addr()),
            target: match labels.target {
                Target::Unknown => 0,
                Target::Passthrough => 1,
                Target::Service(service) => Arc::as_ptr(service).addr(),
            },
            code: labels.code,
            grpc_status: labels.grpc_status.map_or(0, |status| status + 1),
            flags: labels.flags,
            protocol: labels.protocol,
        };
        let mut cache = self.http.borrow_mut();
        if let Some(cached) = cache.get(&key) {
            return observe(&cached.series);
        }
        if cache.len() >= CACHED {
            cache.clear();
        }
        let series = self.http_by_labels(labels);
        observe(&series);
        cache.insert(
            key,
            CachedHttp {
                series,
                _objects: (
                    labels.source.clone(),
                    labels.destination.cloned(),
                    labels.target.clone(),
                ),
            },
        );
    }

    #[cold]
    fn http_by_labels(&self, labels: &HttpLabels<'_>) -> Arc<HttpSeries> {
        let key = HttpKey {
            peers: peers(labels.source, labels.destination, labels.target),
            protocol: labels.protocol,
            code: labels.code,
            grpc_status: labels.grpc_status,
            flags: labels.flags,
        };
        self.series(&self.shard.http, key, |key| HttpKey {
            peers: overflow_peers(),
            ..key
        })
    }

    /// The series of a TCP connection.
    pub fn tcp(
        &self,
        source: &Workload,
        destination: Option<&Arc<Workload>>,
        target: &Target,
        flags: ResponseFlags,
    ) -> Arc<TcpSeries> {
        let key = TcpKey {
            peers: peers(source, destination, target),
            flags,
        };
        self.series(&self.shard.tcp, key, |key| TcpKey {
            peers: overflow_peers(),
            ..key
        })
    }

    fn series<K: Eq + Hash, S: Default>(
        &self,
        map: &Mutex<HashMap<K, Arc<S>>>,
        key: K,
        overflow: impl FnOnce(K) -> K,
    ) -> Arc<S> {
        let mut map = lock(map);
        if let Some(series) = map.get(&key) {
            return series.clone();
        }
        let key = if map.len() < self.series_limit {
            key
        } else {
            overflow(key)
        };
        map.entry(key).or_default().clone()
    }
}

/// Metrics stay readable even where a thread panicked with the lock: counters have no invariant to break.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn peers(source: &Workload, destination: Option<&Arc<Workload>>, target: &Target) -> Peers {
    Peers {
        source: source.telemetry.clone(),
        destination: destination.map_or_else(
            || super::same_labels(super::UNKNOWN),
            |workload| workload.telemetry.clone(),
        ),
        service: match target {
            Target::Unknown => ServiceLabels::unknown(),
            Target::Passthrough => ServiceLabels::passthrough(),
            Target::Service(service) => ServiceLabels::of(service),
        },
    }
}

fn overflow_peers() -> Peers {
    let overflow: Arc<str> = super::OVERFLOW.into();
    let labels: WorkloadLabels = super::same_labels(super::OVERFLOW);
    Peers {
        source: labels.clone(),
        destination: labels,
        service: ServiceLabels {
            host: overflow.clone(),
            name: overflow.clone(),
            namespace: overflow,
        },
    }
}
