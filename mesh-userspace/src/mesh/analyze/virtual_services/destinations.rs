//! Destinations that do not exist.

use std::collections::{BTreeMap, BTreeSet};

use super::{Dialled, dialled_ports};
use crate::{
    config::model::Destination,
    mesh::{
        analyze::{About, world::World},
        names,
        resolve::{DestinationResolver, MeshRule, Target},
    },
};

/// Resolves every destination as its clients will have it resolved, and says what is wrong with it.
pub struct Checker<'w, 'o> {
    world: &'w World<'o>,
    resolver: DestinationResolver<'w, 'o>,
}

impl<'w, 'o> Checker<'w, 'o> {
    /// One for all rules: what one resolves, others use.
    pub fn new(world: &'w World<'o>) -> Self {
        let resolver = DestinationResolver::new(&world.services, &world.destination_rules);
        Self { world, resolver }
    }

    /// All destinations of a rule.
    pub fn check(&mut self, rule: &MeshRule<'_>, about: &mut About<'_>) {
        let clients = clients(self.world, rule);
        let ports = dialled_ports(self.world, rule);
        let of = |unwanted: Dialled| -> Vec<u16> {
            let wanted = ports.iter().filter(|(_, kind)| *kind != unwanted);
            wanted.map(|(number, _)| *number).collect()
        };
        let (http, bytes) = (of(Dialled::Bytes), of(Dialled::Http));
        for (route, one) in rule.spec.http.iter().enumerate() {
            // Ports that none of its matches is for are not dialled on the way to this route.
            let only: Vec<u16> = one.matches.iter().filter_map(|block| block.port).collect();
            let limited = !one.matches.is_empty() && only.len() == one.matches.len();
            let mut dialled = http.clone();
            dialled.retain(|port| !limited || only.contains(port));
            for (index, to) in one.destinations.iter().enumerate() {
                let field = format!("spec.http[{route}].route[{index}].destination");
                self.one(rule, &to.destination, (&clients, &dialled), &field, about);
            }
        }
        for (route, one) in rule.spec.tcp.iter().enumerate() {
            for (index, to) in one.destinations.iter().enumerate() {
                let field = format!("spec.tcp[{route}].route[{index}].destination");
                self.one(rule, &to.destination, (&clients, &bytes), &field, about);
            }
        }
    }

    fn one(
        &mut self,
        rule: &MeshRule<'_>,
        destination: &Destination,
        (clients, dialled): (&BTreeSet<&str>, &[u16]),
        field: &str,
        about: &mut About<'_>,
    ) {
        let full = self.world.rules.full_host(rule, &destination.host);
        let Some(service) = self.world.services.get(full.as_str()) else {
            let why = self.world.unknown_host(&full, &destination.host);
            let why = why.unwrap_or_else(|| format!("no Service has the host {full}"));
            about.warn(
                &destination.location,
                format!("{field}.host"),
                format!("{why}; what is sent there gets 503 (NC)"),
            );
            return;
        };
        let target = Target {
            host: &full,
            subset: destination.subset.as_deref(),
            port: destination.port,
        };
        let takes_dialled = self.resolver.takes_dialled_port(target);
        let written = [destination.port.unwrap_or_default()];
        let dialled = if takes_dialled { dialled } else { &written };

        let rules = &self.world.destination_rules;
        let mut asked = rules.clients_apart(&full, &service.name.namespace);
        asked.retain(|client| clients.contains(client));
        // Clients of all other namespaces get the same: one of them stands for all.
        asked.extend(
            clients
                .iter()
                .find(|client| !asked.contains(*client))
                .copied(),
        );
        // Reason to the clients that it holds for.
        let mut wrong: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
        for client in &asked {
            for port in dialled {
                let resolved = self.resolver.resolve(client, target, *port);
                if let Some(reason) = &resolved.invalid {
                    wrong.entry(reason.clone()).or_default().insert(client);
                }
            }
        }
        for (reason, clients) in wrong {
            let has_port = |number: &u16| service.ports.iter().any(|port| port.number == *number);
            let of_port = !dialled.iter().all(has_port) && reason.contains(" port");
            let part = if of_port { "port" } else { "subset" };
            let whose = if clients.len() == asked.len() {
                String::new()
            } else {
                let names: Vec<&str> = clients.into_iter().collect();
                format!(" (for clients in {})", names.join(", "))
            };
            let mend = if of_port && takes_dialled {
                "; none is written and it has several, so it takes the one that was dialled: write one"
            } else {
                ""
            };
            about.warn(
                &destination.location,
                format!("{field}.{part}"),
                format!("{reason}{whose}{mend}; what is sent there gets 503 (NC)"),
            );
        }
    }
}

/// Who sees the rule; where nobody lives that does, whoever may come to live with it.
fn clients<'w>(world: &'w World<'_>, rule: &'w MeshRule<'_>) -> BTreeSet<&'w str> {
    let home = rule.meta.name.namespace.as_ref();
    let mut clients: BTreeSet<&str> = world
        .clients
        .iter()
        .map(AsRef::as_ref)
        .filter(|client| names::visibility(&rule.spec.export_to, home, client).is_some())
        .collect();
    if clients.is_empty() {
        clients.insert(home);
    }
    clients
}
