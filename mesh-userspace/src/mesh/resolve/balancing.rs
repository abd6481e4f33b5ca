//! How the kernel picks an endpoint for direct connections. It picks in one manner for all clients of the node:
//! by the `DestinationRule` that clients in the service's own namespace get.

use super::destination_rules::DestinationRules;
use crate::{
    config::model::LoadBalancer,
    mesh::model::{Service, ServicePort, Way},
};

/// Fills `load_balancer` in, and says in `way_reason` what was asked for. After the ways: where
/// `PASSTHROUGH` is asked for, nobody picks.
pub fn decide(services: &mut [Service], rules: &DestinationRules<'_>) {
    for service in services {
        let namespace = service.name.namespace.as_ref();
        let rule = rules.find(namespace, &service.host, Some(namespace));
        let asked = rule.as_ref().and_then(|rule| {
            let policy = rule.traffic_policy?.load_balancer?;
            Some((policy, rule.name))
        });
        let affinity = service.session_affinity;
        for port in &mut service.ports {
            if let Some((policy, name)) = asked {
                port.load_balancer = policy;
                match (port.way, policy) {
                    (Way::Direct, LoadBalancer::Passthrough) => {
                        port.way = Way::Pass;
                        port.way_reason = format!(
                            "DestinationRule {name} asks for PASSTHROUGH: connections go to the address \
                             that was dialled"
                        )
                        .into();
                    }
                    (Way::Direct, policy) => explain(
                        port,
                        &format!("by {} as DestinationRule {name} asks for", policy.as_str()),
                    ),
                    _ => {}
                }
            }
            if port.way == Way::Direct
                && let Some(timeout) = affinity
            {
                explain(
                    port,
                    &format!(
                        "sessionAffinity ClientIP keeps a client's endpoint for {} s",
                        timeout.as_secs()
                    ),
                );
            }
        }
    }
}

fn explain(port: &mut ServicePort, more: &str) {
    port.way_reason = format!("{}; {more}", port.way_reason).into();
}
