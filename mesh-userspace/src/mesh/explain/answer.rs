//! The answer of `explain`, field by field as the contract has it. What does not apply is absent.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, Serializer};

/// What would happen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// Who asks.
    pub source: Source,
    /// Full host of the service that the request is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The port that was dialled.
    pub port: u16,
    /// What the service's port speaks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// `direct`, `agent`, `pass` or `deny`.
    pub way: String,
    /// The VirtualService that has the host, `namespace/name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtual_service: Option<String>,
    /// The route's place in it, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route_index: Option<usize>,
    /// The route's own name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route_name: Option<String>,
    /// Which of its matches held, from 0; absent for a route without any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub match_index: Option<usize>,
    /// What is done.
    pub action: Action,
    /// Where to, by weight.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub destinations: Vec<DestinationAnswer>,
    /// With action `redirect`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect: Option<RedirectAnswer>,
    /// With action `directResponse`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direct_response: Option<DirectResponseAnswer>,
    /// What the upstream sees for this very request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewrite: Option<RewriteAnswer>,
    /// The route's operations and a single destination's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_headers: Option<HeaderEdits>,
    /// The route's operations and a single destination's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_headers: Option<HeaderEdits>,
    /// Over all tries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// The effective policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<RetriesAnswer>,
    /// Delay and abort.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<FaultAnswer>,
    /// What the policies of the server's workload say; absent where none selects it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization: Option<Authorization>,
    /// With action `denied`, where a request is answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// How the bytes travel to the upstream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<String>,
    /// One line for people: why.
    pub reason: String,
}

/// The client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Its namespace.
    pub namespace: String,
    /// The pod.
    pub workload: String,
    /// Its SPIFFE id.
    pub principal: String,
}

/// What is done with a request or connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    /// It is sent on.
    Route,
    /// A redirect answers it.
    Redirect,
    /// The mesh answers it.
    DirectResponse,
    /// 404.
    NotFound,
    /// 503.
    NoHealthyUpstream,
    /// On to the address that was dialled.
    Passthrough,
    /// Refused.
    Denied,
}

/// What authorization decides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authorization {
    /// Let in or refused.
    pub decision: AuthorizationDecision,
    /// The ALLOW or DENY that decided, `namespace/name`; absent on an implicit deny.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// One line for people.
    pub reason: String,
}

/// Let in or refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthorizationDecision {
    /// Let in.
    Allow,
    /// Refused.
    Deny,
}

/// A destination.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DestinationAnswer {
    /// Full host.
    pub host: String,
    /// The subset that the route names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subset: Option<String>,
    /// The service's port.
    pub port: u16,
    /// As written.
    pub weight: u32,
    /// `namespace/name` of the one that applies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_rule: Option<String>,
    /// As the API spells it.
    pub load_balancer: String,
    /// `ip:port` of the ready ones.
    pub endpoints: Vec<String>,
    /// Why nothing can be sent there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// A host that this destination alone sets; with several destinations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewrite: Option<RewriteAnswer>,
    /// Its own operations; with several destinations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_headers: Option<HeaderEdits>,
    /// Its own operations; with several destinations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_headers: Option<HeaderEdits>,
}

/// A redirect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedirectAnswer {
    /// Status.
    pub code: u16,
    /// For this very request.
    pub location: String,
}

/// An answer of the mesh itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectResponseAnswer {
    /// Status.
    pub status: u16,
    /// Absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
}

/// What the upstream sees instead of what was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RewriteAnswer {
    /// Path and query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// The Host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
}

/// Header operations: remove, then set, then add.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HeaderEdits {
    /// Replace.
    #[serde(default)]
    pub set: BTreeMap<String, String>,
    /// Append.
    #[serde(default)]
    pub add: BTreeMap<String, String>,
    /// Remove.
    #[serde(default)]
    pub remove: Vec<String>,
}

/// A retry policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RetriesAnswer {
    /// Extra tries.
    pub attempts: u32,
    /// For each try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_try_timeout_ms: Option<u64>,
    /// Conditions and status codes.
    pub retry_on: Vec<String>,
}

/// Fault injection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FaultAnswer {
    /// Before the request goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<FaultDelayAnswer>,
    /// Instead of the upstream's answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abort: Option<FaultAbortAnswer>,
}

/// A delay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FaultDelayAnswer {
    /// How long.
    pub ms: u64,
    /// Of the requests.
    #[serde(serialize_with = "percentage")]
    pub percentage: f64,
}

/// An abort.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FaultAbortAnswer {
    /// The status that is answered.
    pub status: u16,
    /// Of the requests.
    #[serde(serialize_with = "percentage")]
    pub percentage: f64,
}

/// A whole percentage without a fraction: `100`, not `100.0`.
#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde gives serialize_with a reference"
)]
pub(in crate::mesh) fn percentage<S: Serializer>(
    value: &f64,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    #[expect(
        clippy::cast_sign_loss,
        reason = "a percentage is 0.0 to 100.0, and whole here"
    )]
    if value.fract() == 0.0 && (0.0..=100.0).contains(value) {
        serializer.serialize_u64(*value as u64)
    } else {
        serializer.serialize_f64(*value)
    }
}
