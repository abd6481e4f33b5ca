//! The question: who asks, what is dialled, what the request says.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use serde::{Deserialize, Serialize};

use crate::{
    config::model::ObjectName,
    mesh::{
        model::{Snapshot, Workload},
        names,
        route::{self, HttpDecision, RequestFacts},
    },
};

/// What `meshctl explain` asks; the body of `POST /explain`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplainQuery {
    /// `namespace/pod`.
    pub from: String,
    /// `namespace/name` of a Gateway that the request arrives at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// `GET` unless it says otherwise.
    #[serde(default = "get")]
    pub method: String,
    /// `http://`, `https://` or `tcp://`.
    pub url: String,
    /// Name and value; `Host` sets the authority.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
}

fn get() -> String {
    "GET".to_owned()
}

/// A question that has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExplainError {
    /// `from` is not `namespace/pod`.
    #[error("--from {0:?} is not NAMESPACE/POD")]
    From(String),
    /// There is no such pod.
    #[error("no Pod {pod} in the configuration{hint}")]
    UnknownPod {
        /// `namespace/pod`.
        pod: String,
        /// Pods that there are.
        hint: String,
    },
    /// The URL does not parse, or lacks what is needed.
    #[error("URL {url:?}: {reason}")]
    Url {
        /// As asked.
        url: String,
        /// What is wrong and how it should be.
        reason: String,
    },
    /// The method is no token.
    #[error("method {0:?} is not an HTTP method")]
    Method(String),
    /// A header's name or value is not valid.
    #[error("header {name:?}: {reason}")]
    Header {
        /// As asked.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// Requests at gateways are not handled by this version.
    #[error(
        "gateway {0:?}: this version handles no Gateways; ask with the client pod in --from alone"
    )]
    Gateway(String),
}

/// A query that was understood.
pub struct Question<'s> {
    /// The client.
    pub source: &'s Workload,
    /// The URL's host: no port, lower case.
    pub host: String,
    /// What the client connects to; of an unknown host the unspecified address.
    pub dialled: SocketAddr,
    /// An HTTP request; else bytes.
    pub http: bool,
    method: Method,
    uri: Uri,
    authority: String,
    headers: HeaderMap,
}

impl<'s> Question<'s> {
    /// Understands a query in the terms of a snapshot.
    pub fn parse(snapshot: &'s Snapshot, query: &ExplainQuery) -> Result<Self, ExplainError> {
        if let Some(gateway) = &query.gateway {
            return Err(ExplainError::Gateway(gateway.clone()));
        }
        let source = workload(snapshot, &query.from)?;
        let wrong = |reason: &str| ExplainError::Url {
            url: query.url.clone(),
            reason: reason.to_owned(),
        };
        if !query.url.contains("://") {
            return Err(wrong(
                "no scheme; write http://HOST:PORT/PATH, https://HOST:PORT or tcp://HOST:PORT",
            ));
        }
        let uri: Uri = query
            .url
            .parse()
            .map_err(|error| wrong(&format!("{error}")))?;
        let default_port = match uri.scheme_str() {
            Some("http") => Some(80),
            Some("https") => Some(443),
            Some("tcp") => None,
            _ => return Err(wrong("the scheme must be http, https or tcp")),
        };
        let host = uri
            .host()
            .filter(|host| !host.is_empty())
            .map(|host| names::host_of_authority(host).into_owned())
            .ok_or_else(|| wrong("no host"))?;
        // `Uri::port_u16` says None to a port that is none, too.
        let written = uri
            .authority()
            .and_then(|all| names::split_port(all.as_str()).1);
        let port = match written.filter(|port| !port.is_empty()) {
            Some(port) => port
                .parse()
                .ok()
                .filter(|port| *port != 0)
                .ok_or_else(|| wrong("the port must be a number from 1 to 65535"))?,
            None => default_port.ok_or_else(|| wrong("no port; write tcp://HOST:PORT"))?,
        };
        let (headers, authority) = headers(&query.headers)?;
        Ok(Self {
            source,
            dialled: SocketAddr::new(address(snapshot, source, &host), port),
            http: uri.scheme_str() == Some("http"),
            method: Method::from_bytes(query.method.as_bytes())
                .map_err(|_| ExplainError::Method(query.method.clone()))?,
            authority: authority.unwrap_or_else(|| own_authority(&uri, default_port)),
            host,
            uri,
            headers,
        })
    }

    /// The request as the proxy would see it.
    pub fn facts(&self) -> RequestFacts<'_> {
        RequestFacts {
            source: self.source,
            dialled: self.dialled,
            scheme: "http",
            method: &self.method,
            uri: &self.uri,
            authority: &self.authority,
            headers: &self.headers,
        }
    }

    /// What the proxy would do.
    pub fn decide(&self, snapshot: &'s Snapshot) -> HttpDecision<'s> {
        route::route_http(snapshot, &self.facts())
    }
}

fn workload<'s>(snapshot: &'s Snapshot, from: &str) -> Result<&'s Workload, ExplainError> {
    let (namespace, pod) = from
        .split_once('/')
        .filter(|(namespace, pod)| !namespace.is_empty() && !pod.is_empty())
        .ok_or_else(|| ExplainError::From(from.to_owned()))?;
    let name = ObjectName::new(namespace, pod);
    let found = snapshot.workloads.get(&name).map(AsRef::as_ref);
    found.ok_or_else(|| {
        let others: Vec<&str> = snapshot
            .workloads
            .keys()
            .filter(|name| &*name.namespace == namespace)
            .map(|name| name.name.as_ref())
            .collect();
        ExplainError::UnknownPod {
            pod: from.to_owned(),
            hint: if others.is_empty() {
                format!("; namespace {namespace} has no pods")
            } else {
                format!("; {namespace} has {}", others.join(", "))
            },
        }
    })
}

/// What a look-up of the host gives the client: the cluster IP, a headless service's first pod, or the
/// address that is written.
fn address(snapshot: &Snapshot, source: &Workload, host: &str) -> IpAddr {
    if let Ok(address) = host.parse::<IpAddr>() {
        return address.to_canonical();
    }
    let service = snapshot
        .virtual_host(&source.name.namespace, host)
        .and_then(|virtual_host| virtual_host.service.as_ref());
    let pod = || {
        let ports = service.into_iter().flat_map(|service| &service.ports);
        ports
            .flat_map(|port| port.endpoints.iter())
            .find(|endpoint| endpoint.ready)
            .map(|endpoint| endpoint.address.ip())
    };
    service
        .and_then(|service| service.addresses.first().copied())
        .or_else(pod)
        .unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
}

fn headers(written: &[(String, String)]) -> Result<(HeaderMap, Option<String>), ExplainError> {
    let mut headers = HeaderMap::new();
    let mut authority = None;
    for (name, value) in written {
        if name.eq_ignore_ascii_case("host") || name == ":authority" {
            authority = Some(value.clone());
            continue;
        }
        let wrong = |reason: &str| ExplainError::Header {
            name: name.clone(),
            reason: reason.to_owned(),
        };
        headers.append(
            HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong("not a header name"))?,
            HeaderValue::from_str(value).map_err(|_| wrong("its value is not valid"))?,
        );
    }
    Ok((headers, authority))
}

/// What clients send as Host: the scheme's default port is left out.
fn own_authority(uri: &Uri, default_port: Option<u16>) -> String {
    let host = uri.host().unwrap_or_default();
    match uri.port_u16() {
        Some(port) if Some(port) != default_port => format!("{host}:{port}"),
        _ => host.to_owned(),
    }
}
