//! Which services the clients of a namespace may see otherwise than everybody does. A superset is harmless:
//! what is resolved again and comes out equal is shared all the same.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use super::{destination_rules::DestinationRules, virtual_services::VirtualServices};
use crate::mesh::{model::Service, names};

/// By the clients' namespace.
pub struct Differences<'a>(HashMap<&'a str, Difference>);

/// What may differ for one namespace.
#[derive(Default)]
pub struct Difference {
    /// Indexes of services, by host.
    pub services: BTreeSet<usize>,
    /// Whether rules differ, and with them the hosts that no service has.
    pub rules: bool,
}

impl<'a> Differences<'a> {
    /// Goes from the rules that are not for everybody, and from the DestinationRules that a namespace gets
    /// before others, to the hosts that they change.
    pub fn find(
        services: &BTreeMap<Arc<str>, Arc<Service>>,
        rules: &'a VirtualServices<'_>,
        destination_rules: &'a DestinationRules<'_>,
    ) -> Self {
        let hosts = Hosts::new(services);
        let users = users(rules, &hosts);
        let mut found = Self(HashMap::new());
        for apart in destination_rules.apart() {
            let changed: Vec<usize> = hosts
                .named_by(&apart.host)
                .into_iter()
                .filter(|index| {
                    !(apart.abroad_only && *hosts.all[*index].name.namespace == *apart.client)
                })
                .collect();
            if changed.is_empty() {
                continue;
            }
            let difference = found.0.entry(apart.client).or_default();
            for index in changed {
                difference.services.insert(index);
                for rule in users.get(&index).into_iter().flatten() {
                    difference.add_rule(&rules.rules()[*rule].hosts, &hosts);
                }
            }
        }
        for rule in rules.rules() {
            let export_to = &rule.spec.export_to;
            if names::is_public(export_to) {
                continue;
            }
            let home = rule.meta.name.namespace.as_ref();
            for client in export_to.iter().map(String::as_str).chain([home]) {
                let difference = found.0.entry(client).or_default();
                difference.add_rule(&rule.hosts, &hosts);
            }
        }
        found
    }

    /// What may differ for the clients of a namespace; `None` for most.
    pub fn of(&self, client: &str) -> Option<&Difference> {
        self.0.get(client)
    }
}

impl Difference {
    fn add_rule(&mut self, rule_hosts: &[String], hosts: &Hosts<'_>) {
        self.rules = true;
        for host in rule_hosts {
            self.services.extend(hosts.named_by(host));
        }
    }
}

/// All services by host, with the index that the views count them by.
struct Hosts<'s> {
    all: Vec<&'s Service>,
    by_host: HashMap<&'s str, usize>,
}

impl<'s> Hosts<'s> {
    fn new(services: &'s BTreeMap<Arc<str>, Arc<Service>>) -> Self {
        let all: Vec<&Service> = services.values().map(AsRef::as_ref).collect();
        let by_host = all.iter().enumerate();
        let by_host = by_host.map(|(index, service)| (service.host.as_ref(), index));
        Self {
            by_host: by_host.collect(),
            all,
        }
    }

    fn named_by(&self, host: &str) -> Vec<usize> {
        match names::wildcard_suffix(host) {
            None => self.by_host.get(host).copied().into_iter().collect(),
            Some(suffix) => (0..self.all.len())
                .filter(|index| names::wildcard_covers(suffix, &self.all[*index].host))
                .collect(),
        }
    }
}

/// The rules that send to each service.
fn users(rules: &VirtualServices<'_>, hosts: &Hosts<'_>) -> HashMap<usize, BTreeSet<usize>> {
    let mut users: HashMap<usize, BTreeSet<usize>> = HashMap::new();
    for (index, rule) in rules.rules().iter().enumerate() {
        let http = rule.spec.http.iter().flat_map(|route| &route.destinations);
        let tcp = rule.spec.tcp.iter().flat_map(|route| &route.destinations);
        let written = http
            .map(|one| &one.destination.host)
            .chain(tcp.map(|one| &one.destination.host));
        for host in written {
            let full = rules.full_host(rule, host);
            if let Some(service) = hosts.by_host.get(full.as_str()) {
                users.entry(*service).or_default().insert(index);
            }
        }
    }
    users
}
