//! What goes wrong with a request, and the one place that maps it to a status, a response flag and a text.

use std::{error::Error as _, io, net::SocketAddr};

use bytes::Bytes;
use http::StatusCode;

use crate::telemetry::ResponseFlags;

/// Why a request has no answer of its upstream.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Downstream: what it sent is not a request that can be passed on.
    #[error("bad request: {0}")]
    BadRequest(&'static str),
    /// Downstream: its body broke off; most likely it is gone.
    #[error("the request's body broke off")]
    Aborted,
    /// Internal: no route of the rule matches.
    #[error("no route matches")]
    NoRoute,
    /// Internal: the route names something that is not there.
    #[error("{0}")]
    NoCluster(String),
    /// Upstream: no endpoint is ready.
    #[error("no healthy upstream")]
    NoHealthyUpstream,
    /// Upstream: connect failed; nothing was sent.
    #[error("connect to {address}: {source}")]
    Connect {
        /// The endpoint.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// Upstream: reset or closed before its answer.
    #[error("upstream {address} closed the connection before it answered: {source}")]
    Reset {
        /// The endpoint.
        address: SocketAddr,
        /// What hyper saw.
        source: hyper::Error,
    },
    /// Upstream: refused the stream (HTTP/2 `REFUSED_STREAM`); nothing was processed.
    #[error("upstream {address} refused the stream")]
    Refused {
        /// The endpoint.
        address: SocketAddr,
    },
    /// Upstream: what it sent is not HTTP.
    #[error("upstream {address} broke the protocol: {source}")]
    Protocol {
        /// The endpoint.
        address: SocketAddr,
        /// What hyper saw.
        source: hyper::Error,
    },
    /// Upstream: one try took longer than perTryTimeout.
    #[error("upstream per-try timeout")]
    PerTryTimeout,
    /// Upstream: all tries together took longer than the route's timeout.
    #[error("upstream request timeout")]
    Timeout,
    /// Internal: the server's policies refuse the client.
    #[error("RBAC: access denied")]
    AccessDenied,
    /// Internal: a fault was asked for.
    #[error("fault filter abort")]
    FaultAbort(StatusCode),
}

impl Failure {
    /// Sorts what hyper reports about an upstream connection.
    pub fn from_hyper(address: SocketAddr, source: hyper::Error) -> Self {
        if source.is_user() {
            // The only thing of ours that can fail on a connection is the body that we pass on.
            return Self::Aborted;
        }
        if source.is_parse() {
            return Self::Protocol { address, source };
        }
        match h2_reason(&source) {
            Some(h2::Reason::REFUSED_STREAM) => Self::Refused { address },
            Some(
                h2::Reason::PROTOCOL_ERROR
                | h2::Reason::FRAME_SIZE_ERROR
                | h2::Reason::COMPRESSION_ERROR,
            ) => Self::Protocol { address, source },
            _ => Self::Reset { address, source },
        }
    }

    /// The status of the local reply.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) | Self::Aborted => StatusCode::BAD_REQUEST,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::AccessDenied => StatusCode::FORBIDDEN,
            Self::NoCluster(_)
            | Self::NoHealthyUpstream
            | Self::Connect { .. }
            | Self::Reset { .. }
            | Self::Refused { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Protocol { .. } => StatusCode::BAD_GATEWAY,
            Self::PerTryTimeout | Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
            Self::FaultAbort(status) => *status,
        }
    }

    /// The response flag that says why.
    pub fn flags(&self) -> ResponseFlags {
        match self {
            Self::BadRequest(_) => ResponseFlags::DPE,
            Self::Aborted => ResponseFlags::DC,
            Self::NoRoute => ResponseFlags::NR,
            Self::NoCluster(_) => ResponseFlags::NC,
            Self::NoHealthyUpstream => ResponseFlags::UH,
            Self::Connect { .. } => ResponseFlags::UF,
            Self::Reset { .. } => ResponseFlags::UC,
            Self::Refused { .. } => ResponseFlags::UR,
            Self::Protocol { .. } => ResponseFlags::UPE,
            Self::PerTryTimeout | Self::Timeout => ResponseFlags::UT,
            Self::FaultAbort(_) => ResponseFlags::FI,
            // Envoy has none for it either.
            Self::AccessDenied => ResponseFlags::NONE,
        }
    }

    /// The text of the local reply.
    pub fn body(&self) -> Bytes {
        match self {
            Self::NoRoute => Bytes::new(),
            Self::NoHealthyUpstream => Bytes::from_static(b"no healthy upstream"),
            Self::PerTryTimeout | Self::Timeout => Bytes::from_static(b"upstream request timeout"),
            Self::FaultAbort(_) => Bytes::from_static(b"fault filter abort"),
            other => Bytes::from(other.to_string()),
        }
    }

    /// The gRPC status that stands for an HTTP status of a local reply
    /// (grpc/doc/http-grpc-status-mapping.md).
    pub fn grpc_status(status: StatusCode) -> u16 {
        match status.as_u16() {
            400 => 13,
            401 => 16,
            403 => 7,
            404 => 12,
            429 | 502 | 503 | 504 => 14,
            _ => 2,
        }
    }
}

fn h2_reason(error: &hyper::Error) -> Option<h2::Reason> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            return error.reason();
        }
        cause = error.source();
    }
    None
}
