//! Findings about `AuthorizationPolicy` and `PeerAuthentication`: whom they select.

use super::{About, Finding, world::World};
use crate::{
    config::model::{Labels, Meta, PodPlace},
    mesh::{names::ROOT_NAMESPACE, resolve::selector_matches},
};

/// Selectors that match no pod, and pods that a policy cannot guard.
pub fn check(world: &World<'_>, findings: &mut Vec<Finding>) {
    for policy in &world.objects.authorization_policies {
        let about = About {
            kind: "AuthorizationPolicy",
            meta: policy.meta,
            findings,
        };
        selected(world, about, &policy.spec.selector);
    }
    for policy in &world.objects.peer_authentications {
        let about = About {
            kind: "PeerAuthentication",
            meta: policy.meta,
            findings,
        };
        selected(world, about, &policy.spec.selector);
    }
}

fn selected(world: &World<'_>, mut about: About<'_>, selector: &Labels) {
    let meta: &Meta = about.meta;
    let home = &*meta.name.namespace;
    let pods: Vec<_> = world
        .objects
        .pods
        .iter()
        .filter(|pod| home == ROOT_NAMESPACE || home == &*pod.meta.name.namespace)
        .filter(|pod| selector_matches(selector, &pod.meta.labels))
        .collect();
    // Where no pods were given at all, there is nothing to select from.
    if pods.is_empty() && !selector.is_empty() && !world.objects.pods.is_empty() {
        let place = if home == ROOT_NAMESPACE {
            "any namespace".to_owned()
        } else {
            format!("namespace {home}")
        };
        about.warn(
            &meta.location,
            "spec.selector",
            format!("selects no Pod in {place}: it guards nothing; compare the labels"),
        );
    }
    let host = pods
        .iter()
        .find(|pod| matches!(pod.spec.place, Some(PodPlace::Cgroup(_))));
    if let Some(pod) = host {
        about.warn(
            &meta.location,
            "spec.selector",
            format!(
                "holds for Pod {} in the host's network namespace only where a connection goes by the agent: \
                 whoever connects to it otherwise is not refused",
                pod.meta.name
            ),
        );
    }
}
