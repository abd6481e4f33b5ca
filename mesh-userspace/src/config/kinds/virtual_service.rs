//! Istio `VirtualService` (`networking/v1alpha3/virtual_service.proto`).
//!
//! A field that is known but not acted on is reported as unsupported. Where leaving it out would
//! change which requests a route takes or where they go, the route is left out and reported.

mod actions;
mod headers;
mod http;
mod l4;
mod matching;
mod retry;

use super::{ParsedSpec, istio};
use crate::config::{
    fields::{Cursor, Fields},
    model::{Meta, Spec, VirtualService},
};

/// The fields below `spec`.
pub const SPEC_FIELDS: &[&str] = &["hosts", "gateways", "http", "tls", "tcp", "exportTo"];

/// Fields of an HTTP route, to recognise those that lost their indentation.
const ROUTE_FIELDS: &[&str] = &[
    "match",
    "route",
    "redirect",
    "directResponse",
    "rewrite",
    "timeout",
    "retries",
    "fault",
    "headers",
    "mirror",
    "corsPolicy",
];

/// Reads and validates a `VirtualService`.
pub fn parse(root: &Fields<'_>, _meta: &Meta) -> ParsedSpec {
    let spec = istio::spec(root, SPEC_FIELDS)?;
    let hosts = spec.list("hosts", istio::host)?;
    if hosts.is_empty() {
        return Err(spec.reject_at(
            "hosts",
            "is missing or empty: name the hosts that the rule is for (a VirtualService without \
             hosts is a delegate, which is not supported)",
        ));
    }
    let gateways = istio::gateways(&spec)?;
    let in_mesh = gateways.is_empty() || gateways.iter().any(|gateway| gateway == "mesh");
    if in_mesh && let Some(index) = hosts.iter().position(|host| host == "*") {
        return Err(spec.reject_at(
            "hosts",
            format!("hosts[{index}] is `*`, which is for gateways only: name the hosts"),
        ));
    }
    for (index, host) in hosts.iter().enumerate() {
        if hosts[..index].contains(host) {
            spec.context().warn(format!(
                "`{}` names {host} twice (line {})",
                spec.path_of("hosts"),
                spec.line()
            ));
        }
    }
    let export_to = istio::export_to(&spec)?;
    let http = spec.list("http", http::route)?;
    let tcp = spec.list("tcp", l4::tcp_route)?;
    let tls = spec.unsupported("tls");
    if !tls && spec.get("http").is_none() && spec.get("tcp").is_none() {
        let strayed = spec
            .unknown()
            .find(|entry| ROUTE_FIELDS.contains(&entry.key.as_str()));
        let hint = strayed.map_or_else(String::new, |entry| {
            format!(
                ": `{}` (line {}) belongs to an item of `http`",
                entry.key, entry.line
            )
        });
        return Err(spec.reject(format!(
            "has no routes: it needs `http`, `tls` or `tcp`{hint}"
        )));
    }
    spec.finish_with(|name| {
        ROUTE_FIELDS
            .contains(&name)
            .then(|| "it belongs to an item of `http`: indent it below one".to_owned())
    });
    Ok(Ok(Spec::VirtualService(VirtualService {
        hosts,
        gateways,
        export_to,
        http: http.into_iter().flatten().collect(),
        tcp: tcp.into_iter().flatten().collect(),
    })))
}

/// Reports a route that is left out; `why` names the field.
fn leave_out(route: &Cursor<'_>, why: &str) {
    let field = format!("{}: the route is left out, {why}", route.path());
    route.context().unsupported(&field, route.line());
}
