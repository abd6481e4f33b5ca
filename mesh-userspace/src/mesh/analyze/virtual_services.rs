//! Findings about VirtualServices.

mod destinations;
mod routes;

use std::collections::BTreeSet;

use super::{About, Finding, world::World};
use crate::mesh::{
    names::{self, PORT_WITHOUT_SERVICE},
    protocol,
    resolve::MeshRule,
};

/// Hosts that lead nowhere, routes that are never reached, destinations that do not exist.
pub fn check(world: &World<'_>, findings: &mut Vec<Finding>) {
    for rule in &world.objects.virtual_services {
        if !names::acts_in_mesh(&rule.spec.gateways) {
            let mut about = about(rule.meta, findings);
            about.warn(
                &rule.meta.location,
                "spec.gateways",
                "does not list `mesh`, so the rule is off for clients inside the mesh, and this version \
                 has no gateways: nothing acts on it"
                    .to_owned(),
            );
        }
    }
    let lost = lost_hosts(world);
    let mut destinations = destinations::Checker::new(world);
    for (index, rule) in world.rules.rules().iter().enumerate() {
        let mut about = about(rule.meta, findings);
        hosts(world, rule, &mut about);
        for (host, winner) in lost
            .iter()
            .filter(|(loser, ..)| *loser == index)
            .map(|l| (&l.1, l.2))
        {
            let winner = world.rules.rules()[winner].meta;
            about.warn(
                &rule.meta.location,
                "spec.hosts",
                format!(
                    "VirtualService {} ({}) has the host {host} already and two are not merged: for that \
                     host nothing here acts",
                    winner.name, winner.location
                ),
            );
        }
        routes::check(world, rule, &mut about);
        destinations.check(rule, &mut about);
    }
}

fn about<'f>(meta: &'f crate::config::model::Meta, findings: &'f mut Vec<Finding>) -> About<'f> {
    About {
        kind: "VirtualService",
        meta,
        findings,
    }
}

/// The ports on which requests for any of the rule's hosts can be dialled, and whether they may be HTTP.
fn dialled_ports(world: &World<'_>, rule: &MeshRule<'_>) -> BTreeSet<(u16, Dialled)> {
    let mut ports = BTreeSet::new();
    for host in &rule.hosts {
        let services = world.named_by(host);
        if services.is_empty() || names::wildcard_suffix(host).is_some() {
            ports.insert((PORT_WITHOUT_SERVICE, Dialled::Either));
        }
        for port in services.iter().flat_map(|service| &service.ports) {
            let kind = if port.protocol.is_http() {
                Dialled::Http
            } else if protocol::may_be_http(port.protocol) {
                Dialled::Either
            } else {
                Dialled::Bytes
            };
            ports.insert((port.number, kind));
        }
    }
    ports
}

/// What a port's connections may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Dialled {
    Http,
    Bytes,
    Either,
}

fn hosts(world: &World<'_>, rule: &MeshRule<'_>, about: &mut About<'_>) {
    let location = &rule.meta.location;
    for (index, (full, written)) in rule.hosts.iter().zip(&rule.spec.hosts).enumerate() {
        if !world.named_by(full).is_empty() {
            continue;
        }
        let field = format!("spec.hosts[{index}]");
        match world.unknown_host(full, written) {
            Some(why) => about.warn(location, field, why),
            None => about.note(
                location,
                field,
                format!(
                    "no Service has the host {full}: the rule holds only for requests on port \
                     {PORT_WITHOUT_SERVICE} that name it"
                ),
            ),
        }
    }
}

/// Rule, host, and the rule that has the host instead, for every namespace that sees the first.
fn lost_hosts(world: &World<'_>) -> Vec<(usize, String, usize)> {
    let rules = world.rules.rules();
    let homes = rules.iter().map(|rule| rule.meta.name.namespace.as_ref());
    // Rules are judged where they live, too: in many a folder there are no pods.
    let mut clients: BTreeSet<&str> = world.clients.iter().map(AsRef::as_ref).collect();
    clients.extend(homes);
    let special = world.rules.special_namespaces();
    let everybody = clients.iter().find(|client| !special.contains(*client));
    // Clients of all other namespaces see the same: one of them stands for all.
    let everybody = everybody.copied();
    clients.retain(|client| special.contains(client) || Some(*client) == everybody);
    let tables: Vec<_> = clients
        .iter()
        .map(|client| (*client, world.rules.table(client)))
        .collect();
    let mut lost = Vec::new();
    for (index, rule) in rules.iter().enumerate() {
        for host in &rule.hosts {
            let owners: Vec<usize> = tables
                .iter()
                .filter(|(client, _)| {
                    let home = &rule.meta.name.namespace;
                    names::visibility(&rule.spec.export_to, home, client).is_some()
                })
                .filter_map(|(_, table)| table.written(host))
                .collect();
            if let Some(winner) = owners.first()
                && owners.iter().all(|owner| *owner != index)
            {
                lost.push((index, host.clone(), *winner));
            }
        }
    }
    lost
}
