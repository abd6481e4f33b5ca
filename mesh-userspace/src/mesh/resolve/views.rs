//! What the clients of each namespace see: every spelling of a host to who answers for it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use super::{
    destinations::{DestinationResolver, Target},
    differences::{Difference, Differences},
    rules::{ALL, RuleResolver},
    virtual_services::{HostTable, VirtualServices},
};
use crate::config::model::HeaderOperations;
use crate::mesh::{
    model::{
        Destination, HttpRoute, RetryPolicy, RouteAction, Rule, Service, View, VirtualHost,
        WeightedDestination,
    },
    names::PORT_WITHOUT_SERVICE,
};

/// The namespace of clients whom no object names and who live with none.
const NOBODY: &str = "";

/// A view for each namespace in `clients`. What views have in common is resolved once and shared.
pub fn build<'o>(
    services: &BTreeMap<Arc<str>, Arc<Service>>,
    rules: &VirtualServices<'o>,
    destinations: DestinationResolver<'_, 'o>,
    clients: &BTreeSet<&str>,
) -> HashMap<Arc<str>, Arc<View>> {
    if clients.is_empty() {
        return HashMap::new();
    }
    let differences = Differences::find(services, rules, destinations.rules());
    let mut builder = Builder::new(
        services.values().map(Spelled::new).collect(),
        RuleResolver::new(rules, destinations),
    );
    let common = builder.common();
    let mut views = HashMap::with_capacity(clients.len());
    for client in clients {
        let mut view = View {
            namespace: (*client).into(),
            hosts: common.hosts.clone(),
            wildcard_hosts: common.wildcard_hosts.clone(),
        };
        if let Some(difference) = differences.of(client) {
            builder.apply(difference, &mut view);
        }
        builder.add_bare_names(&mut view);
        views.insert(Arc::clone(&view.namespace), Arc::new(view));
    }
    views
}

/// A service and what it may be called from everywhere.
struct Spelled {
    service: Arc<Service>,
    spellings: Vec<Arc<str>>,
}

impl Spelled {
    /// `svc.ns`, `svc.ns.svc`, the full name, the cluster IPs.
    fn new(service: &Arc<Service>) -> Self {
        let (name, namespace) = (&service.name.name, &service.name.namespace);
        let mut spellings: Vec<Arc<str>> = vec![
            format!("{name}.{namespace}").into(),
            format!("{name}.{namespace}.svc").into(),
            Arc::clone(&service.host),
        ];
        spellings.extend(service.addresses.iter().map(|ip| ip.to_string().into()));
        Self {
            service: Arc::clone(service),
            spellings,
        }
    }
}

/// All that a service's host can differ in between two namespaces.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    service: usize,
    rule: Option<*const Rule>,
    defaults: Vec<*const Destination>,
}

struct Builder<'a, 'o> {
    services: Vec<Spelled>,
    /// Indexes into `services`.
    by_namespace: HashMap<Arc<str>, Vec<usize>>,
    rules: RuleResolver<'a, 'o>,
    known: HashMap<Key, Arc<VirtualHost>>,
}

impl<'a, 'o> Builder<'a, 'o> {
    fn new(services: Vec<Spelled>, rules: RuleResolver<'a, 'o>) -> Self {
        let mut by_namespace: HashMap<_, Vec<usize>> = HashMap::new();
        for (index, Spelled { service, .. }) in services.iter().enumerate() {
            let namespace = Arc::clone(&service.name.namespace);
            by_namespace.entry(namespace).or_default().push(index);
        }
        Self {
            services,
            by_namespace,
            rules,
            known: HashMap::new(),
        }
    }

    /// What clients see whom no object names: everything but the bare names.
    fn common(&mut self) -> View {
        let table = self.rules.virtual_services().table(NOBODY);
        let mut view = View::default();
        for index in 0..self.services.len() {
            let rule = table.rule_of(&self.services[index].service.host);
            let virtual_host = self.virtual_host(NOBODY, index, rule);
            for spelling in &self.services[index].spellings {
                // Where two services claim one address, the first by host has it.
                view.hosts
                    .entry(Arc::clone(spelling))
                    .or_insert_with(|| Arc::clone(&virtual_host));
            }
        }
        self.add_without_service(&table, &mut view);
        view
    }

    /// Resolves again what may differ for the view's clients.
    fn apply(&mut self, difference: &Difference, view: &mut View) {
        let table = self.rules.virtual_services().table(&view.namespace);
        for index in &difference.services {
            let rule = table.rule_of(&self.services[*index].service.host);
            let namespace = Arc::clone(&view.namespace);
            let virtual_host = self.virtual_host(&namespace, *index, rule);
            for spelling in &self.services[*index].spellings {
                if let Some(known) = view.hosts.get_mut(spelling)
                    && known.service.as_ref().map(|service| &service.host)
                        == virtual_host.service.as_ref().map(|service| &service.host)
                {
                    *known = Arc::clone(&virtual_host);
                }
            }
        }
        if difference.rules {
            view.hosts
                .retain(|_, virtual_host| virtual_host.service.is_some());
            view.wildcard_hosts.clear();
            self.add_without_service(&table, view);
        }
    }

    /// Hosts of rules that no service has, and wildcards.
    fn add_without_service(&mut self, table: &HostTable<'_>, view: &mut View) {
        let client = Arc::clone(&view.namespace);
        for (host, rule) in &table.exact {
            if !view.hosts.contains_key(*host) {
                let virtual_host = self.without_service(&client, *rule);
                view.hosts.insert((*host).into(), virtual_host);
            }
        }
        for (suffix, rule) in &table.wildcards {
            let virtual_host = self.without_service(&client, *rule);
            view.wildcard_hosts.push(((*suffix).into(), virtual_host));
        }
    }

    /// A bare `svc` is good in its own namespace only.
    fn add_bare_names(&self, view: &mut View) {
        for index in self.by_namespace.get(&view.namespace).into_iter().flatten() {
            let service = &self.services[*index].service;
            if let Some(virtual_host) = view.hosts.get(&service.host).cloned() {
                let bare = Arc::clone(&service.name.name);
                view.hosts.insert(bare, virtual_host);
            }
        }
    }

    fn virtual_host(
        &mut self,
        client: &str,
        index: usize,
        rule: Option<usize>,
    ) -> Arc<VirtualHost> {
        let service = Arc::clone(&self.services[index].service);
        let ports: Vec<u16> = service.ports.iter().map(|port| port.number).collect();
        let rule = rule.map(|rule| self.rules.resolve(client, rule, &ports));
        let mut destinations = Vec::with_capacity(ports.len());
        for port in ports {
            let target = Target {
                host: &service.host,
                subset: None,
                port: Some(port),
            };
            destinations.push(self.rules.destinations().resolve(client, target, port));
        }
        let key = Key {
            service: index,
            rule: rule.as_ref().map(Arc::as_ptr),
            defaults: destinations.iter().map(Arc::as_ptr).collect(),
        };
        let known = self.known.entry(key).or_insert_with(|| {
            Arc::new(VirtualHost {
                service: Some(service),
                rule,
                defaults: destinations.into_iter().map(default_route).collect(),
            })
        });
        Arc::clone(known)
    }

    fn without_service(&mut self, client: &str, rule: usize) -> Arc<VirtualHost> {
        let rule = self.rules.resolve(client, rule, &[PORT_WITHOUT_SERVICE]);
        Arc::new(VirtualHost {
            service: None,
            rule: Some(rule),
            defaults: Vec::new(),
        })
    }
}

/// The service itself, with the mesh's default retries.
fn default_route(destination: Arc<Destination>) -> Arc<HttpRoute> {
    Arc::new(HttpRoute {
        index: None,
        dialled_port: None,
        name: None,
        matches: Vec::new(),
        action: RouteAction::Forward(vec![WeightedDestination {
            weight: ALL,
            destination,
            request_headers: HeaderOperations::default(),
            response_headers: HeaderOperations::default(),
        }]),
        rewrite: None,
        timeout: None,
        retries: RetryPolicy::mesh_default(),
        fault: None,
        request_headers: HeaderOperations::default(),
        response_headers: HeaderOperations::default(),
    })
}
