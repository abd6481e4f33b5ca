//! What the mesh resolved: the types of a [`Snapshot`].

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use super::access::{PolicySummary, WorkloadAccess};
use crate::config::model::{
    Acceleration, DirectResponse, FailurePolicy, HeaderOperations, HttpFault, HttpMatch,
    HttpRedirect, HttpRewrite, L4Match, Labels, LoadBalancer, ObjectName, PodPlace,
};

/// Everything that is in force, at one moment. Immutable: a change makes a new one.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Grows by one with each change.
    pub version: u64,
    /// `cluster.local` unless configured.
    pub domain: Arc<str>,
    /// By fully qualified host.
    pub services: BTreeMap<Arc<str>, Arc<Service>>,
    /// Every pod, local or not.
    pub workloads: BTreeMap<ObjectName, Arc<Workload>>,
    /// (cluster IP, service port) to what stands there.
    pub frontends: HashMap<SocketAddr, Frontend>,
    /// The same of UDP ports.
    pub datagram_frontends: HashMap<SocketAddr, DatagramFrontend>,
    /// A pod's own address to the pod (not for pods in the host's namespace).
    pub workload_by_address: HashMap<IpAddr, Arc<Workload>>,
    /// What clients of a namespace see; for every namespace that has a workload.
    pub views: HashMap<Arc<str>, Arc<View>>,
    /// Security policies, and whom each of them holds for.
    pub policies: Vec<PolicySummary>,
}

/// A service port by its address.
#[derive(Debug, Clone)]
pub struct Frontend {
    /// The service.
    pub service: Arc<Service>,
    /// Index into its ports.
    pub port: usize,
}

impl Frontend {
    /// The port that stands at this address.
    pub fn service_port(&self) -> &ServicePort {
        &self.service.ports[self.port]
    }
}

/// A service's UDP port by its address.
#[derive(Debug, Clone)]
pub struct DatagramFrontend {
    /// The service.
    pub service: Arc<Service>,
    /// Index into its UDP ports.
    pub port: usize,
}

impl DatagramFrontend {
    /// The port that stands at this address.
    pub fn port(&self) -> &DatagramPort {
        &self.service.datagram_ports[self.port]
    }
}

/// A pod.
#[derive(Debug, Clone)]
pub struct Workload {
    /// Namespace and pod name.
    pub name: ObjectName,
    /// The first is its own.
    pub addresses: Vec<IpAddr>,
    /// `metadata.labels`.
    pub labels: Labels,
    /// Name of the ServiceAccount.
    pub service_account: Arc<str>,
    /// `spiffe://DOMAIN/ns/NAMESPACE/sa/ACCOUNT`.
    pub principal: Arc<str>,
    /// Runs on this node.
    pub local: bool,
    /// Where its sockets are; local pods only.
    pub place: Option<PodPlace>,
    /// May get connections.
    pub ready: bool,
    /// After the namespace's annotation and the default.
    pub acceleration: Acceleration,
    /// Ports that stay plain TCP.
    pub acceleration_exclude_ports: Vec<u16>,
    /// After the namespace's annotation and the default.
    pub failure_policy: FailurePolicy,
    /// Who may connect to it; None: everybody.
    pub access: Option<Arc<WorkloadAccess>>,
    /// The labels of its telemetry, made once.
    pub telemetry: WorkloadLabels,
}

/// How a workload is named in metrics; `unknown` where nothing is known.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WorkloadLabels {
    /// The owner's name: the pod's name without the suffixes that a `ReplicaSet` or a `StatefulSet` adds.
    pub workload: Arc<str>,
    /// Labels `service.istio.io/canonical-name`, `app.kubernetes.io/name`, `app`, else the workload.
    pub canonical_service: Arc<str>,
    /// Labels `service.istio.io/canonical-revision`, `app.kubernetes.io/version`, `version`, else `latest`.
    pub canonical_revision: Arc<str>,
    /// Namespace.
    pub namespace: Arc<str>,
    /// The SPIFFE id.
    pub principal: Arc<str>,
    /// Label `app`.
    pub app: Arc<str>,
    /// Label `version`.
    pub version: Arc<str>,
}

/// A Service with its ports and endpoints resolved.
#[derive(Debug)]
pub struct Service {
    /// `reviews.default.svc.cluster.local`.
    pub host: Arc<str>,
    /// Namespace and name.
    pub name: ObjectName,
    /// Cluster IPs; empty for headless, and where the manifest gives none.
    pub addresses: Vec<IpAddr>,
    /// Meant to have none: clients connect to its pods.
    pub headless: bool,
    /// TCP ports only.
    pub ports: Vec<ServicePort>,
    /// The UDP ports.
    pub datagram_ports: Vec<DatagramPort>,
    /// `sessionAffinity: ClientIP`: for how long after its last connection a client keeps its endpoint, where
    /// the kernel picks.
    pub session_affinity: Option<Duration>,
}

/// One TCP port of a service.
#[derive(Debug)]
pub struct ServicePort {
    /// The service's own port.
    pub number: u16,
    /// May be empty.
    pub name: Arc<str>,
    /// From appProtocol or the port's name.
    pub protocol: Protocol,
    /// Sorted by address; not-ready ones are included and marked. Of one family: IPv4 where the service
    /// has an IPv4 address.
    pub endpoints: Arc<[Endpoint]>,
    /// Of a dual-stack service the same by their IPv6 addresses, for who dials its IPv6 address and is not
    /// routed by the agent. Of others empty.
    pub ipv6_endpoints: Arc<[Endpoint]>,
    /// How a connection of a mesh client to it goes.
    pub way: Way,
    /// One line for people: why this way.
    pub way_reason: Arc<str>,
    /// How the kernel picks an endpoint.
    pub load_balancer: LoadBalancer,
}

/// One UDP port of a service: the kernel picks the endpoint, nothing else decides about it.
#[derive(Debug)]
pub struct DatagramPort {
    /// The service's own port.
    pub number: u16,
    /// May be empty.
    pub name: Arc<str>,
    /// As [`ServicePort::endpoints`].
    pub endpoints: Arc<[Endpoint]>,
    /// As [`ServicePort::ipv6_endpoints`].
    pub ipv6_endpoints: Arc<[Endpoint]>,
}

/// A backend of a service port.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Where to connect.
    pub address: SocketAddr,
    /// The pod behind it, where it is known.
    pub workload: Option<Arc<Workload>>,
    /// Only ready ones get traffic.
    pub ready: bool,
    /// Relative; 1 unless configured.
    pub weight: u32,
}

/// What a port speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.x, upgrades included.
    Http,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// gRPC.
    Grpc,
    /// Bytes.
    Tcp,
    /// TLS, passed through.
    Tls,
    /// HTTP over TLS, passed through.
    Https,
    /// Found out from the first bytes.
    Auto,
}

impl Protocol {
    /// The spelling of `explain`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Http2 => "http2",
            Self::Grpc => "grpc",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Https => "https",
            Self::Auto => "auto",
        }
    }

    /// Whether requests can be read on it without sniffing.
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Http2 | Self::Grpc)
    }
}

/// The three ways of a connection, and none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Way {
    /// The kernel picks the endpoint.
    Direct,
    /// By the agent's listener.
    Agent,
    /// Not ours.
    Pass,
    /// Refused.
    Deny,
}

impl Way {
    /// The spelling of `explain`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Agent => "agent",
            Self::Pass => "pass",
            Self::Deny => "deny",
        }
    }
}

/// What the clients of one namespace see: hosts to rules, with destinations resolved.
#[derive(Debug, Default)]
pub struct View {
    /// The clients' namespace.
    pub namespace: Arc<str>,
    /// Every spelling of a host (short, with namespace, full, address; lower case, no port, no trailing
    /// dot) to what answers for it.
    pub hosts: HashMap<Arc<str>, Arc<VirtualHost>>,
    /// `*.suffix` hosts without the star, the longest first.
    pub wildcard_hosts: Vec<(Arc<str>, Arc<VirtualHost>)>,
}

/// Who answers for a host.
#[derive(Debug)]
pub struct VirtualHost {
    /// The service of this name, where there is one.
    pub service: Option<Arc<Service>>,
    /// The VirtualService that has the host, where there is one.
    pub rule: Option<Arc<Rule>>,
    /// What a request or connection that no rule decides gets: the service itself, one per port.
    pub defaults: Vec<Arc<HttpRoute>>,
}

/// A VirtualService as a client's namespace sees it.
#[derive(Debug)]
pub struct Rule {
    /// `default/reviews`.
    pub name: ObjectName,
    /// In order of precedence.
    pub http: Vec<Arc<HttpRoute>>,
    /// In order of precedence.
    pub tcp: Vec<Arc<TcpRoute>>,
}

/// An HTTP route with its destinations resolved.
#[derive(Debug)]
pub struct HttpRoute {
    /// Its place in the VirtualService's list; absent for a service's default.
    pub index: Option<usize>,
    /// Holds for connections to this port only. A route whose destination takes the dialled port stands
    /// in the list once per port of the host, each with its own destinations and the same index.
    pub dialled_port: Option<u16>,
    /// The route's own name.
    pub name: Option<String>,
    /// Any of them; empty matches all.
    pub matches: Vec<HttpMatch>,
    /// What happens.
    pub action: RouteAction,
    /// URI and authority for the upstream.
    pub rewrite: Option<HttpRewrite>,
    /// For all tries together.
    pub timeout: Option<Duration>,
    /// Effective: the route's or the mesh's default.
    pub retries: RetryPolicy,
    /// Delay, abort.
    pub fault: Option<HttpFault>,
    /// The route's operations on requests.
    pub request_headers: HeaderOperations,
    /// The route's operations on responses.
    pub response_headers: HeaderOperations,
}

/// What an HTTP route does.
#[derive(Debug)]
pub enum RouteAction {
    /// To one of these by weight. Never empty; zero weights are already dropped.
    Forward(Vec<WeightedDestination>),
    /// Answered by a redirect.
    Redirect(HttpRedirect),
    /// Answered by the mesh.
    DirectResponse(DirectResponse),
}

/// One of a route's destinations.
#[derive(Debug)]
pub struct WeightedDestination {
    /// As written; 100 for a single one without, which gets all (Istio's own reading).
    pub weight: u32,
    /// Resolved.
    pub destination: Arc<Destination>,
    /// This destination's own operations on requests.
    pub request_headers: HeaderOperations,
    /// This destination's own operations on responses.
    pub response_headers: HeaderOperations,
}

/// A host, a subset and a port, resolved to endpoints and policy.
#[derive(Debug)]
pub struct Destination {
    /// Full host where it is known, else as written.
    pub host: Arc<str>,
    /// The subset that was named.
    pub subset: Option<Arc<str>>,
    /// The service's port.
    pub port: u16,
    /// Absent for an unknown host.
    pub service: Option<Arc<Service>>,
    /// The DestinationRule that applies.
    pub destination_rule: Option<ObjectName>,
    /// What the upstream speaks.
    pub protocol: Protocol,
    /// Effective.
    pub load_balancer: LoadBalancer,
    /// Effective.
    pub connect_timeout: Duration,
    /// The ready ones of the subset.
    pub endpoints: Arc<[Endpoint]>,
    /// Why nothing can be sent there (unknown host, port or subset: 503, flag NC).
    pub invalid: Option<String>,
}

/// Effective retry policy.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    /// Extra tries; 0 is off.
    pub attempts: u32,
    /// Bounds each try.
    pub per_try_timeout: Option<Duration>,
    /// What is retried.
    pub on: RetryOn,
    /// Base of the backoff; 25 ms unless configured. Full jitter, at most ten times the base.
    pub backoff: Duration,
}

/// Retry conditions (Envoy's names).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "a set of independent conditions, named as Envoy names them"
)]
pub struct RetryOn {
    /// `5xx`: any 5xx, or no answer at all.
    pub five_xx: bool,
    /// `gateway-error`: 502, 503, 504.
    pub gateway_error: bool,
    /// `reset`: no answer at all.
    pub reset: bool,
    /// `reset-before-request`.
    pub reset_before_request: bool,
    /// `connect-failure`.
    pub connect_failure: bool,
    /// `refused-stream`.
    pub refused_stream: bool,
    /// `retriable-4xx`: 409.
    pub retriable_4xx: bool,
    /// Status codes by number.
    pub statuses: Vec<u16>,
    /// gRPC status codes by number (`cancelled` 1, `deadline-exceeded` 4, `resource-exhausted` 8,
    /// `internal` 13, `unavailable` 14).
    pub grpc: Vec<u8>,
    /// The names for `explain`, in the order written.
    pub names: Vec<String>,
}

/// A TCP route with its destinations resolved.
#[derive(Debug)]
pub struct TcpRoute {
    /// Its place in the VirtualService's list.
    pub index: usize,
    /// As [`HttpRoute::dialled_port`].
    pub dialled_port: Option<u16>,
    /// Any of them; empty matches all.
    pub matches: Vec<L4Match>,
    /// To one of these by weight. Never empty.
    pub destinations: Vec<(u32, Arc<Destination>)>,
}
