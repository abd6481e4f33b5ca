//! Parts of objects, each in one call.

use super::{at, labels};
use crate::config::model::{
    Destination, DestinationRule, Headers, HttpMatch, HttpRoute, HttpRouteDestination, L4Match,
    RouteDestination, ServicePort, StringMatch, Subset, TargetPort, TcpRoute, TrafficPolicy,
    Transport, VirtualService,
};

/// A TCP port whose target is itself.
pub fn service_port(name: &str, port: u16) -> ServicePort {
    ServicePort {
        name: name.to_owned(),
        port,
        transport: Transport::Tcp,
        target: TargetPort::Number(port),
        app_protocol: None,
    }
}

/// A VirtualService for everybody.
pub fn virtual_service(hosts: &[&str], http: Vec<HttpRoute>) -> VirtualService {
    VirtualService {
        hosts: hosts.iter().map(ToString::to_string).collect(),
        gateways: Vec::new(),
        export_to: Vec::new(),
        http,
        tcp: Vec::new(),
    }
}

/// A DestinationRule that says nothing.
pub fn destination_rule(host: &str) -> DestinationRule {
    DestinationRule {
        host: host.to_owned(),
        export_to: Vec::new(),
        traffic_policy: TrafficPolicy::default(),
        subsets: Vec::new(),
    }
}

/// A subset without a policy.
pub fn subset(name: &str, pairs: &str) -> Subset {
    Subset {
        location: at(100),
        name: name.to_owned(),
        labels: labels(pairs),
        traffic_policy: TrafficPolicy::default(),
    }
}

/// A route to `host`, `host:port`, `host/subset` or `host/subset:port`, each with a weight.
pub fn route(destinations: &[(&str, u32)]) -> HttpRoute {
    HttpRoute {
        location: at(200),
        name: None,
        matches: Vec::new(),
        destinations: destinations
            .iter()
            .map(|(text, weight)| HttpRouteDestination {
                destination: destination(text),
                weight: *weight,
                headers: Headers::default(),
            })
            .collect(),
        redirect: None,
        direct_response: None,
        rewrite: None,
        timeout: None,
        retries: None,
        fault: None,
        headers: Headers::default(),
    }
}

/// See [`route`].
pub fn destination(text: &str) -> Destination {
    let (text, port) = match text.split_once(':') {
        Some((text, port)) => (text, Some(port.parse().expect("a port"))),
        None => (text, None),
    };
    let (host, subset) = match text.split_once('/') {
        Some((host, subset)) => (host, Some(subset.to_owned())),
        None => (text, None),
    };
    Destination {
        location: at(300),
        host: host.to_owned(),
        subset,
        port,
    }
}

/// A TCP route.
pub fn tcp_route(matches: Vec<L4Match>, destinations: &[(&str, u32)]) -> TcpRoute {
    TcpRoute {
        location: at(200),
        matches,
        destinations: destinations
            .iter()
            .map(|(text, weight)| RouteDestination {
                destination: destination(text),
                weight: *weight,
            })
            .collect(),
    }
}

/// What a test changes about a route, said in order.
impl HttpRoute {
    /// Adds a match block.
    pub(crate) fn when(mut self, change: impl FnOnce(&mut HttpMatch)) -> Self {
        let mut block = HttpMatch::default();
        change(&mut block);
        self.matches.push(block);
        self
    }

    /// Adds a match block for a header's exact value.
    pub(crate) fn when_header(self, name: &str, value: &str) -> Self {
        self.when(|block| block.headers = vec![(name.to_owned(), exact(value))])
    }

    /// Adds a match block for a path's prefix.
    pub(crate) fn when_prefix(self, path: &str) -> Self {
        self.when(|block| block.uri = prefix(path))
    }

    /// Names it.
    pub(crate) fn named(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    /// Sets the timeout.
    pub(crate) fn timeout(mut self, milliseconds: u64) -> Self {
        self.timeout = Some(std::time::Duration::from_millis(milliseconds));
        self
    }
}

/// An exact match.
#[expect(
    clippy::unnecessary_wraps,
    reason = "the fields that it is for are optional"
)]
pub fn exact(text: &str) -> Option<StringMatch> {
    Some(StringMatch::Exact(text.to_owned()))
}

/// A prefix match.
#[expect(
    clippy::unnecessary_wraps,
    reason = "the fields that it is for are optional"
)]
pub fn prefix(text: &str) -> Option<StringMatch> {
    Some(StringMatch::Prefix(text.to_owned()))
}
