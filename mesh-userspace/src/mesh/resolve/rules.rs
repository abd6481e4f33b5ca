//! A VirtualService as the clients of one namespace see it, with its destinations resolved.

use std::{collections::HashMap, sync::Arc};

use super::{
    destinations::{DestinationResolver, Target},
    virtual_services::{MeshRule, VirtualServices},
};
use crate::{
    config::model as config,
    mesh::{
        model::{
            Destination, HttpRoute, RetryPolicy, RouteAction, Rule, TcpRoute, WeightedDestination,
        },
        names::PORT_WITHOUT_SERVICE,
    },
};

/// The weight of a destination that stands alone and has none written.
pub const ALL: u32 = 100;

/// Resolves rules; equal ones are one.
pub struct RuleResolver<'a, 'o> {
    rules: &'a VirtualServices<'o>,
    destinations: DestinationResolver<'a, 'o>,
    known: HashMap<Key, Arc<Rule>>,
}

/// A rule differs between two namespaces only in what its destinations resolve to, and between two hosts
/// only in the ports that can be dialled.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    rule: usize,
    dialled: Vec<Option<u16>>,
    destinations: Vec<*const Destination>,
}

/// A route with its destinations, before anything else of it is copied.
struct Plan<'r, R> {
    index: usize,
    route: &'r R,
    dialled: Option<u16>,
    destinations: Vec<Weighted<'r>>,
}

struct Weighted<'r> {
    weight: u32,
    destination: Arc<Destination>,
    headers: Option<&'r config::Headers>,
}

/// One destination of a route, HTTP or TCP.
struct Written<'r> {
    weight: u32,
    destination: &'r config::Destination,
    headers: Option<&'r config::Headers>,
}

impl<'a, 'o> RuleResolver<'a, 'o> {
    /// A resolver without memory yet.
    pub fn new(rules: &'a VirtualServices<'o>, destinations: DestinationResolver<'a, 'o>) -> Self {
        Self {
            rules,
            destinations,
            known: HashMap::new(),
        }
    }

    /// The rules that it resolves.
    pub fn virtual_services(&self) -> &'a VirtualServices<'o> {
        self.rules
    }

    /// For what no rule decides.
    pub fn destinations(&mut self) -> &mut DestinationResolver<'a, 'o> {
        &mut self.destinations
    }

    /// The rule of this index for clients of `client`, for a host with these ports.
    pub fn resolve(&mut self, client: &str, index: usize, ports: &[u16]) -> Arc<Rule> {
        let rule = &self.rules.rules()[index];
        let spec = rule.spec;
        let http = self.plan(client, rule, ports, &spec.http, |route| {
            let written = route.destinations.iter().map(|one| Written {
                weight: one.weight,
                destination: &one.destination,
                headers: Some(&one.headers),
            });
            written.collect()
        });
        let tcp = self.plan(client, rule, ports, &spec.tcp, |route| {
            let written = route.destinations.iter().map(|one| Written {
                weight: one.weight,
                destination: &one.destination,
                headers: None,
            });
            written.collect()
        });
        let key = Key {
            rule: index,
            dialled: dialled(&http).chain(dialled(&tcp)).collect(),
            destinations: pointers(&http).chain(pointers(&tcp)).collect(),
        };
        let resolved = self.known.entry(key).or_insert_with(|| {
            Arc::new(Rule {
                name: rule.meta.name.clone(),
                http: http.into_iter().map(http_route).collect(),
                tcp: tcp.into_iter().map(tcp_route).collect(),
            })
        });
        Arc::clone(resolved)
    }

    fn plan<'r, R>(
        &mut self,
        client: &str,
        rule: &MeshRule<'_>,
        ports: &[u16],
        routes: &'r [R],
        written: impl Fn(&'r R) -> Vec<Written<'r>>,
    ) -> Vec<Plan<'r, R>> {
        let mut plans = Vec::with_capacity(routes.len());
        for (index, route) in routes.iter().enumerate() {
            let written: Vec<(Written<'r>, String)> = in_use(written(route))
                .into_iter()
                .map(|one| {
                    let host = self.rules.full_host(rule, &one.destination.host);
                    (one, host)
                })
                .collect();
            let by_port = ports.len() > 1
                && written.iter().any(|(one, host)| {
                    self.destinations
                        .takes_dialled_port(target(one.destination, host))
                });
            let only = ports.first().copied().unwrap_or(PORT_WITHOUT_SERVICE);
            let variants = if by_port { ports } else { &[only] };
            for port in variants {
                let destinations = written
                    .iter()
                    .map(|(one, host)| Weighted {
                        weight: one.weight,
                        destination: self.destinations.resolve(
                            client,
                            target(one.destination, host),
                            *port,
                        ),
                        headers: one.headers,
                    })
                    .collect();
                plans.push(Plan {
                    index,
                    route,
                    dialled: by_port.then_some(*port),
                    destinations,
                });
            }
        }
        plans
    }
}

/// Zero weights are dropped where there are others; a destination that stands alone gets all.
fn in_use(mut written: Vec<Written<'_>>) -> Vec<Written<'_>> {
    if written.iter().any(|one| one.weight > 0) {
        written.retain(|one| one.weight > 0);
    } else {
        for one in &mut written {
            one.weight = ALL;
        }
    }
    written
}

fn target<'t>(destination: &'t config::Destination, host: &'t str) -> Target<'t> {
    Target {
        host,
        subset: destination.subset.as_deref(),
        port: destination.port,
    }
}

fn dialled<'p, R>(plans: &'p [Plan<'_, R>]) -> impl Iterator<Item = Option<u16>> + use<'p, R> {
    plans.iter().map(|plan| plan.dialled)
}

fn pointers<'p, R>(
    plans: &'p [Plan<'_, R>],
) -> impl Iterator<Item = *const Destination> + use<'p, R> {
    let destinations = plans.iter().flat_map(|plan| &plan.destinations);
    destinations.map(|one| Arc::as_ptr(&one.destination))
}

fn http_route(plan: Plan<'_, config::HttpRoute>) -> Arc<HttpRoute> {
    let route = plan.route;
    let action = if let Some(redirect) = &route.redirect {
        RouteAction::Redirect(redirect.clone())
    } else if let Some(response) = &route.direct_response {
        RouteAction::DirectResponse(response.clone())
    } else {
        RouteAction::Forward(plan.destinations.into_iter().map(weighted).collect())
    };
    Arc::new(HttpRoute {
        index: Some(plan.index),
        dialled_port: plan.dialled,
        name: route.name.clone(),
        matches: route.matches.clone(),
        action,
        rewrite: route.rewrite.clone(),
        timeout: route.timeout,
        retries: RetryPolicy::effective(route.retries.as_ref()),
        fault: route.fault.clone(),
        request_headers: route.headers.request.clone(),
        response_headers: route.headers.response.clone(),
    })
}

fn weighted(one: Weighted<'_>) -> WeightedDestination {
    let headers = one.headers.cloned().unwrap_or_default();
    WeightedDestination {
        weight: one.weight,
        destination: one.destination,
        request_headers: headers.request,
        response_headers: headers.response,
    }
}

fn tcp_route(plan: Plan<'_, config::TcpRoute>) -> Arc<TcpRoute> {
    let destinations = plan
        .destinations
        .into_iter()
        .map(|one| (one.weight, one.destination))
        .collect();
    Arc::new(TcpRoute {
        index: plan.index,
        dialled_port: plan.dialled,
        matches: plan.route.matches.clone(),
        destinations,
    })
}
