//! An explanation for people.

use serde::Serialize;

use crate::{
    cli::{
        table::{Cell, Table, Tone},
        units,
    },
    mesh::explain::{Action, DestinationAnswer, Explanation, HeaderEdits, RewriteAnswer},
};

/// What happens, top down; below it the destinations.
pub fn render(answer: &Explanation, colour: bool) -> String {
    let mut facts = Table::new([]);
    let mut say = |name: &str, cell: Cell| facts.row([name.into(), cell]);
    let source = &answer.source;
    say(
        "from",
        format!(
            "{}/{} ({})",
            source.namespace, source.workload, source.principal
        )
        .into(),
    );
    let service = answer.service.as_deref().unwrap_or("no service");
    let protocol = answer
        .protocol
        .as_deref()
        .map(|p| format!(" ({p})"))
        .unwrap_or_default();
    say(
        "to",
        format!("{service}, port {}{protocol}", answer.port).into(),
    );
    say("way", answer.way.as_str().into());
    say("why", Cell::new(&answer.reason).tone(Tone::Faint));
    if let Some(rule) = rule(answer) {
        say("rule", rule.into());
    }
    let tone = match answer.action {
        Action::NotFound | Action::NoHealthyUpstream | Action::Denied => Tone::Bad,
        _ => Tone::Good,
    };
    say("action", Cell::new(spelled(&answer.action)).tone(tone));
    if let Some(authorization) = &answer.authorization {
        let decision = spelled(&authorization.decision);
        say(
            "authorization",
            format!("{decision}: {}", authorization.reason).into(),
        );
    }
    for (name, text) in effects(answer) {
        say(name, text.into());
    }
    let mut out = facts.render(colour, "");
    if !answer.destinations.is_empty() {
        out.push('\n');
        out.push_str(&destinations(&answer.destinations).render(colour, ""));
    }
    out
}

/// `VirtualService default/reviews, route 0, named jason, match 0`.
fn rule(answer: &Explanation) -> Option<String> {
    let rule = format!("VirtualService {}", answer.virtual_service.as_ref()?);
    let route = answer.route_index.map(|index| format!("route {index}"));
    let name = answer
        .route_name
        .as_ref()
        .map(|name| format!("named {name}"));
    let matched = answer.match_index.map(|index| format!("match {index}"));
    let parts = [Some(rule), route, name, matched];
    Some(parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
}

/// What is done besides, in the order in which it is done.
fn effects(answer: &Explanation) -> Vec<(&'static str, String)> {
    let mut effects = Vec::new();
    if let Some(fault) = &answer.fault {
        if let Some(delay) = &fault.delay {
            effects.push((
                "delay",
                format!("{} ms for {} %", delay.ms, delay.percentage),
            ));
        }
        if let Some(abort) = &fault.abort {
            effects.push((
                "abort",
                format!("status {} for {} %", abort.status, abort.percentage),
            ));
        }
    }
    if let Some(redirect) = &answer.redirect {
        effects.push((
            "redirect",
            format!("{} to {}", redirect.code, redirect.location),
        ));
    }
    if let Some(response) = &answer.direct_response {
        let body = response
            .body
            .as_deref()
            .map(|body| format!(", body {body:?}"));
        effects.push((
            "response",
            format!("{}{}", response.status, body.unwrap_or_default()),
        ));
    }
    if let Some(status) = answer.status {
        effects.push(("status", status.to_string()));
    }
    if let Some(rewrite) = &answer.rewrite {
        effects.push(("rewrite", rewritten(rewrite)));
    }
    if let Some(edits) = &answer.request_headers {
        effects.push(("request headers", edited(edits)));
    }
    if let Some(edits) = &answer.response_headers {
        effects.push(("response headers", edited(edits)));
    }
    if let Some(timeout) = answer.timeout_ms {
        effects.push(("timeout", format!("{timeout} ms")));
    }
    if let Some(retries) = &answer.retries {
        let each = retries
            .per_try_timeout_ms
            .map(|ms| format!(", {ms} ms each"));
        effects.push((
            "retries",
            format!(
                "{}{} on {}",
                retries.attempts,
                each.unwrap_or_default(),
                retries.retry_on.join(", ")
            ),
        ));
    }
    if let Some(tls) = &answer.tls {
        effects.push(("tls", tls.clone()));
    }
    effects
}

fn rewritten(rewrite: &RewriteAnswer) -> String {
    let uri = rewrite.uri.as_ref().map(|uri| format!("path {uri}"));
    let authority = rewrite
        .authority
        .as_ref()
        .map(|authority| format!("host {authority}"));
    [uri, authority]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join(", ")
}

fn edited(edits: &HeaderEdits) -> String {
    let removed = edits.remove.iter().map(|name| format!("remove {name}"));
    let set = edits
        .set
        .iter()
        .map(|(name, value)| format!("set {name}: {value}"));
    let added = edits
        .add
        .iter()
        .map(|(name, value)| format!("add {name}: {value}"));
    removed
        .chain(set)
        .chain(added)
        .collect::<Vec<_>>()
        .join("; ")
}

fn destinations(destinations: &[DestinationAnswer]) -> Table {
    let mut table = Table::new([
        "WEIGHT",
        "HOST",
        "PORT",
        "SUBSET",
        "RULE",
        "LOAD BALANCER",
        "ENDPOINTS",
    ]);
    for destination in destinations {
        let endpoints = match &destination.reason {
            Some(reason) => Cell::new(format!("none: {reason}")).tone(Tone::Bad),
            None if destination.endpoints.is_empty() => Cell::new("none ready").tone(Tone::Bad),
            None => Cell::new(units::some(&destination.endpoints, 4)),
        };
        table.row([
            Cell::number(destination.weight),
            destination.host.as_str().into(),
            Cell::number(destination.port),
            destination.subset.as_deref().unwrap_or_default().into(),
            destination
                .destination_rule
                .as_deref()
                .unwrap_or_default()
                .into(),
            destination.load_balancer.as_str().into(),
            endpoints,
        ]);
    }
    table
}

/// As the contract spells it.
fn spelled(value: &impl Serialize) -> String {
    serde_json::to_value(value)
        .ok()
        .and_then(|value| value.as_str().map(str::to_owned))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_done_is_told_in_its_order() {
        let answer = serde_json::from_value(json!({
            "source": {"namespace": "default", "workload": "p", "principal": "spiffe://d/ns/default/sa/p"},
            "service": "ratings.default.svc.cluster.local", "port": 9080, "protocol": "http",
            "way": "agent", "reason": "match 0 holds", "action": "route",
            "virtualService": "default/ratings", "routeIndex": 0, "routeName": "jason", "matchIndex": 0,
            "destinations": [{"host": "ratings.default.svc.cluster.local", "subset": "v1", "port": 9080,
                "weight": 100, "loadBalancer": "LEAST_REQUEST", "endpoints": ["10.0.0.4:9080"]}],
            "fault": {"delay": {"ms": 7000, "percentage": 100}},
            "rewrite": {"uri": "/v1/0"},
            "requestHeaders": {"set": {"a": "1"}, "add": {}, "remove": ["b"]},
            "timeoutMs": 3000,
            "retries": {"attempts": 2, "perTryTimeoutMs": 500, "retryOn": ["503", "connect-failure"]},
        }));
        let text = render(&answer.expect("an explanation"), false);
        let facts = [
            "rule              VirtualService default/ratings, route 0, named jason, match 0",
            "action            route",
            "delay             7000 ms for 100 %",
            "rewrite           path /v1/0",
            "request headers   remove b; set a: 1",
            "timeout           3000 ms",
            "retries           2, 500 ms each on 503, connect-failure",
        ];
        assert!(text.contains(&facts.join("\n")), "{text}");
        assert!(
            text.ends_with("v1              LEAST_REQUEST   10.0.0.4:9080\n"),
            "{text}"
        );
    }
}
