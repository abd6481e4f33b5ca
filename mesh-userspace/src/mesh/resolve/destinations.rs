//! A host, a subset and a port to endpoints and policy. Equal destinations are one.

use std::{
    collections::{BTreeMap, HashMap},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use super::{
    destination_rules::{DestinationRules, MergedRule},
    endpoints::selector_matches,
};
use crate::{
    config::model::{Labels, TrafficPolicy},
    mesh::model::{Destination, Endpoint, Protocol, Service, ServicePort},
};

/// Istio's `connectionPool.tcp.connectTimeout` where nothing is set.
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Where a rule sends to: its host in full, and what else it names.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    /// In full.
    pub host: &'a str,
    /// As written.
    pub subset: Option<&'a str>,
    /// As written.
    pub port: Option<u16>,
}

/// Resolves destinations, each once.
pub struct DestinationResolver<'a, 'o> {
    services: &'a BTreeMap<Arc<str>, Arc<Service>>,
    rules: &'a DestinationRules<'o>,
    known: HashMap<Key, Arc<Destination>>,
}

#[derive(PartialEq, Eq, Hash)]
struct Key {
    host: Arc<str>,
    subset: Option<Arc<str>>,
    port: u16,
    /// Which merged DestinationRule; they live as long as the resolver's rules do.
    rule: Option<*const ()>,
}

impl<'a, 'o> DestinationResolver<'a, 'o> {
    /// A resolver without memory yet.
    pub fn new(
        services: &'a BTreeMap<Arc<str>, Arc<Service>>,
        rules: &'a DestinationRules<'o>,
    ) -> Self {
        Self {
            services,
            rules,
            known: HashMap::new(),
        }
    }

    /// The DestinationRules that it resolves by.
    pub fn rules(&self) -> &'a DestinationRules<'o> {
        self.rules
    }

    /// Whether the port of this target is the one that the client dialled: none is written, and the
    /// service has several.
    pub fn takes_dialled_port(&self, target: Target<'_>) -> bool {
        target.port.is_none()
            && self
                .services
                .get(target.host)
                .is_some_and(|service| service.ports.len() > 1)
    }

    /// The destination, for clients of `client` that dialled the port `dialled`.
    pub fn resolve(&mut self, client: &str, target: Target<'_>, dialled: u16) -> Arc<Destination> {
        let service = self.services.get(target.host);
        let namespace = service.map(|service| service.name.namespace.as_ref());
        let rule = self.rules.find(client, target.host, namespace);
        let port = match (target.port, service) {
            (Some(written), _) => written,
            (None, Some(service)) if service.ports.len() == 1 => service.ports[0].number,
            (None, _) => dialled,
        };
        let host = service.map_or_else(|| target.host.into(), |service| Arc::clone(&service.host));
        let key = Key {
            host: Arc::clone(&host),
            subset: target.subset.map(Arc::from),
            port,
            rule: rule.as_ref().map(|rule| Rc::as_ptr(rule).cast()),
        };
        if let Some(known) = self.known.get(&key) {
            return Arc::clone(known);
        }
        let destination = Arc::new(make(host, target.subset, port, service, rule.as_deref()));
        self.known.insert(key, Arc::clone(&destination));
        destination
    }
}

fn make(
    host: Arc<str>,
    subset_name: Option<&str>,
    port: u16,
    service: Option<&Arc<Service>>,
    rule: Option<&MergedRule<'_>>,
) -> Destination {
    let service_port = service.and_then(|s| s.ports.iter().find(|p| p.number == port));
    let subset = subset_name.and_then(|name| rule.and_then(|rule| rule.subset(name)));
    let invalid = match (service, service_port, subset_name) {
        (None, ..) => Some(format!("no service has the host {host}")),
        (Some(service), None, _) => Some(unknown_port(service, port)),
        (_, _, Some(name)) if subset.is_none() => Some(unknown_subset(&host, name, rule)),
        _ => None,
    };
    let endpoints = match (&invalid, service_port) {
        (None, Some(service_port)) => ready(service_port, subset.map(|(s, _)| &s.labels)),
        _ => Arc::default(),
    };
    let top = rule.and_then(|rule| rule.traffic_policy);
    let own = subset.map(|(subset, _)| &subset.traffic_policy);
    Destination {
        host,
        subset: subset_name.map(Arc::from),
        port,
        service: service.cloned(),
        destination_rule: subset
            .map(|(_, name)| (*name).clone())
            .or_else(|| rule.map(|rule| rule.name.clone())),
        protocol: service_port.map_or(Protocol::Auto, |service_port| service_port.protocol),
        load_balancer: block(own, top, |policy| policy.load_balancer).unwrap_or_default(),
        connect_timeout: block(own, top, |policy| policy.connect_timeout)
            .unwrap_or(DEFAULT_CONNECT_TIMEOUT),
        endpoints,
        invalid,
    }
}

/// A subset's block replaces the top level's; an absent one inherits.
fn block<T>(
    own: Option<&TrafficPolicy>,
    top: Option<&TrafficPolicy>,
    field: impl Fn(&TrafficPolicy) -> Option<T>,
) -> Option<T> {
    own.and_then(&field).or_else(|| top.and_then(&field))
}

fn ready(port: &ServicePort, labels: Option<&Labels>) -> Arc<[Endpoint]> {
    let chosen = |endpoint: &&Endpoint| {
        endpoint.ready
            && labels.is_none_or(|wanted| match &endpoint.workload {
                Some(workload) => selector_matches(wanted, &workload.labels),
                None => wanted.is_empty(),
            })
    };
    if port.endpoints.iter().all(|endpoint| chosen(&endpoint)) {
        Arc::clone(&port.endpoints)
    } else {
        port.endpoints.iter().filter(chosen).cloned().collect()
    }
}

fn unknown_port(service: &Service, port: u16) -> String {
    let ports: Vec<String> = service.ports.iter().map(|p| p.number.to_string()).collect();
    if ports.is_empty() {
        format!("service {} has no TCP port", service.host)
    } else {
        format!(
            "service {} has no port {port}; it has {}",
            service.host,
            ports.join(", ")
        )
    }
}

fn unknown_subset(host: &str, subset: &str, rule: Option<&MergedRule<'_>>) -> String {
    let Some(rule) = rule else {
        return format!("no DestinationRule for {host} defines the subset {subset}");
    };
    let names: Vec<&str> = rule.subsets.iter().map(|(s, _)| s.name.as_str()).collect();
    let has = if names.is_empty() {
        "no subsets".to_owned()
    } else {
        format!("only {}", names.join(", "))
    };
    format!(
        "DestinationRule {} does not define the subset {subset} of {host}; it has {has}",
        rule.name
    )
}
