//! What a route and its destination do to headers.

use http::HeaderMap;

use crate::{
    config::model::HeaderOperations,
    mesh::model::{HttpRoute, WeightedDestination},
};

/// Remove, then set, then add.
pub fn apply_headers(operations: &HeaderOperations, headers: &mut HeaderMap) {
    remove(operations, headers);
    set_and_add(operations, headers);
}

/// A route's operations on a request and its destination's: all removals, then the route's values, then
/// the destination's.
pub fn apply_request_headers(
    route: &HttpRoute,
    destination: Option<&WeightedDestination>,
    headers: &mut HeaderMap,
) {
    let own = destination.map(|destination| &destination.request_headers);
    apply_both(&route.request_headers, own, headers);
}

/// As [`apply_request_headers`], for the response.
pub fn apply_response_headers(
    route: &HttpRoute,
    destination: Option<&WeightedDestination>,
    headers: &mut HeaderMap,
) {
    let own = destination.map(|destination| &destination.response_headers);
    apply_both(&route.response_headers, own, headers);
}

/// The host that the upstream sees instead of the request's: the rewrite's, else a host that the route's
/// header operations set, else the destination's.
pub fn upstream_authority<'s>(
    route: &'s HttpRoute,
    destination: Option<&'s WeightedDestination>,
) -> Option<&'s str> {
    let rewrite = route.rewrite.as_ref();
    rewrite
        .and_then(|rewrite| rewrite.authority.as_deref())
        .or(route.request_headers.authority.as_deref())
        .or_else(|| destination?.request_headers.authority.as_deref())
}

fn apply_both(route: &HeaderOperations, own: Option<&HeaderOperations>, headers: &mut HeaderMap) {
    remove(route, headers);
    if let Some(own) = own {
        remove(own, headers);
    }
    set_and_add(route, headers);
    if let Some(own) = own {
        set_and_add(own, headers);
    }
}

fn remove(operations: &HeaderOperations, headers: &mut HeaderMap) {
    for name in &operations.remove {
        headers.remove(name);
    }
}

fn set_and_add(operations: &HeaderOperations, headers: &mut HeaderMap) {
    for (name, value) in &operations.set {
        headers.insert(name, value.clone());
    }
    for (name, value) in &operations.add {
        headers.append(name, value.clone());
    }
}
