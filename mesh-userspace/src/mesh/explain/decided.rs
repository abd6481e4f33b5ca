//! Decisions of the proxy, told in the words of the contract.

use std::time::Duration;

use super::answer::{
    Action, DestinationAnswer, DirectResponseAnswer, Explanation, FaultAbortAnswer, FaultAnswer,
    FaultDelayAnswer, HeaderEdits, RedirectAnswer, RetriesAnswer, RewriteAnswer, Source,
};
use crate::{
    config::model::{HeaderOperations, HttpFault},
    mesh::{
        model::{
            Destination, HttpRoute, RetryPolicy, RouteAction, Rule, Service, ServicePort, Way,
            WeightedDestination, Workload,
        },
        route::{
            HttpDecision, HttpOutcome, NoUpstream, RequestFacts, TcpDecision, TcpOutcome,
            apply_rewrite, redirect_location, upstream_authority,
        },
    },
};

/// Nothing is encrypted by this version.
const PLAIN: &str = "none";

/// What stands for the whole of a service where no weight is written.
const ALL: u32 = 100;

impl Explanation {
    /// An answer that says nothing yet but who asks and which port is dialled.
    pub(super) fn new(source: &Workload, port: u16) -> Self {
        Self {
            source: Source {
                namespace: source.name.namespace.to_string(),
                workload: source.name.name.to_string(),
                principal: source.principal.to_string(),
            },
            service: None,
            port,
            protocol: None,
            way: String::new(),
            virtual_service: None,
            route_index: None,
            route_name: None,
            match_index: None,
            action: Action::Route,
            destinations: Vec::new(),
            redirect: None,
            direct_response: None,
            rewrite: None,
            request_headers: None,
            response_headers: None,
            timeout_ms: None,
            retries: None,
            fault: None,
            authorization: None,
            status: None,
            tls: None,
            reason: String::new(),
        }
    }

    pub(super) fn goes(&mut self, way: Way, reason: &str) {
        way.as_str().clone_into(&mut self.way);
        reason.clone_into(&mut self.reason);
    }

    pub(super) fn stands_at(
        &mut self,
        service: Option<&std::sync::Arc<Service>>,
        port: Option<&ServicePort>,
    ) {
        self.service = service.map(|service| service.host.to_string());
        self.protocol = port.map(|port| port.protocol.as_str().to_owned());
    }

    pub(super) fn passes(&mut self) {
        self.action = Action::Passthrough;
        self.tls = Some(PLAIN.to_owned());
    }

    /// A request that the agent decides about.
    pub(super) fn decided_http(&mut self, decision: &HttpDecision<'_>, request: &RequestFacts<'_>) {
        if let HttpOutcome::Passthrough(address) = decision.outcome {
            self.because(format!(
                "the mesh does not know the host {:?}, so the request goes on to {address}",
                request.authority
            ));
            self.passes();
            return;
        }
        self.stands_at(decision.service, decision.service_port);
        self.virtual_service = decision.rule.map(|rule| rule.name.to_string());
        let Some(route) = decision.route else {
            self.action = Action::NotFound;
            self.because(format!(
                "none of the routes of VirtualService {} matches this request",
                self.virtual_service.as_deref().unwrap_or_default()
            ));
            return;
        };
        self.route_index = route.index;
        self.route_name.clone_from(&route.name);
        self.match_index = decision.match_index;
        self.taken(
            decision.rule.map(AsRef::as_ref),
            route.index,
            decision.match_index,
        );
        self.fault = route.fault.as_ref().map(fault);
        match &decision.outcome {
            HttpOutcome::Redirect(redirect) => {
                self.action = Action::Redirect;
                self.redirect = Some(RedirectAnswer {
                    code: redirect.code,
                    location: redirect_location(redirect, request),
                });
                self.response_headers = edits(&[&route.response_headers]);
            }
            HttpOutcome::DirectResponse(response) => {
                self.action = Action::DirectResponse;
                self.direct_response = Some(DirectResponseAnswer {
                    status: response.status,
                    body: response.body.clone(),
                });
                self.response_headers = edits(&[&route.response_headers]);
            }
            outcome => {
                if let HttpOutcome::NoHealthyUpstream(why) = outcome {
                    self.unavailable(why);
                }
                self.forwards(route, decision, request);
            }
        }
    }

    /// A connection whose bytes nobody reads.
    pub(super) fn decided_tcp(&mut self, decision: &TcpDecision<'_>) {
        self.virtual_service = decision.rule.map(|rule| rule.name.to_string());
        if let Some(route) = decision.route {
            self.route_index = Some(route.index);
            self.match_index = decision.match_index;
            self.taken(
                decision.rule.map(AsRef::as_ref),
                Some(route.index),
                decision.match_index,
            );
        }
        self.tls = Some(PLAIN.to_owned());
        match &decision.outcome {
            TcpOutcome::Route(weighted) => {
                let answers = weighted
                    .iter()
                    .map(|(weight, one)| destination(*weight, one));
                self.destinations = answers.collect();
            }
            TcpOutcome::Service(own) => self.destinations = vec![destination(ALL, own)],
            TcpOutcome::Passthrough(_) => self.action = Action::Passthrough,
            TcpOutcome::NoHealthyUpstream(why) => {
                self.unavailable(why);
                if let Some(route) = decision.route {
                    let all = route.destinations.iter();
                    self.destinations =
                        all.map(|(weight, one)| destination(*weight, one)).collect();
                } else if let NoUpstream::NoEndpoint(own) = why {
                    self.destinations = vec![destination(ALL, own)];
                }
            }
        }
    }

    /// The kernel's own manner of picking, which is one for all clients of the node.
    pub(super) fn picked_by_kernel(&mut self, port: &ServicePort) {
        for destination in &mut self.destinations {
            let policy = port.load_balancer.as_str();
            policy.clone_into(&mut destination.load_balancer);
        }
    }

    fn forwards(
        &mut self,
        route: &HttpRoute,
        decision: &HttpDecision<'_>,
        request: &RequestFacts<'_>,
    ) {
        let RouteAction::Forward(weighted) = &route.action else {
            return;
        };
        let single = match weighted.as_slice() {
            [single] => Some(single),
            _ => None,
        };
        self.destinations = weighted
            .iter()
            .map(|one| weighted_destination(one, route, single.is_none()))
            .collect();
        let uri = route.rewrite.as_ref().and_then(|rewrite| {
            apply_rewrite(rewrite, decision.matched_uri(), request.path_and_query())
        });
        let authority = upstream_authority(route, single).map(ToOwned::to_owned);
        self.rewrite =
            (uri.is_some() || authority.is_some()).then_some(RewriteAnswer { uri, authority });
        let mut on_request = vec![&route.request_headers];
        on_request.extend(single.map(|single| &single.request_headers));
        self.request_headers = edits(&on_request);
        let mut on_response = vec![&route.response_headers];
        on_response.extend(single.map(|single| &single.response_headers));
        self.response_headers = edits(&on_response);
        self.timeout_ms = route.timeout.map(milliseconds);
        self.retries = Some(retries(&route.retries));
        self.tls = Some(PLAIN.to_owned());
    }

    fn unavailable(&mut self, why: &NoUpstream<'_>) {
        self.action = Action::NoHealthyUpstream;
        self.because(format!("{why} ({})", why.flag()));
    }

    fn taken(&mut self, rule: Option<&Rule>, route: Option<usize>, matched: Option<usize>) {
        let (Some(rule), Some(route)) = (rule, route) else {
            self.because(
                "no rule decides about this request: it goes to the service itself".into(),
            );
            return;
        };
        self.because(match matched {
            Some(matched) => format!(
                "match {matched} of route {route} of VirtualService {} holds",
                rule.name
            ),
            None => format!(
                "route {route} of VirtualService {} takes all that comes to it",
                rule.name
            ),
        });
    }

    /// What was decided last is what people ask for first.
    fn because(&mut self, reason: String) {
        self.reason = reason;
    }
}

fn weighted_destination(
    one: &WeightedDestination,
    route: &HttpRoute,
    one_of_several: bool,
) -> DestinationAnswer {
    let mut answer = destination(one.weight, &one.destination);
    if one_of_several {
        answer.request_headers = edits(&[&one.request_headers]);
        answer.response_headers = edits(&[&one.response_headers]);
        // The route's host, where it sets one, beats the destination's and stands at the top.
        answer.rewrite = one
            .request_headers
            .authority
            .clone()
            .filter(|_| upstream_authority(route, None).is_none())
            .map(|authority| RewriteAnswer {
                uri: None,
                authority: Some(authority),
            });
    }
    answer
}

fn destination(weight: u32, destination: &Destination) -> DestinationAnswer {
    DestinationAnswer {
        host: destination.host.to_string(),
        subset: destination.subset.as_ref().map(ToString::to_string),
        port: destination.port,
        weight,
        destination_rule: destination
            .destination_rule
            .as_ref()
            .map(ToString::to_string),
        load_balancer: destination.load_balancer.as_str().to_owned(),
        endpoints: destination
            .endpoints
            .iter()
            .map(|endpoint| endpoint.address.to_string())
            .collect(),
        reason: NoUpstream::of(destination).map(|why| why.to_string()),
        rewrite: None,
        request_headers: None,
        response_headers: None,
    }
}

/// All operations as one; `None` where there are none.
fn edits(operations: &[&HeaderOperations]) -> Option<HeaderEdits> {
    let mut edits = HeaderEdits::default();
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    for one in operations {
        for (name, value) in &one.set {
            edits.set.insert(name.to_string(), text(value));
        }
        for (name, value) in &one.add {
            let added = edits.add.entry(name.to_string()).or_default();
            if !added.is_empty() {
                added.push(',');
            }
            added.push_str(&text(value));
        }
        for name in &one.remove {
            if !edits.remove.iter().any(|known| known == name.as_str()) {
                edits.remove.push(name.to_string());
            }
        }
    }
    (edits != HeaderEdits::default()).then_some(edits)
}

fn retries(policy: &RetryPolicy) -> RetriesAnswer {
    RetriesAnswer {
        attempts: policy.attempts,
        per_try_timeout_ms: policy.per_try_timeout.map(milliseconds),
        retry_on: policy.on.names.clone(),
    }
}

fn fault(fault: &HttpFault) -> FaultAnswer {
    FaultAnswer {
        delay: fault.delay.as_ref().map(|delay| FaultDelayAnswer {
            ms: milliseconds(delay.duration),
            percentage: delay.percentage,
        }),
        abort: fault.abort.as_ref().map(|abort| FaultAbortAnswer {
            status: abort.status,
            percentage: abort.percentage,
        }),
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
