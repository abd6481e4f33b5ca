//! How connections to a service port go: by the agent only where a rule needs requests or bytes decided.

use std::{collections::BTreeSet, sync::Arc};

use super::virtual_services::{HostTable, MeshRule, VirtualServices};
use crate::{
    config::model::{HttpMatch, L4Match},
    mesh::{
        model::{Service, ServicePort, Way},
        names::{self, PORT_WITHOUT_SERVICE},
        protocol,
    },
};

/// Fills `way` and `way_reason` in. A port goes by the agent if a rule that clients of any of these
/// namespaces see decides about it: the kernel's verdict is one for all clients of the node.
pub fn decide(services: &mut [Service], rules: &VirtualServices<'_>, clients: &BTreeSet<&str>) {
    let known: BTreeSet<Arc<str>> = services.iter().map(|s| Arc::clone(&s.host)).collect();
    let special = rules.special_namespaces();
    // Clients of all other namespaces see the same rules: one table stands for them.
    let mut tables: Vec<HostTable<'_>> = clients
        .iter()
        .filter(|client| special.contains(*client))
        .map(|client| rules.table(client))
        .collect();
    if clients.iter().any(|client| !special.contains(client)) {
        tables.push(rules.table(""));
    }
    let without_service = tables
        .iter()
        .find_map(|table| rule_without_service(table, rules, &known));

    for service in services {
        let candidates: BTreeSet<usize> = tables
            .iter()
            .filter_map(|table| table.rule_of(&service.host))
            .collect();
        for port in &mut service.ports {
            let needed = candidates
                .iter()
                .find_map(|index| reason(&rules.rules()[*index], port))
                .or_else(|| without_service.and_then(|rule| reason_without_service(rule, port)));
            (port.way, port.way_reason) = match needed {
                Some(reason) => (Way::Agent, reason.into()),
                None => (Way::Direct, direct_reason(port).into()),
            };
        }
    }
}

/// Whether a route with these matches can hold for connections to `port` from inside the mesh.
pub fn http_matches_allow(matches: &[HttpMatch], port: u16) -> bool {
    matches.is_empty()
        || matches.iter().any(|one| {
            one.port.is_none_or(|wanted| wanted == port) && names::acts_in_mesh(&one.gateways)
        })
}

/// As [`http_matches_allow`], for TCP routes.
pub fn l4_matches_allow(matches: &[L4Match], port: u16) -> bool {
    matches.is_empty()
        || matches.iter().any(|one| {
            one.port.is_none_or(|wanted| wanted == port) && names::acts_in_mesh(&one.gateways)
        })
}

fn reason(rule: &MeshRule<'_>, port: &ServicePort) -> Option<String> {
    let name = &rule.meta.name;
    let http = protocol::may_be_http(port.protocol)
        && rule
            .spec
            .http
            .iter()
            .any(|route| http_matches_allow(&route.matches, port.number));
    if http {
        return Some(format!(
            "VirtualService {name} decides about its HTTP requests, so the agent has to read them"
        ));
    }
    let tcp = !port.protocol.is_http()
        && rule
            .spec
            .tcp
            .iter()
            .any(|route| l4_matches_allow(&route.matches, port.number));
    tcp.then(|| format!("VirtualService {name} routes its TCP connections, which the agent does"))
}

/// A rule whose host no service has answers on port 80 of any service that a client dials.
fn reason_without_service(rule: &MeshRule<'_>, port: &ServicePort) -> Option<String> {
    let reachable = port.number == PORT_WITHOUT_SERVICE && protocol::may_be_http(port.protocol);
    reachable.then(|| {
        format!(
            "VirtualService {} has a host without a service, which requests on port 80 may name, so the \
             agent has to read them",
            rule.meta.name
        )
    })
}

/// A rule with HTTP routes for a host that is no service's and not a mistyped one of this cluster.
fn rule_without_service<'r, 'o>(
    table: &HostTable<'r>,
    rules: &'r VirtualServices<'o>,
    known: &BTreeSet<Arc<str>>,
) -> Option<&'r MeshRule<'o>> {
    let exact = table.exact.iter().filter_map(|(host, index)| {
        let outside = !known.contains(*host) && !host.contains(".svc.");
        outside.then_some(*index)
    });
    let starred = table.wildcards.iter().filter_map(|(suffix, index)| {
        let outside = !known
            .iter()
            .any(|host| names::wildcard_covers(suffix, host));
        (outside && !suffix.contains(".svc.")).then_some(*index)
    });
    exact
        .chain(starred)
        .filter(|index| {
            let routes = &rules.rules()[*index].spec.http;
            routes
                .iter()
                .any(|route| http_matches_allow(&route.matches, PORT_WITHOUT_SERVICE))
        })
        .min()
        .map(|index| &rules.rules()[index])
}

fn direct_reason(port: &ServicePort) -> &'static str {
    if protocol::may_be_http(port.protocol) {
        "no VirtualService decides about its requests, so the kernel picks the endpoint"
    } else {
        "no VirtualService routes its connections, so the kernel picks the endpoint"
    }
}
