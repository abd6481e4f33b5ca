//! Decisions, from whole manifests.

mod destinations;
mod effects;
mod hosts;
mod matches;
mod tcp;

use super::{HttpDecision, HttpOutcome};
use crate::mesh::{
    model::Snapshot,
    testing::{Mesh, Request},
};

/// Bookinfo with one VirtualService for `reviews`, whose `http` is `routes`.
fn reviews(routes: &str) -> Snapshot {
    let rule = format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: reviews}}\n\
         spec:\n  hosts: [reviews]\n  http:\n{routes}"
    );
    Mesh::bookinfo().yaml(&rule).snapshot()
}

/// GET `path` of reviews by productpage.
fn ask(path: &str) -> Request {
    Request::new(
        "default/productpage-v1",
        "10.96.0.3:9080",
        "reviews:9080",
        path,
    )
}

/// What becomes of a request, in a few words: the subset that it goes to, or what else happens.
fn outcome(decision: &HttpDecision<'_>) -> String {
    match &decision.outcome {
        HttpOutcome::Route(to) => {
            let names = to.iter().map(|one| {
                let destination = &one.destination;
                destination
                    .subset
                    .clone()
                    .unwrap_or_else(|| destination.host.clone())
            });
            names.collect::<Vec<_>>().join("+")
        }
        HttpOutcome::Redirect(redirect) => format!("redirect {}", redirect.code),
        HttpOutcome::DirectResponse(response) => format!("answer {}", response.status),
        HttpOutcome::NotFound => "404".to_owned(),
        HttpOutcome::Passthrough(address) => format!("pass {address}"),
        HttpOutcome::NoHealthyUpstream(why) => format!("503 {}: {why}", why.flag()),
    }
}

/// Whether a request enters a route with the match block `block` (in flow style) and not the one after.
fn matches(block: &str, request: &Request) -> bool {
    let snapshot = reviews(&format!(
        "  - match: [{block}]\n    route: [{{destination: {{host: reviews, subset: v2}}}}]\n  \
         - route: [{{destination: {{host: reviews, subset: v1}}}}]\n"
    ));
    let outcome = outcome(&request.decide(&snapshot));
    assert!(outcome == "v2" || outcome == "v1", "{outcome}");
    outcome == "v2"
}
