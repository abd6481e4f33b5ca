//! Security policies: what each does, and to whom.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::mesh::access::PolicySummary;

/// An `AuthorizationPolicy` or a `PeerAuthentication`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyView {
    /// `AuthorizationPolicy` or `PeerAuthentication`.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `ALLOW`, `DENY`, `CUSTOM`, `AUDIT`, or a mode: `STRICT`, `PERMISSIVE`, `DISABLE`, `UNSET`.
    pub effect: String,
    /// Labels that it selects by; empty selects all of its namespace.
    pub selector: BTreeMap<String, String>,
    /// How many rules it has.
    pub rules: usize,
    /// `namespace/pod` of those that it holds for.
    pub workloads: Vec<String>,
}

impl PolicyView {
    pub(super) fn of(policy: &PolicySummary) -> Self {
        Self {
            kind: policy.kind.to_owned(),
            namespace: policy.name.namespace.to_string(),
            name: policy.name.name.to_string(),
            effect: policy.effect.to_owned(),
            selector: policy.selector.clone(),
            rules: policy.rules,
            workloads: policy.workloads.iter().map(ToString::to_string).collect(),
        }
    }
}
