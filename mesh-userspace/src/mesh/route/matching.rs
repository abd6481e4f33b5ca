//! Whether a match block holds: all that it says must.

use std::borrow::Cow;

use http::HeaderMap;

use super::RequestFacts;
use crate::{
    config::model::{HttpMatch, L4Match, Labels, StringMatch},
    mesh::{model::Workload, names},
};

/// Keys that say nothing about headers: Istio ignores them.
const IGNORED_KEYS: [&str; 4] = ["uri", "scheme", "method", "authority"];

/// Whether a block is for clients like this on this port at all. A block with gateways of its own does
/// not look at the source.
pub fn is_for(block: &HttpMatch, source: &Workload, port: u16) -> bool {
    block.port.is_none_or(|wanted| wanted == port)
        && if block.gateways.is_empty() {
            source_is(
                &block.source_labels,
                block.source_namespace.as_deref(),
                source,
            )
        } else {
            names::acts_in_mesh(&block.gateways)
        }
}

/// Whether a block that [`is_for`] the client holds for the request.
pub fn http(block: &HttpMatch, request: &RequestFacts<'_>) -> bool {
    let path = request.uri.path();
    let path = if path.is_empty() { "/" } else { path };
    holds(block.uri.as_ref(), path, block.ignore_uri_case)
        && holds(block.scheme.as_ref(), request.scheme, false)
        && holds(block.method.as_ref(), request.method.as_str(), false)
        && holds(block.authority.as_ref(), request.authority, false)
        && counted(&block.headers).all(|(name, wanted)| has_header(request.headers, name, wanted))
        && counted(&block.without_headers)
            .all(|(name, unwanted)| lacks_header(request.headers, name, unwanted))
        && block
            .query_params
            .iter()
            .all(|(name, wanted)| has_parameter(request.uri.query(), name, wanted.as_ref()))
}

/// Whether a block of a TCP route holds.
pub fn l4(block: &L4Match, source: &Workload, port: u16) -> bool {
    block.port.is_none_or(|wanted| wanted == port)
        && names::acts_in_mesh(&block.gateways)
        && source_is(
            &block.source_labels,
            block.source_namespace.as_deref(),
            source,
        )
}

fn source_is(labels: &Labels, namespace: Option<&str>, source: &Workload) -> bool {
    namespace.is_none_or(|wanted| wanted == &*source.name.namespace)
        && labels
            .iter()
            .all(|(key, value)| source.labels.get(key) == Some(value))
}

fn counted(
    conditions: &[(String, Option<StringMatch>)],
) -> impl Iterator<Item = (&str, Option<&StringMatch>)> {
    conditions
        .iter()
        .map(|(name, condition)| (name.as_str(), condition.as_ref()))
        .filter(|(name, _)| !IGNORED_KEYS.contains(name))
}

fn holds(wanted: Option<&StringMatch>, value: &str, ignore_case: bool) -> bool {
    wanted.is_none_or(|wanted| string(wanted, value, ignore_case))
}

fn string(wanted: &StringMatch, value: &str, ignore_case: bool) -> bool {
    match wanted {
        StringMatch::Exact(exact) if ignore_case => value.eq_ignore_ascii_case(exact),
        StringMatch::Exact(exact) => value == exact,
        StringMatch::Prefix(prefix) if ignore_case => value
            .as_bytes()
            .get(..prefix.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes())),
        StringMatch::Prefix(prefix) => value.starts_with(prefix.as_str()),
        // Compiled anchored: it matches the whole value or not at all.
        StringMatch::Regex(regex) => regex.is_match(value),
    }
}

fn has_header(headers: &HeaderMap, name: &str, wanted: Option<&StringMatch>) -> bool {
    match (header(headers, name), wanted) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some(value), Some(wanted)) => string(wanted, &value, false),
    }
}

/// A missing header counts as an empty one, except where its mere presence is unwanted.
fn lacks_header(headers: &HeaderMap, name: &str, unwanted: Option<&StringMatch>) -> bool {
    match unwanted {
        None => !headers.contains_key(name),
        Some(unwanted) => {
            let value = header(headers, name).unwrap_or_default();
            !string(unwanted, &value, false)
        }
    }
}

/// A header's value; several are one, joined by commas, as Envoy joins them.
fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<Cow<'h, str>> {
    let mut values = headers
        .get_all(name)
        .iter()
        .map(|value| String::from_utf8_lossy(value.as_bytes()));
    let first = values.next()?;
    Some(values.fold(first, |joined, value| {
        Cow::Owned(format!("{joined},{value}"))
    }))
}

/// The first parameter of the name counts; nothing is unescaped, as in Envoy.
fn has_parameter(query: Option<&str>, name: &str, wanted: Option<&StringMatch>) -> bool {
    query
        .unwrap_or_default()
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .find(|(key, _)| *key == name)
        .is_some_and(|(_, value)| holds(wanted, value, false))
}
