//! A match block in a few words.

use crate::config::model::{HttpMatch, L4Match, Labels, StringMatch};

/// All conditions of a block, joined by `and`; `everything` where there are none.
pub fn http(block: &HttpMatch) -> String {
    let mut words = Vec::new();
    let case = if block.ignore_uri_case {
        " (any case)"
    } else {
        ""
    };
    for (what, wanted, suffix) in [
        ("path", &block.uri, case),
        ("scheme", &block.scheme, ""),
        ("method", &block.method, ""),
        ("authority", &block.authority, ""),
    ] {
        if let Some(wanted) = wanted {
            words.push(format!("{what} {}{suffix}", string(wanted)));
        }
    }
    words.extend(named("header", &block.headers));
    words.extend(
        named("header", &block.without_headers)
            .into_iter()
            .map(|text| format!("not ({text})")),
    );
    words.extend(named("query parameter", &block.query_params));
    words.extend(block.port.map(|port| format!("port is {port}")));
    words.extend(client(
        &block.source_labels,
        block.source_namespace.as_deref(),
        &block.gateways,
    ));
    joined(&words)
}

/// As [`http()`], for a TCP route.
pub fn l4(block: &L4Match) -> String {
    let mut words: Vec<String> = block
        .port
        .map(|port| format!("port is {port}"))
        .into_iter()
        .collect();
    words.extend(client(
        &block.source_labels,
        block.source_namespace.as_deref(),
        &block.gateways,
    ));
    joined(&words)
}

fn joined(words: &[String]) -> String {
    if words.is_empty() {
        "everything".to_owned()
    } else {
        words.join(" and ")
    }
}

fn string(wanted: &StringMatch) -> String {
    match wanted {
        StringMatch::Exact(text) => format!("is {text}"),
        StringMatch::Prefix(text) => format!("starts with {text}"),
        StringMatch::Regex(pattern) => format!("matches {pattern}"),
    }
}

fn named(what: &str, all: &[(String, Option<StringMatch>)]) -> Vec<String> {
    all.iter()
        .map(|(name, wanted)| {
            let condition = wanted
                .as_ref()
                .map_or_else(|| "is present".to_owned(), string);
            format!("{what} {name} {condition}")
        })
        .collect()
}

fn client(labels: &Labels, namespace: Option<&str>, gateways: &[String]) -> Vec<String> {
    let mut words: Vec<String> = labels
        .iter()
        .map(|(key, value)| format!("client has {key}={value}"))
        .collect();
    words.extend(namespace.map(|namespace| format!("client is in {namespace}")));
    if !gateways.is_empty() {
        words.push(format!("gateway is {}", gateways.join(" or ")));
    }
    words
}
