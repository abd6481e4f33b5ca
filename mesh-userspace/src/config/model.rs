//! The typed objects that the manifests say, as written: nothing is resolved or defaulted here
//! unless the field's own documentation defines the default.

mod security;

use std::{collections::BTreeMap, fmt, net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

pub use self::security::{
    AuthorizationPolicy, AuthorizationRule, ConditionMatch, IpBlock, MutualTls, OperationMatch,
    Pattern, PeerAuthentication, PolicyAction, SourceMatch, Values,
};

/// Labels or annotations, ordered so that what is printed from them is stable.
pub type Labels = BTreeMap<String, String>;

/// Where a document, a field or a route stands: a file and a line in it, counted from 1.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location {
    /// The file as it was named (joined to the folder that was given).
    pub file: Arc<PathBuf>,
    /// 1-based.
    pub line: u32,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// A namespace and a name in it; cluster-scoped objects have an empty namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    /// `default` where the document names none.
    pub namespace: Arc<str>,
    /// `metadata.name`.
    pub name: Arc<str>,
}

impl ObjectName {
    /// A name from its two parts.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// `metadata` and where the document was read.
#[derive(Debug, Clone)]
pub struct Meta {
    /// As written, `networking.istio.io/v1alpha3`.
    pub api_version: String,
    /// Namespace and name.
    pub name: ObjectName,
    /// `metadata.labels`.
    pub labels: Labels,
    /// `metadata.annotations`.
    pub annotations: Labels,
    /// RFC 3339 as written; sorts as text. Absent in most folders.
    pub creation_timestamp: Option<String>,
    /// The first line of the document.
    pub location: Location,
}

/// One object that parsed and validated.
#[derive(Debug, Clone)]
pub struct Object {
    /// Name, labels, place.
    pub meta: Meta,
    /// What kind it is and what it says.
    pub spec: Spec,
}

/// The kinds that Zerohop acts on.
#[derive(Debug, Clone)]
pub enum Spec {
    /// Kubernetes `v1` `Namespace`; all that counts is in the metadata.
    Namespace(PodDefaults),
    /// Kubernetes `v1` `Service`.
    Service(Service),
    /// Kubernetes `discovery.k8s.io/v1` `EndpointSlice`.
    EndpointSlice(EndpointSlice),
    /// Kubernetes `v1` `Pod`.
    Pod(Pod),
    /// Istio `networking.istio.io` `VirtualService`.
    VirtualService(VirtualService),
    /// Istio `networking.istio.io` `DestinationRule`.
    DestinationRule(DestinationRule),
    /// Istio `security.istio.io` `AuthorizationPolicy`.
    AuthorizationPolicy(AuthorizationPolicy),
    /// Istio `security.istio.io` `PeerAuthentication`.
    PeerAuthentication(PeerAuthentication),
}

impl Spec {
    /// The kind as a manifest spells it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Namespace(_) => "Namespace",
            Self::Service(_) => "Service",
            Self::EndpointSlice(_) => "EndpointSlice",
            Self::Pod(_) => "Pod",
            Self::VirtualService(_) => "VirtualService",
            Self::DestinationRule(_) => "DestinationRule",
            Self::AuthorizationPolicy(_) => "AuthorizationPolicy",
            Self::PeerAuthentication(_) => "PeerAuthentication",
        }
    }
}

// ---------------------------------------------------------------- Kubernetes

/// A Service: names and ports in front of endpoints.
#[derive(Debug, Clone)]
pub struct Service {
    /// `clusterIPs`, else `clusterIP`; empty for headless (`None`) and for `ExternalName`.
    pub cluster_ips: Vec<IpAddr>,
    /// `clusterIP: None`.
    pub headless: bool,
    /// `spec.selector`; empty means that `EndpointSlice` objects alone say the endpoints.
    pub selector: Labels,
    /// In the order written.
    pub ports: Vec<ServicePort>,
    /// `sessionAffinity: ClientIP`: for how long after its last connection a client keeps its endpoint.
    pub session_affinity: Option<Duration>,
}

/// One port of a Service.
#[derive(Debug, Clone)]
pub struct ServicePort {
    /// Empty where a single port has no name.
    pub name: String,
    /// 1..=65535.
    pub port: u16,
    /// TCP unless said otherwise.
    pub transport: Transport,
    /// `targetPort`; absent means `port`.
    pub target: TargetPort,
    /// `appProtocol` as written.
    pub app_protocol: Option<String>,
}

/// A Service port's `protocol`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// The default.
    Tcp,
    /// Not handled before the kernel balances UDP.
    Udp,
    /// Passed through untouched.
    Sctp,
}

/// A Service port's `targetPort`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetPort {
    /// A number, or the port itself where absent.
    Number(u16),
    /// The name of a container port of the pod.
    Name(String),
}

/// Endpoints that somebody else computed.
#[derive(Debug, Clone)]
pub struct EndpointSlice {
    /// Label `kubernetes.io/service-name`, in the slice's namespace.
    pub service: String,
    /// The slice's ports; matched to the Service's ports by name.
    pub ports: Vec<SlicePort>,
    /// One per backend.
    pub endpoints: Vec<SliceEndpoint>,
}

/// A port of an EndpointSlice.
#[derive(Debug, Clone)]
pub struct SlicePort {
    /// Empty where absent.
    pub name: String,
    /// The port at the endpoint.
    pub port: u16,
    /// TCP unless said otherwise.
    pub transport: Transport,
}

/// An endpoint of an EndpointSlice.
#[derive(Debug, Clone)]
pub struct SliceEndpoint {
    /// At least one.
    pub addresses: Vec<IpAddr>,
    /// `conditions.ready`, true where absent.
    pub ready: bool,
    /// `targetRef` where it is a Pod: its name, in the slice's namespace.
    pub pod: Option<String>,
}

/// A Pod: who a workload is and where it runs.
#[derive(Debug, Clone)]
pub struct Pod {
    /// `spec.nodeName`.
    pub node_name: Option<String>,
    /// `spec.serviceAccountName`, `default` where absent.
    pub service_account: String,
    /// `status.podIPs`, else `status.podIP`; the first is the pod's own.
    pub addresses: Vec<IpAddr>,
    /// False only where `status.conditions` says Ready=False.
    pub ready: bool,
    /// Container ports that have a name: name to number.
    pub named_ports: BTreeMap<String, u16>,
    /// From `zerohop.dev/netns` or `zerohop.dev/cgroup`; a bare netns name is below /run/netns.
    pub place: Option<PodPlace>,
    /// From `zerohop.dev/acceleration`, the Pod's own annotation.
    pub acceleration: Option<Acceleration>,
    /// From `zerohop.dev/acceleration-exclude-ports`, the Pod's own annotation.
    pub acceleration_exclude_ports: Option<Vec<u16>>,
    /// From `zerohop.dev/failure-policy`, the Pod's own annotation.
    pub failure_policy: Option<FailurePolicy>,
}

/// Where a local pod's sockets are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PodPlace {
    /// Path of a network namespace.
    Netns(PathBuf),
    /// Path of a cgroup v2 folder; the pod is in the host's network namespace.
    Cgroup(PathBuf),
}

/// `zerohop.dev/acceleration`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Acceleration {
    /// On where this kernel passes the self-test.
    #[default]
    Auto,
    /// On.
    On,
    /// Plain TCP.
    Off,
}

/// `zerohop.dev/failure-policy`: what connections that need the agent get while there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FailurePolicy {
    /// They go to the service directly.
    #[default]
    Open,
    /// They are refused.
    Closed,
}

/// What the annotations on a Namespace say for its pods (a Pod's own annotation wins).
#[derive(Debug, Clone, Default)]
pub struct PodDefaults {
    /// See [`Pod::acceleration`].
    pub acceleration: Option<Acceleration>,
    /// See [`Pod::acceleration_exclude_ports`].
    pub acceleration_exclude_ports: Option<Vec<u16>>,
    /// See [`Pod::failure_policy`].
    pub failure_policy: Option<FailurePolicy>,
}

// --------------------------------------------------------------------- Istio

/// VirtualService (`networking/v1alpha3/virtual_service.proto`), the part that is acted on.
#[derive(Debug, Clone)]
pub struct VirtualService {
    /// As written: short, full, wildcard or address.
    pub hosts: Vec<String>,
    /// As written; empty means `mesh`.
    pub gateways: Vec<String>,
    /// As written; empty means everybody.
    pub export_to: Vec<String>,
    /// In order of precedence.
    pub http: Vec<HttpRoute>,
    /// In order of precedence.
    pub tcp: Vec<TcpRoute>,
}

/// `HTTPRoute`.
#[derive(Debug, Clone)]
pub struct HttpRoute {
    /// Where it stands.
    pub location: Location,
    /// `name`.
    pub name: Option<String>,
    /// Any of them; empty matches all.
    pub matches: Vec<HttpMatch>,
    /// `route`; empty where redirect or directResponse answers instead.
    pub destinations: Vec<HttpRouteDestination>,
    /// `redirect`.
    pub redirect: Option<HttpRedirect>,
    /// `directResponse`.
    pub direct_response: Option<DirectResponse>,
    /// `rewrite`.
    pub rewrite: Option<HttpRewrite>,
    /// `timeout`, at least 1 ms.
    pub timeout: Option<Duration>,
    /// `retries`; absent means the mesh's default.
    pub retries: Option<HttpRetry>,
    /// `fault`.
    pub fault: Option<HttpFault>,
    /// `headers`.
    pub headers: Headers,
}

/// `HTTPMatchRequest`: all that is set must match.
#[derive(Debug, Clone, Default)]
pub struct HttpMatch {
    /// `name`.
    pub name: Option<String>,
    /// Path and query are split before: this sees the path only.
    pub uri: Option<StringMatch>,
    /// `ignoreUriCase`: exact and prefix only.
    pub ignore_uri_case: bool,
    /// `scheme`.
    pub scheme: Option<StringMatch>,
    /// `method`.
    pub method: Option<StringMatch>,
    /// `authority`: the Host header.
    pub authority: Option<StringMatch>,
    /// Lower-case header names; `None` means that the header is present (`{}`).
    pub headers: Vec<(String, Option<StringMatch>)>,
    /// As `headers`, inverted.
    pub without_headers: Vec<(String, Option<StringMatch>)>,
    /// `queryParams`; `None` means present.
    pub query_params: Vec<(String, Option<StringMatch>)>,
    /// The port that the client dialled.
    pub port: Option<u16>,
    /// Labels of the client workload.
    pub source_labels: Labels,
    /// Namespace of the client workload.
    pub source_namespace: Option<String>,
    /// Overrides the rule's gateways; empty inherits them.
    pub gateways: Vec<String>,
}

impl HttpMatch {
    /// Whether it says nothing and so matches every request.
    pub fn is_catch_all(&self) -> bool {
        let prefix_root = matches!(&self.uri, Some(StringMatch::Prefix(p)) if p == "/");
        (self.uri.is_none() || prefix_root)
            && self.scheme.is_none()
            && self.method.is_none()
            && self.authority.is_none()
            && self.headers.is_empty()
            && self.without_headers.is_empty()
            && self.query_params.is_empty()
            && self.port.is_none()
            && self.source_labels.is_empty()
            && self.source_namespace.is_none()
            && self.gateways.is_empty()
    }
}

/// `StringMatch`.
#[derive(Debug, Clone)]
pub enum StringMatch {
    /// The whole value.
    Exact(String),
    /// The value's start.
    Prefix(String),
    /// RE2 syntax, must match the whole value; compiled anchored.
    Regex(regex::Regex),
}

/// `HTTPRouteDestination`.
#[derive(Debug, Clone)]
pub struct HttpRouteDestination {
    /// Where to.
    pub destination: Destination,
    /// As written; 0 where absent.
    pub weight: u32,
    /// `headers`.
    pub headers: Headers,
}

/// Destination.
#[derive(Debug, Clone)]
pub struct Destination {
    /// Where it stands.
    pub location: Location,
    /// As written.
    pub host: String,
    /// `subset`.
    pub subset: Option<String>,
    /// `port.number`.
    pub port: Option<u16>,
}

/// Headers: operations on the request and the response.
#[derive(Debug, Clone, Default)]
pub struct Headers {
    /// `request`.
    pub request: HeaderOperations,
    /// `response`.
    pub response: HeaderOperations,
}

/// Applied in this order: remove, set, add.
#[derive(Debug, Clone, Default)]
pub struct HeaderOperations {
    /// Replace all values.
    pub set: Vec<(http::HeaderName, http::HeaderValue)>,
    /// Append a value.
    pub add: Vec<(http::HeaderName, http::HeaderValue)>,
    /// Remove all values.
    pub remove: Vec<http::HeaderName>,
    /// `host` or `:authority` in `set`: a host rewrite, not a header edit.
    pub authority: Option<String>,
}

/// `HTTPRedirect`.
#[derive(Debug, Clone)]
pub struct HttpRedirect {
    /// Replaces path and query.
    pub uri: Option<String>,
    /// Replaces the authority's host.
    pub authority: Option<String>,
    /// `http` or `https`.
    pub scheme: Option<String>,
    /// `port`.
    pub port: Option<u16>,
    /// 301, 302, 303, 307 or 308; 301 where absent.
    pub code: u16,
}

/// `HTTPDirectResponse`.
#[derive(Debug, Clone)]
pub struct DirectResponse {
    /// 200..=599.
    pub status: u16,
    /// `body.string`.
    pub body: Option<String>,
}

/// `HTTPRewrite`.
#[derive(Debug, Clone, Default)]
pub struct HttpRewrite {
    /// Replaces the prefix that matched, or the whole path of an exact match.
    pub uri: Option<String>,
    /// `uriRegexRewrite`: pattern and replacement (`\1` already turned into `${1}`).
    pub uri_regex: Option<(regex::Regex, String)>,
    /// The Host that the upstream sees.
    pub authority: Option<String>,
}

/// `HTTPRetry`.
#[derive(Debug, Clone)]
pub struct HttpRetry {
    /// Extra tries; 0 switches retries off.
    pub attempts: u32,
    /// `perTryTimeout`.
    pub per_try_timeout: Option<Duration>,
    /// Conditions as written, split at commas; empty means the default ones.
    pub retry_on: Vec<String>,
    /// `backoff`: base interval.
    pub backoff: Option<Duration>,
}

/// `HTTPFaultInjection`; the two are independent.
#[derive(Debug, Clone, Default)]
pub struct HttpFault {
    /// `delay`.
    pub delay: Option<FaultDelay>,
    /// `abort`.
    pub abort: Option<FaultAbort>,
}

/// A fixed delay before the request goes on.
#[derive(Debug, Clone)]
pub struct FaultDelay {
    /// `fixedDelay`, at least 1 ms.
    pub duration: Duration,
    /// 0.0..=100.0, from `percentage.value` or the old `percent`; 0 where both are absent.
    pub percentage: f64,
}

/// An answer instead of the upstream's.
#[derive(Debug, Clone)]
pub struct FaultAbort {
    /// `httpStatus`, 200..=599.
    pub status: u16,
    /// 0.0..=100.0, 0 where absent.
    pub percentage: f64,
}

/// `TCPRoute`.
#[derive(Debug, Clone)]
pub struct TcpRoute {
    /// Where it stands.
    pub location: Location,
    /// Any of them; empty matches all.
    pub matches: Vec<L4Match>,
    /// Weighted.
    pub destinations: Vec<RouteDestination>,
}

/// `L4MatchAttributes`: all that is set must match.
#[derive(Debug, Clone, Default)]
pub struct L4Match {
    /// The port that the client dialled.
    pub port: Option<u16>,
    /// Labels of the client workload.
    pub source_labels: Labels,
    /// Namespace of the client workload.
    pub source_namespace: Option<String>,
    /// Overrides the rule's gateways; empty inherits them.
    pub gateways: Vec<String>,
}

/// `RouteDestination`.
#[derive(Debug, Clone)]
pub struct RouteDestination {
    /// Where to.
    pub destination: Destination,
    /// As written; 0 where absent.
    pub weight: u32,
}

/// DestinationRule (`networking/v1alpha3/destination_rule.proto`), the part that is acted on.
#[derive(Debug, Clone)]
pub struct DestinationRule {
    /// As written: short, full or wildcard.
    pub host: String,
    /// As written; empty means everybody.
    pub export_to: Vec<String>,
    /// Top level.
    pub traffic_policy: TrafficPolicy,
    /// In the order written.
    pub subsets: Vec<Subset>,
}

/// A named part of a service's endpoints.
#[derive(Debug, Clone)]
pub struct Subset {
    /// Where it stands.
    pub location: Location,
    /// Unique in the rule.
    pub name: String,
    /// All must equal the workload's labels; empty selects all.
    pub labels: Labels,
    /// Overrides the top level by block.
    pub traffic_policy: TrafficPolicy,
}

/// `TrafficPolicy`, the part that is acted on: an absent block inherits.
#[derive(Debug, Clone, Default)]
pub struct TrafficPolicy {
    /// `loadBalancer.simple`.
    pub load_balancer: Option<LoadBalancer>,
    /// `connectionPool.tcp.connectTimeout`.
    pub connect_timeout: Option<Duration>,
}

/// `LoadBalancerSettings.SimpleLB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LoadBalancer {
    /// Two random choices, the one with fewer requests in flight (also `LEAST_CONN`, `UNSPECIFIED`).
    #[default]
    LeastRequest,
    /// In turn.
    RoundRobin,
    /// Any.
    Random,
    /// The address that was dialled.
    Passthrough,
}

impl LoadBalancer {
    /// The spelling of the API and of `explain`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LeastRequest => "LEAST_REQUEST",
            Self::RoundRobin => "ROUND_ROBIN",
            Self::Random => "RANDOM",
            Self::Passthrough => "PASSTHROUGH",
        }
    }
}

// -------------------------------------------------------------------- report

/// What became of a document: a row of `meshctl config` and `meshctl analyze`.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Report {
    /// As named on the command line, or joined to the folder that was.
    pub file: String,
    /// 1-based; of the field for a rejection, else of the document.
    pub line: u32,
    /// Empty where the document has none.
    pub kind: String,
    /// Empty where it has none.
    pub namespace: String,
    /// Empty where it has none.
    pub name: String,
    /// In force, refused, or not ours.
    pub state: State,
    /// The path of the field that was refused: `spec.http[0].route[1].weight`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Why it was rejected or ignored, and what to do; of a rejected field it reads on from the
    /// field's name: `must not be empty`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Unknown fields, deprecated spellings, dead routes, unknown hosts: each a sentence with its line.
    pub warnings: Vec<String>,
    /// Paths of fields that are known and not acted on: `spec.http[0].mirror (line 12)`.
    pub unsupported: Vec<String>,
}

impl Report {
    /// A rejection on one line: `FILE:LINE: KIND NAMESPACE/NAME: FIELD: REASON`.
    pub fn rejection(&self) -> String {
        let field = self
            .field
            .as_deref()
            .map(|field| format!("{field}: "))
            .unwrap_or_default();
        let reason = self.reason.as_deref().unwrap_or("no reason given");
        let Self {
            file,
            line,
            kind,
            namespace,
            name,
            ..
        } = self;
        format!("{file}:{line}: {kind} {namespace}/{name}: {field}{reason}")
    }
}

/// See [`Report::state`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// In force.
    Applied,
    /// Refused; an earlier good version of it, if there was one, stays in force.
    Rejected,
    /// A kind that Zerohop does not act on.
    Ignored,
}
