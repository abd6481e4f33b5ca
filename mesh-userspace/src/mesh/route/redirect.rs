//! Where a redirect points to.

use super::RequestFacts;
use crate::{config::model::HttpRedirect, mesh::names};

/// The `Location`: what the redirect does not replace is the request's own. A `uri` without a query
/// keeps the request's, as in Envoy.
pub fn redirect_location(redirect: &HttpRedirect, request: &RequestFacts<'_>) -> String {
    let scheme = redirect.scheme.as_deref().unwrap_or(request.scheme);
    let requested = request.path_and_query();
    let (path, query) = match &redirect.uri {
        None => (requested, None),
        Some(uri) if uri.contains('?') => (uri.as_str(), None),
        Some(uri) => (
            uri.as_str(),
            requested.split_once('?').map(|(_, query)| query),
        ),
    };
    let mut location = format!("{scheme}://{}{path}", authority(redirect, request, scheme));
    if let Some(query) = query {
        location.push('?');
        location.push_str(query);
    }
    location
}

/// A port that is the scheme's default is left out. The request's own stays, unless another replaces it
/// or it was the default of a scheme that changes.
fn authority(redirect: &HttpRedirect, request: &RequestFacts<'_>, scheme: &str) -> String {
    let (own_host, own_port) = names::split_port(request.authority);
    if let Some(port) = redirect.port {
        let host = redirect.authority.as_deref().unwrap_or(own_host);
        return if default_port(scheme) == Some(port) {
            host.to_owned()
        } else {
            format!("{host}:{port}")
        };
    }
    if let Some(host) = &redirect.authority {
        return host.clone();
    }
    let written = own_port.and_then(|port| port.parse().ok());
    let stale = scheme != request.scheme && written == default_port(request.scheme);
    if stale && written.is_some() {
        own_host.to_owned()
    } else {
        request.authority.to_owned()
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}
