//! What happens to a request or a connection: the decision that the proxy acts on and `explain` shows.

mod headers;
mod matching;
mod redirect;
mod rewrite;
mod weights;

#[cfg(test)]
mod tests;

use std::{fmt, net::SocketAddr, sync::Arc};

use http::{HeaderMap, Method, Uri, uri::PathAndQuery};

pub use self::{
    headers::{apply_headers, apply_request_headers, apply_response_headers, upstream_authority},
    redirect::redirect_location,
    rewrite::apply_rewrite,
    weights::{pick_destination, pick_weighted},
};
use super::{
    model::{
        Destination, Frontend, HttpRoute, RouteAction, Rule, Service, ServicePort, Snapshot,
        TcpRoute, VirtualHost, WeightedDestination, Workload,
    },
    names::{self, PORT_WITHOUT_SERVICE},
    protocol,
};
use crate::config::model::{DirectResponse, HttpRedirect, LoadBalancer, StringMatch};

/// A request as its client sent it.
#[derive(Debug, Clone, Copy)]
pub struct RequestFacts<'r> {
    /// The client.
    pub source: &'r Workload,
    /// The original destination of its connection.
    pub dialled: SocketAddr,
    /// `http` or `https`.
    pub scheme: &'r str,
    /// The method.
    pub method: &'r Method,
    /// In origin or absolute form.
    pub uri: &'r Uri,
    /// `Host` or `:authority` as received.
    pub authority: &'r str,
    /// All headers.
    pub headers: &'r HeaderMap,
}

impl<'r> RequestFacts<'r> {
    /// Path and query, `/` where the URI has neither.
    pub fn path_and_query(&self) -> &'r str {
        let written = self.uri.path_and_query().map(PathAndQuery::as_str);
        written.filter(|both| !both.is_empty()).unwrap_or("/")
    }
}

/// What happens to a request.
#[derive(Debug, Clone)]
pub struct HttpDecision<'s> {
    /// The service that the authority names; absent for a host without one and for a passthrough.
    pub service: Option<&'s Arc<Service>>,
    /// Its port that was dialled.
    pub service_port: Option<&'s ServicePort>,
    /// The VirtualService that has the host.
    pub rule: Option<&'s Arc<Rule>>,
    /// The route that was taken, a rule's or a service's own. Of a passthrough to a service's address:
    /// that service's own.
    pub route: Option<&'s Arc<HttpRoute>>,
    /// Which of the route's matches was the first to hold; absent for a route without any.
    pub match_index: Option<usize>,
    /// What to do.
    pub outcome: HttpOutcome<'s>,
}

impl<'s> HttpDecision<'s> {
    /// The URI match that let the request in: what a rewrite replaces.
    pub fn matched_uri(&self) -> Option<&'s StringMatch> {
        self.route?.matches.get(self.match_index?)?.uri.as_ref()
    }
}

/// What to do with a request.
#[derive(Debug, Clone)]
pub enum HttpOutcome<'s> {
    /// Send it to one of these: see [`pick_destination`].
    Route(&'s [WeightedDestination]),
    /// Answer with a redirect: see [`redirect_location`].
    Redirect(&'s HttpRedirect),
    /// Answer with this.
    DirectResponse(&'s DirectResponse),
    /// 404, flag NR: a rule has the host and none of its routes matched.
    NotFound,
    /// The mesh does not know the host: on to the address that was dialled.
    Passthrough(SocketAddr),
    /// 503: no destination can take it.
    NoHealthyUpstream(NoUpstream<'s>),
}

/// What happens to a connection whose bytes are not read.
#[derive(Debug, Clone)]
pub struct TcpDecision<'s> {
    /// The service that was dialled.
    pub service: Option<&'s Arc<Service>>,
    /// Its port.
    pub service_port: Option<&'s ServicePort>,
    /// The VirtualService that has the service's host.
    pub rule: Option<&'s Arc<Rule>>,
    /// The route that was taken; absent where the connection goes to the service itself.
    pub route: Option<&'s Arc<TcpRoute>>,
    /// Which of the route's matches was the first to hold.
    pub match_index: Option<usize>,
    /// What to do.
    pub outcome: TcpOutcome<'s>,
}

/// What to do with a connection.
#[derive(Debug, Clone)]
pub enum TcpOutcome<'s> {
    /// Connect it to one of these, weighted: see [`pick_weighted`].
    Route(&'s [(u32, Arc<Destination>)]),
    /// Connect it to the service that was dialled.
    Service(&'s Arc<Destination>),
    /// Not the mesh's: on to the address that was dialled.
    Passthrough(SocketAddr),
    /// Close it: no destination can take it.
    NoHealthyUpstream(NoUpstream<'s>),
}

/// Why a destination cannot be sent to.
#[derive(Debug, Clone, Copy)]
pub enum NoUpstream<'s> {
    /// Unknown host, port or subset; says which.
    NoCluster(&'s str),
    /// All is known, but no endpoint is ready.
    NoEndpoint(&'s Destination),
}

impl<'s> NoUpstream<'s> {
    /// Why `destination` cannot be sent to; `None` where it can.
    pub fn of(destination: &'s Destination) -> Option<Self> {
        if let Some(reason) = &destination.invalid {
            return Some(Self::NoCluster(reason));
        }
        let needs_endpoint = destination.load_balancer != LoadBalancer::Passthrough;
        (needs_endpoint && destination.endpoints.is_empty())
            .then_some(Self::NoEndpoint(destination))
    }

    /// The response flag: `NC` or `UH`.
    pub fn flag(&self) -> &'static str {
        match self {
            Self::NoCluster(_) => "NC",
            Self::NoEndpoint(_) => "UH",
        }
    }
}

impl fmt::Display for NoUpstream<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCluster(reason) => f.write_str(reason),
            Self::NoEndpoint(destination) => {
                write!(f, "no endpoint of {} ", destination.host)?;
                if let Some(subset) = &destination.subset {
                    write!(f, "subset {subset} ")?;
                }
                write!(f, "port {} is ready", destination.port)
            }
        }
    }
}

/// Decides about a request. The authority picks the host's rule and service; the dialled port picks the
/// service's port. Nothing is allocated unless the authority has upper case.
pub fn route_http<'s>(snapshot: &'s Snapshot, request: &RequestFacts<'_>) -> HttpDecision<'s> {
    let host = names::host_of_authority(request.authority);
    let port = request.dialled.port();
    let namespace = &request.source.name.namespace;
    let found = snapshot.virtual_host(namespace, &host);
    let Some((virtual_host, at)) = found.and_then(|found| stands_at(found, port)) else {
        return unknown_host(snapshot, request);
    };
    let service = virtual_host.service.as_ref();
    let decision = |route: Option<&'s Arc<HttpRoute>>, match_index, outcome| HttpDecision {
        service,
        service_port: service.zip(at).map(|(service, at)| &service.ports[at]),
        rule: virtual_host.rule.as_ref(),
        route,
        match_index,
        outcome,
    };
    match first_match(virtual_host.rule.as_deref(), request) {
        Found::Route(route, match_index) => decision(Some(route), match_index, outcome_of(route)),
        Found::NoneMatched => decision(None, None, HttpOutcome::NotFound),
        Found::NoneApplies => match at.and_then(|at| virtual_host.defaults.get(at)) {
            Some(route) => HttpDecision {
                rule: None,
                ..decision(Some(route), None, outcome_of(route))
            },
            None => unknown_host(snapshot, request),
        },
    }
}

/// Decides about a connection that is not HTTP, by the address that was dialled.
pub fn route_tcp<'s>(
    snapshot: &'s Snapshot,
    source: &Workload,
    dialled: SocketAddr,
) -> TcpDecision<'s> {
    match snapshot.frontends.get(&dialled) {
        Some(frontend) => route_tcp_to(snapshot, source, frontend, dialled),
        None => TcpDecision {
            service: None,
            service_port: None,
            rule: None,
            route: None,
            match_index: None,
            outcome: TcpOutcome::Passthrough(dialled),
        },
    }
}

/// As [`route_tcp`], for one who knows already which service port stands at `dialled`.
pub fn route_tcp_to<'s>(
    snapshot: &'s Snapshot,
    source: &Workload,
    frontend: &'s Frontend,
    dialled: SocketAddr,
) -> TcpDecision<'s> {
    let service_port = frontend.service_port();
    let mut decision = TcpDecision {
        service: Some(&frontend.service),
        service_port: Some(service_port),
        rule: None,
        route: None,
        match_index: None,
        outcome: TcpOutcome::Passthrough(dialled),
    };
    let Some(virtual_host) = host_of(snapshot, source, frontend) else {
        return decision;
    };
    let rule = virtual_host
        .rule
        .as_ref()
        // What is declared HTTP has no TCP routes.
        .filter(|_| !service_port.protocol.is_http());
    let port = service_port.number;
    for route in rule.iter().flat_map(|rule| &rule.tcp) {
        if route.dialled_port.is_some_and(|only| only != port) {
            continue;
        }
        let mut blocks = route.matches.iter();
        let position = blocks.position(|block| matching::l4(block, source, port));
        if position.is_some() || route.matches.is_empty() {
            decision.rule = rule;
            decision.route = Some(route);
            decision.match_index = position;
            decision.outcome = tcp_outcome(&route.destinations);
            return decision;
        }
    }
    let own = virtual_host.defaults.get(frontend.port);
    if let Some(RouteAction::Forward(destinations)) = own.map(|route| &route.action)
        && let Some(own) = destinations.first()
    {
        decision.outcome = match NoUpstream::of(&own.destination) {
            Some(reason) => TcpOutcome::NoHealthyUpstream(reason),
            None => TcpOutcome::Service(&own.destination),
        };
    }
    decision
}

enum Found<'s> {
    Route(&'s Arc<HttpRoute>, Option<usize>),
    /// Some route is for such clients, but none holds for this request.
    NoneMatched,
    /// No route is for clients like this on this port: as if there were no rule.
    NoneApplies,
}

fn first_match<'s>(rule: Option<&'s Rule>, request: &RequestFacts<'_>) -> Found<'s> {
    let port = request.dialled.port();
    let mut applies = false;
    for route in rule.iter().flat_map(|rule| &rule.http) {
        if route.dialled_port.is_some_and(|only| only != port) {
            continue;
        }
        if route.matches.is_empty() {
            return Found::Route(route, None);
        }
        for (index, one) in route.matches.iter().enumerate() {
            if matching::is_for(one, request.source, port) {
                if matching::http(one, request) {
                    return Found::Route(route, Some(index));
                }
                applies = true;
            }
        }
    }
    if applies {
        Found::NoneMatched
    } else {
        Found::NoneApplies
    }
}

/// The host with the index of the service port that was dialled, if it answers HTTP there.
fn stands_at(virtual_host: &VirtualHost, port: u16) -> Option<(&VirtualHost, Option<usize>)> {
    match &virtual_host.service {
        None => (port == PORT_WITHOUT_SERVICE).then_some((virtual_host, None)),
        Some(service) => service
            .ports
            .iter()
            .position(|one| one.number == port && protocol::may_be_http(one.protocol))
            .map(|at| (virtual_host, Some(at))),
    }
}

fn outcome_of(route: &HttpRoute) -> HttpOutcome<'_> {
    match &route.action {
        RouteAction::Redirect(redirect) => HttpOutcome::Redirect(redirect),
        RouteAction::DirectResponse(response) => HttpOutcome::DirectResponse(response),
        RouteAction::Forward(destinations) => {
            let all = destinations.iter().map(|one| one.destination.as_ref());
            match none_usable(all) {
                Some(reason) => HttpOutcome::NoHealthyUpstream(reason),
                None => HttpOutcome::Route(destinations),
            }
        }
    }
}

fn tcp_outcome(destinations: &[(u32, Arc<Destination>)]) -> TcpOutcome<'_> {
    match none_usable(destinations.iter().map(|(_, one)| one.as_ref())) {
        Some(reason) => TcpOutcome::NoHealthyUpstream(reason),
        None => TcpOutcome::Route(destinations),
    }
}

/// The first destination's reason, if every one has a reason. Where only some have, the pick decides.
fn none_usable<'s>(destinations: impl Iterator<Item = &'s Destination>) -> Option<NoUpstream<'s>> {
    let mut first = None;
    for destination in destinations {
        let reason = NoUpstream::of(destination)?;
        first = first.or(Some(reason));
    }
    first
}

fn unknown_host<'s>(snapshot: &'s Snapshot, request: &RequestFacts<'_>) -> HttpDecision<'s> {
    let frontend = snapshot.frontends.get(&request.dialled);
    let own = frontend.and_then(|frontend| {
        let virtual_host = host_of(snapshot, request.source, frontend)?;
        virtual_host.defaults.get(frontend.port)
    });
    HttpDecision {
        service: None,
        service_port: None,
        rule: None,
        route: own,
        match_index: None,
        outcome: HttpOutcome::Passthrough(request.dialled),
    }
}

fn host_of<'s>(
    snapshot: &'s Snapshot,
    source: &Workload,
    frontend: &Frontend,
) -> Option<&'s VirtualHost> {
    let view = snapshot.view(&source.name.namespace)?;
    view.hosts.get(&frontend.service.host).map(AsRef::as_ref)
}
