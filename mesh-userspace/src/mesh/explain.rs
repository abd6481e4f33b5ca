//! What would happen to a request, by the very functions that the proxy calls.

mod answer;
mod authorized;
mod decided;
mod query;

#[cfg(test)]
mod tests;

use self::query::Question;
pub use self::{
    answer::{
        Action, Authorization, AuthorizationDecision, DestinationAnswer, DirectResponseAnswer,
        Explanation, FaultAbortAnswer, FaultAnswer, FaultDelayAnswer, HeaderEdits, RedirectAnswer,
        RetriesAnswer, RewriteAnswer, Source,
    },
    query::{ExplainError, ExplainQuery},
};
use super::{
    model::{Frontend, Service, ServicePort, Snapshot, Way},
    names::PORT_WITHOUT_SERVICE,
    protocol, route,
};

/// Answers `query` from a snapshot: first what the kernel does with the connection, then what the agent
/// does with the request if it gets it.
pub fn explain(snapshot: &Snapshot, query: &ExplainQuery) -> Result<Explanation, ExplainError> {
    let question = Question::parse(snapshot, query)?;
    let mut answer = Explanation::new(question.source, question.dialled.port());
    let unaddressed = unaddressed(snapshot, &question);
    let frontend = snapshot.frontends.get(&question.dialled);
    let Some(frontend) = frontend.or(unaddressed.as_ref()) else {
        no_frontend(snapshot, &question, &mut answer);
        answer.authorized(snapshot, question.source, question.dialled, question.http);
        return Ok(answer);
    };
    let port = frontend.service_port();
    answer.goes(port.way, &port.way_reason);
    answer.stands_at(Some(&frontend.service), Some(port));
    match port.way {
        Way::Agent if question.http && protocol::may_be_http(port.protocol) => {
            answer.decided_http(&question.decide(snapshot), &question.facts());
        }
        // The kernel goes by the address alone, so the same holds for any request.
        Way::Agent | Way::Direct => {
            let (source, dialled) = (question.source, question.dialled);
            let decision = route::route_tcp_to(snapshot, source, frontend, dialled);
            answer.decided_tcp(&decision);
            if port.way == Way::Direct {
                answer.picked_by_kernel(port);
            }
        }
        Way::Pass => answer.passes(),
        Way::Deny => answer.action = Action::Denied,
    }
    answer.authorized(snapshot, question.source, question.dialled, question.http);
    if unaddressed.is_some() {
        answer
            .reason
            .push_str("; the Service needs a clusterIP before the kernel can know it");
    }
    Ok(answer)
}

/// The service port that is asked for by name, where the manifests forgot its address: the rest of the
/// answer holds as soon as it has one.
fn unaddressed(snapshot: &Snapshot, question: &Question<'_>) -> Option<Frontend> {
    let namespace = &question.source.name.namespace;
    let virtual_host = snapshot.virtual_host(namespace, &question.host)?;
    let service = virtual_host.service.as_ref()?;
    let number = question.dialled.port();
    let port = service
        .ports
        .iter()
        .position(|port| port.number == number)?;
    (service.addresses.is_empty() && !service.headless).then(|| Frontend {
        service: std::sync::Arc::clone(service),
        port,
    })
}

/// The kernel does not know the address: the connection passes. One exception has to be told by name: a
/// rule may have a host that no service has.
fn no_frontend(snapshot: &Snapshot, question: &Question<'_>, answer: &mut Explanation) {
    let namespace = &question.source.name.namespace;
    if let Some((service, port)) = headless(snapshot, question.dialled) {
        let pod = question.dialled;
        answer.goes(
            Way::Direct,
            &format!(
                "{pod} is an endpoint of {} (headless): it is dialled itself",
                service.host
            ),
        );
        answer.stands_at(Some(service), Some(port));
        answer.passes();
        return;
    }
    let found = snapshot.virtual_host(namespace, &question.host);
    let port = question.dialled.port();
    match found.map(|found| &found.service) {
        Some(None) if question.http && port == PORT_WITHOUT_SERVICE => {
            let reason = format!(
                "no service has the host {}; a rule answers for it where a request on port \
                 {PORT_WITHOUT_SERVICE} of a service names it",
                question.host
            );
            answer.goes(Way::Agent, &reason);
            answer.decided_http(&question.decide(snapshot), &question.facts());
            return;
        }
        Some(None) => answer.goes(
            Way::Pass,
            &format!(
                "no service has the host {}, and a rule for such a host holds on port \
                 {PORT_WITHOUT_SERVICE} only",
                question.host
            ),
        ),
        Some(Some(service)) => {
            let ports: Vec<String> = service
                .ports
                .iter()
                .map(|port| port.number.to_string())
                .collect();
            let reason = if service.headless {
                format!(
                    "{} has no address of its own (headless): clients connect to its pods",
                    service.host
                )
            } else {
                format!(
                    "{} has no TCP port {port}; it has {}",
                    service.host,
                    if ports.is_empty() {
                        "none".to_owned()
                    } else {
                        ports.join(", ")
                    }
                )
            };
            answer.goes(Way::Pass, &reason);
        }
        None => {
            let reason = match snapshot.workload_by_address.get(&question.dialled.ip()) {
                Some(workload) => format!("it is the own address of pod {}", workload.name),
                None => unknown(snapshot, question),
            };
            answer.goes(Way::Pass, &reason);
        }
    }
    answer.passes();
}

/// The headless service whose endpoint this is: the first by host, as in the kernel's table.
fn headless(
    snapshot: &Snapshot,
    dialled: std::net::SocketAddr,
) -> Option<(&std::sync::Arc<Service>, &ServicePort)> {
    let services = snapshot.services.values().filter(|one| one.headless);
    services
        .flat_map(|service| service.ports.iter().map(move |port| (service, port)))
        .find(|(_, port)| {
            let mut endpoints = port.endpoints.iter().chain(port.ipv6_endpoints.iter());
            endpoints.any(|endpoint| endpoint.address == dialled)
        })
}

/// Why nothing answers for the host, with what may have been meant.
fn unknown(snapshot: &Snapshot, question: &Question<'_>) -> String {
    let namespaces: Vec<&str> = snapshot
        .services
        .values()
        .filter(|service| *service.name.name == *question.host)
        .map(|service| service.name.namespace.as_ref())
        .collect();
    if namespaces.is_empty() {
        format!("the mesh does not know {}", question.host)
    } else {
        format!(
            "namespace {} has no service {host}; did you mean {host}.{}?",
            question.source.name.namespace,
            namespaces[0],
            host = question.host,
        )
    }
}
