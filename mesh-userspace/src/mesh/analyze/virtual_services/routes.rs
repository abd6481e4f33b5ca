//! Routes that are never reached, and matches that never hold.

use super::{Dialled, dialled_ports};
use crate::{
    config::model::{HttpMatch, L4Match, StringMatch},
    mesh::{
        analyze::{About, world::World},
        names,
        resolve::MeshRule,
    },
};

/// Says which of a rule's routes never act, and why.
pub fn check(world: &World<'_>, rule: &MeshRule<'_>, about: &mut About<'_>) {
    let ports = dialled_ports(world, rule);
    let named = rule
        .hosts
        .iter()
        .any(|host| !world.named_by(host).is_empty());
    let location = &rule.meta.location;
    if named && !rule.spec.http.is_empty() && ports.iter().all(|(_, kind)| *kind == Dialled::Bytes)
    {
        about.warn(
            location,
            "spec.http",
            "no port of the hosts speaks HTTP by its name or appProtocol, so no request is read: name the \
             port http-… or set appProtocol: http"
                .to_owned(),
        );
    }
    if named && !rule.spec.tcp.is_empty() && ports.iter().all(|(_, kind)| *kind == Dialled::Http) {
        about.warn(
            location,
            "spec.tcp",
            "all ports of the hosts speak HTTP by their names or appProtocol, where TCP routes do not \
             count"
                .to_owned(),
        );
    }
    let numbers: Vec<u16> = ports.iter().map(|(number, _)| *number).collect();
    http(rule, &numbers, about);
    tcp(rule, &numbers, about);
}

fn http(rule: &MeshRule<'_>, ports: &[u16], about: &mut About<'_>) {
    let mut last = None;
    for (index, route) in rule.spec.http.iter().enumerate() {
        let field = format!("spec.http[{index}]");
        if let Some((before, line)) = last {
            about.warn(&route.location, &field, dead("http", before, line));
            continue;
        }
        for (number, block) in route.matches.iter().enumerate() {
            let field = format!("{field}.match[{number}]");
            never(block.port, &block.gateways, ports, |what, why| {
                about.warn(&route.location, format!("{field}.{what}"), why);
            });
        }
        if route.matches.is_empty() || route.matches.iter().any(takes_all) {
            last = Some((index, route.location.line));
        }
    }
}

fn tcp(rule: &MeshRule<'_>, ports: &[u16], about: &mut About<'_>) {
    let mut last = None;
    for (index, route) in rule.spec.tcp.iter().enumerate() {
        let field = format!("spec.tcp[{index}]");
        if let Some((before, line)) = last {
            about.warn(&route.location, &field, dead("tcp", before, line));
            continue;
        }
        for (number, block) in route.matches.iter().enumerate() {
            let field = format!("{field}.match[{number}]");
            never(block.port, &block.gateways, ports, |what, why| {
                about.warn(&route.location, format!("{field}.{what}"), why);
            });
        }
        let takes_all = |block: &L4Match| {
            block.port.is_none()
                && block.source_labels.is_empty()
                && block.source_namespace.is_none()
                && block.gateways.is_empty()
        };
        if route.matches.is_empty() || route.matches.iter().any(takes_all) {
            last = Some((index, route.location.line));
        }
    }
}

fn dead(list: &str, before: usize, line: u32) -> String {
    format!(
        "never reached: spec.{list}[{before}] (line {line}) takes all that comes to it; put the route \
         that takes all last"
    )
}

/// A block that says nothing, or nothing but a pattern for any path.
fn takes_all(block: &HttpMatch) -> bool {
    if let Some(StringMatch::Regex(pattern)) = &block.uri {
        let any = matches!(pattern.as_str(), ".*" | "^(?:.*)$" | "^.*$" | r"\A(?:.*)\z");
        let rest = HttpMatch {
            uri: None,
            ..block.clone()
        };
        return any && rest.is_catch_all();
    }
    block.is_catch_all()
}

fn never(port: Option<u16>, gateways: &[String], ports: &[u16], mut say: impl FnMut(&str, String)) {
    if let Some(port) = port
        && !ports.contains(&port)
    {
        let has: Vec<String> = ports.iter().map(ToString::to_string).collect();
        say(
            "port",
            format!(
                "never holds: the hosts have no port {port}, only {}",
                has.join(", ")
            ),
        );
    }
    if !names::acts_in_mesh(gateways) {
        say(
            "gateways",
            "never holds for clients inside the mesh: it does not list `mesh`".to_owned(),
        );
    }
}
