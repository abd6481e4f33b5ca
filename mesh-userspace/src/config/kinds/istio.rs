//! What several of Istio's kinds have in common: hosts, visibility, destinations, whole documents.

use std::net::IpAddr;

use crate::config::{
    fields::{Cursor, Fields, Parsed},
    model::Destination,
};

/// `spec` of an Istio document, after a look at what stands beside it.
pub fn spec<'a>(root: &Fields<'a>, spec_fields: &[&'static str]) -> Parsed<Fields<'a>> {
    root.ignore(&["status"]);
    let spec = root.get("spec");
    let strayed: Vec<String> = root
        .unknown()
        .filter(|entry| spec_fields.contains(&entry.key.as_str()))
        .map(|entry| format!("`{}` (line {})", entry.key, entry.line))
        .collect();
    let Some(spec) = spec else {
        let hint = if strayed.is_empty() {
            String::new()
        } else {
            format!(
                ": {} at the top level: indent below `spec`",
                strayed.join(", ")
            )
        };
        return Err(root.reject_at("spec", format!("is missing{hint}")));
    };
    let spec = spec.fields()?;
    if let Some(metadata) = root.optional("metadata", Cursor::fields)?
        && metadata.get("name").is_some()
    {
        root.finish_with(|name| {
            spec_fields
                .contains(&name)
                .then(|| "indent it below `spec`".to_owned())
        });
    }
    Ok(spec)
}

/// A name of a host: full, short, with a leading wildcard, or an address.
pub fn host(cursor: &Cursor<'_>) -> Parsed<String> {
    let host = cursor.filled_string()?;
    match wrong_host(&host) {
        Some(reason) => Err(cursor.reject(format!("{host:?} is no host: {reason}"))),
        None => Ok(host),
    }
}

/// As [`host`], but a wildcard is none.
fn plain_host(cursor: &Cursor<'_>) -> Parsed<String> {
    let host = host(cursor)?;
    if host.starts_with('*') {
        return Err(cursor.reject(format!("{host:?} is a wildcard: name one host")));
    }
    Ok(host)
}

fn wrong_host(host: &str) -> Option<&'static str> {
    if host == "*" || host.parse::<IpAddr>().is_ok() {
        return None;
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    if name.len() > 255 {
        return Some("it is longer than 255 characters");
    }
    if name.contains("://") {
        return Some("leave the scheme out");
    }
    if name.contains(':') {
        return Some("leave the port out");
    }
    if name.contains('/') {
        return Some("leave the path or the namespace out");
    }
    let (first, rest) = match name.split_once('.') {
        Some((first, rest)) => (first, Some(rest)),
        None => (name, None),
    };
    // `*` and `*-suffix` are wildcards; `a*` and `*a` are not.
    let first = match first.strip_prefix('*') {
        Some("") => "x",
        Some(suffix) => suffix.strip_prefix('-').unwrap_or(first),
        None => first,
    };
    let mut labels =
        std::iter::once(first).chain(rest.into_iter().flat_map(|rest| rest.split('.')));
    if labels.any(|label| label.contains('*')) {
        return Some("a `*` may only be its first label");
    }
    let mut labels =
        std::iter::once(first).chain(rest.into_iter().flat_map(|rest| rest.split('.')));
    if labels.all(is_label) {
        None
    } else {
        Some("its labels must be letters, digits and `-`")
    }
}

fn is_label(label: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    !label.is_empty()
        && label.len() <= 63
        && label.bytes().all(allowed)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// `exportTo`: `.`, `*` or namespaces. `~` is for Services and `ServiceEntry` objects only.
pub fn export_to(spec: &Fields<'_>) -> Parsed<Vec<String>> {
    spec.list("exportTo", |item| {
        let namespace = item.filled_string()?;
        match namespace.as_str() {
            "." | "*" => Ok(namespace),
            "~" => {
                Err(item.reject("`~` (nobody) is for Services only: use `.`, `*` or a namespace"))
            }
            name if is_label(name) => Ok(namespace),
            _ => Err(item.reject(format!(
                "{namespace:?} is neither `.` nor `*` nor a namespace"
            ))),
        }
    })
}

/// `gateways` of a rule or of a match.
pub fn gateways(fields: &Fields<'_>) -> Parsed<Vec<String>> {
    fields.list("gateways", |item| {
        let gateway = item.filled_string()?;
        let parts: Vec<&str> = gateway.split('/').collect();
        let named = |name: &str| name.split('.').all(is_label);
        match parts.as_slice() {
            [name] if named(name) => Ok(gateway),
            [namespace, name] if (*namespace == "." || is_label(namespace)) && named(name) => {
                Ok(gateway)
            }
            _ => Err(item.reject(format!(
                "{gateway:?} is no gateway: write `mesh`, `name` or `namespace/name`"
            ))),
        }
    })
}

/// `destination` of a route.
pub fn destination(cursor: &Cursor<'_>) -> Parsed<Destination> {
    let fields = cursor.fields()?;
    let destination = Destination {
        location: cursor.location(),
        host: fields.required("host", plain_host)?,
        subset: fields.optional("subset", subset_name)?,
        port: fields.optional("port", |port| {
            let selector = port.fields().map_err(|mut rejection| {
                rejection.reason.push_str(": `port: {number: 9080}`");
                rejection
            })?;
            let number = selector.required("number", Cursor::port)?;
            selector.finish();
            Ok(number)
        })?,
    };
    fields.finish();
    Ok(destination)
}

/// The name of a subset (a DNS label).
pub fn subset_name(cursor: &Cursor<'_>) -> Parsed<String> {
    let name = cursor.filled_string()?;
    if name.split('.').all(is_label) {
        Ok(name)
    } else {
        Err(cursor.reject(format!("{name:?} is no name: use letters, digits and `-`")))
    }
}

/// Weights as a whole: several destinations, all of weight zero, would get nothing.
pub fn weights(list: &Cursor<'_>, weights: &[u32]) -> Parsed<()> {
    if weights.len() > 1 && weights.iter().all(|weight| *weight == 0) {
        return Err(list.reject("has several destinations and no weight: give each its `weight`"));
    }
    let sum: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
    if sum > u64::from(u32::MAX) {
        return Err(list.reject(format!("the weights add up to {sum}, more than 2^32")));
    }
    Ok(())
}
