//! Findings about DestinationRules.

use std::collections::HashMap;

use super::{About, Finding, world::World};
use crate::{
    config::model::{DestinationRule, Meta},
    mesh::{
        names,
        resolve::{DestinationRules, selector_matches},
    },
};

/// Hosts that lead nowhere, subsets that nobody is in, what an earlier rule for the same host hides.
pub fn check(world: &World<'_>, findings: &mut Vec<Finding>) {
    let mut earlier: HashMap<(&str, String), Vec<(&Meta, &DestinationRule)>> = HashMap::new();
    for rule in &world.objects.destination_rules {
        let (meta, spec) = (rule.meta, rule.spec);
        let mut about = About {
            kind: "DestinationRule",
            meta,
            findings,
        };
        let namespace = meta.name.namespace.as_ref();
        let host = names::full_host(&spec.host, namespace, world.domain);
        check_host(world, &host, spec, &mut about);
        if names::visibility(&spec.export_to, namespace, namespace).is_none() {
            about.note(
                &meta.location,
                "spec.exportTo",
                format!("does not list `.`, so clients in {namespace} do not get it"),
            );
        }
        check_subsets(world, &host, spec, &mut about);
        let before = earlier.entry((namespace, host)).or_default();
        check_hidden(before, spec, &mut about);
        before.push((meta, spec));
    }
}

fn check_host(world: &World<'_>, host: &str, spec: &DestinationRule, about: &mut About<'_>) {
    if world.named_by(host).is_empty() {
        let why = world.unknown_host(host, &spec.host);
        let why = why.unwrap_or_else(|| format!("no Service has the host {host}"));
        let location = &about.meta.location;
        about.warn(location, "spec.host", format!("{why}: nothing here acts"));
    }
}

fn check_subsets(world: &World<'_>, host: &str, spec: &DestinationRule, about: &mut About<'_>) {
    let services = world.named_by(host);
    let endpoints: Vec<_> = services
        .iter()
        .flat_map(|service| &service.ports)
        .flat_map(|port| port.endpoints.iter())
        .collect();
    // Without any endpoint the service itself is what is wrong, or only rules were given.
    if endpoints.is_empty() {
        return;
    }
    for (index, subset) in spec.subsets.iter().enumerate() {
        let somebody = endpoints.iter().any(|endpoint| match &endpoint.workload {
            Some(workload) => selector_matches(&subset.labels, &workload.labels),
            None => subset.labels.is_empty(),
        });
        if !somebody {
            let labels: Vec<String> = subset
                .labels
                .iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect();
            about.warn(
                &subset.location,
                format!("spec.subsets[{index}].labels"),
                format!(
                    "no pod of {host} has {}: what is sent to subset {} gets 503 (UH)",
                    labels.join(","),
                    subset.name
                ),
            );
        }
    }
}

/// Rules for one host in one namespace are joined; where they say the same thing, the first counts.
fn check_hidden(
    before: &[(&Meta, &DestinationRule)],
    spec: &DestinationRule,
    about: &mut About<'_>,
) {
    let policy = |rule: &DestinationRule| DestinationRules::says_something(&rule.traffic_policy);
    if policy(spec)
        && let Some((first, _)) = before.iter().find(|(_, rule)| policy(rule))
    {
        let location = &about.meta.location;
        about.warn(
            location,
            "spec.trafficPolicy",
            format!(
                "DestinationRule {} ({}) has one for the same host already, which counts: this one does \
                 not",
                first.name, first.location
            ),
        );
    }
    for (index, subset) in spec.subsets.iter().enumerate() {
        let first = before.iter().find_map(|(meta, rule)| {
            let same = rule.subsets.iter().find(|other| other.name == subset.name);
            same.map(|other| (*meta, &other.location))
        });
        if let Some((meta, place)) = first {
            about.warn(
                &subset.location,
                format!("spec.subsets[{index}].name"),
                format!(
                    "DestinationRule {} ({place}) defines the subset {} of the same host already, which \
                     counts: this one does not",
                    meta.name, subset.name
                ),
            );
        }
    }
}
