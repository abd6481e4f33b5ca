//! Rules as clients get them: what is matched, what is done, where it ends.

mod conditions;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    config::model::HttpFault,
    mesh::{
        model::{
            Destination, HttpRoute, RetryPolicy, RouteAction, Rule, Snapshot, TcpRoute, VirtualHost,
        },
        route::NoUpstream,
    },
};

/// A VirtualService for one host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteView {
    /// A service's full host, or a host or wildcard that no service has.
    pub host: String,
    /// `namespace/name`.
    pub virtual_service: String,
    /// Namespaces whose clients get it so.
    pub clients: Vec<String>,
    /// In order of precedence.
    pub http: Vec<RouteEntryView>,
    /// In order of precedence.
    pub tcp: Vec<RouteEntryView>,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteEntryView {
    /// Its place in the list, from 0.
    pub index: usize,
    /// Its own name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Holds for connections to this port only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dialled_port: Option<u16>,
    /// One sentence for each match; none matches all.
    pub matches: Vec<String>,
    /// `route`, `redirect` or `directResponse`.
    pub action: String,
    /// With action `route`.
    pub destinations: Vec<RouteDestinationView>,
    /// What else is done, a few words each.
    pub policies: Vec<String>,
}

/// A destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteDestinationView {
    /// Full host.
    pub host: String,
    /// The subset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subset: Option<String>,
    /// The service's port.
    pub port: u16,
    /// As written.
    pub weight: u32,
    /// `namespace/name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_rule: Option<String>,
    /// As the API spells it.
    pub load_balancer: String,
    /// How many are ready.
    pub endpoints: usize,
    /// Why nothing can be sent there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Namespaces that share a rule, to the last endpoint, share a row.
pub(super) fn of(snapshot: &Snapshot) -> Vec<RouteView> {
    let mut rows: BTreeMap<(String, String, *const Rule), RouteView> = BTreeMap::new();
    for view in snapshot.views.values() {
        let wildcards = view.wildcard_hosts.iter();
        let wildcards = wildcards.map(|(suffix, at)| (format!("*{suffix}"), at));
        let hosts = view.hosts.iter().map(|(host, at)| (host.to_string(), at));
        for (host, virtual_host) in hosts.chain(wildcards) {
            let (Some(rule), true) = (&virtual_host.rule, is_full(&host, virtual_host)) else {
                continue;
            };
            let key = (host, rule.name.to_string(), std::sync::Arc::as_ptr(rule));
            rows.entry(key.clone())
                .or_insert_with(|| RouteView::of(key.0, rule))
                .clients
                .push(view.namespace.to_string());
        }
    }
    let mut rows: Vec<RouteView> = rows.into_values().collect();
    for row in &mut rows {
        row.clients.sort();
    }
    // The map's last key is an address: what is shown must not depend on it.
    rows.sort_by(|one, other| {
        (&one.host, &one.virtual_service, &one.clients).cmp(&(
            &other.host,
            &other.virtual_service,
            &other.clients,
        ))
    });
    rows
}

/// Of a service's spellings the full one stands for all.
fn is_full(host: &str, virtual_host: &VirtualHost) -> bool {
    let service = virtual_host.service.as_ref();
    service.is_none_or(|service| *service.host == *host)
}

impl RouteView {
    fn of(host: String, rule: &Rule) -> Self {
        Self {
            host,
            virtual_service: rule.name.to_string(),
            clients: Vec::new(),
            http: rule.http.iter().map(|route| http(route)).collect(),
            tcp: rule.tcp.iter().map(|route| tcp(route)).collect(),
        }
    }
}

fn http(route: &HttpRoute) -> RouteEntryView {
    let mut policies = Vec::new();
    let (action, destinations) = match &route.action {
        RouteAction::Forward(to) => (
            "route",
            to.iter()
                .map(|one| destination(one.weight, &one.destination))
                .collect(),
        ),
        RouteAction::Redirect(redirect) => {
            policies.push(format!("redirect {}", redirect.code));
            ("redirect", Vec::new())
        }
        RouteAction::DirectResponse(response) => {
            policies.push(format!("answer {}", response.status));
            ("directResponse", Vec::new())
        }
    };
    if let Some(fault) = &route.fault {
        policies.extend(faults(fault));
    }
    if let Some(rewrite) = &route.rewrite {
        if let Some(uri) = &rewrite.uri {
            policies.push(format!("rewrite path to {uri}"));
        }
        if let Some((pattern, replacement)) = &rewrite.uri_regex {
            policies.push(format!("rewrite path {pattern} to {replacement}"));
        }
        if let Some(authority) = &rewrite.authority {
            policies.push(format!("rewrite host to {authority}"));
        }
    }
    if let Some(timeout) = route.timeout {
        policies.push(format!("timeout {timeout:?}"));
    }
    if !destinations.is_empty() {
        policies.push(retries(&route.retries));
    }
    RouteEntryView {
        index: route.index.unwrap_or_default(),
        name: route.name.clone(),
        dialled_port: route.dialled_port,
        matches: route.matches.iter().map(conditions::http).collect(),
        action: action.to_owned(),
        destinations,
        policies,
    }
}

fn tcp(route: &TcpRoute) -> RouteEntryView {
    let destinations = route.destinations.iter();
    RouteEntryView {
        index: route.index,
        name: None,
        dialled_port: route.dialled_port,
        matches: route.matches.iter().map(conditions::l4).collect(),
        action: "route".to_owned(),
        destinations: destinations
            .map(|(weight, one)| destination(*weight, one))
            .collect(),
        policies: Vec::new(),
    }
}

fn destination(weight: u32, one: &Destination) -> RouteDestinationView {
    RouteDestinationView {
        host: one.host.to_string(),
        subset: one.subset.as_ref().map(ToString::to_string),
        port: one.port,
        weight,
        destination_rule: one.destination_rule.as_ref().map(ToString::to_string),
        load_balancer: one.load_balancer.as_str().to_owned(),
        endpoints: one.endpoints.len(),
        reason: NoUpstream::of(one).map(|why| why.to_string()),
    }
}

fn faults(fault: &HttpFault) -> Vec<String> {
    let delay = fault
        .delay
        .as_ref()
        .map(|delay| format!("delay {:?} for {} %", delay.duration, delay.percentage));
    let abort = fault
        .abort
        .as_ref()
        .map(|abort| format!("abort {} for {} %", abort.status, abort.percentage));
    delay.into_iter().chain(abort).collect()
}

fn retries(policy: &RetryPolicy) -> String {
    let per_try = policy
        .per_try_timeout
        .map(|limit| format!(", {limit:?} each"));
    match policy.attempts {
        0 => "no retries".to_owned(),
        attempts => format!(
            "retries {attempts} on {}{}",
            policy.on.names.join(","),
            per_try.unwrap_or_default()
        ),
    }
}
