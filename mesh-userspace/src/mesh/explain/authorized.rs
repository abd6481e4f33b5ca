//! Whether the servers that a connection may end at let it in.

use std::net::SocketAddr;

use super::answer::{Action, Authorization, AuthorizationDecision, Explanation};
use crate::mesh::{
    access::{Client, Decision, Denial},
    model::{Snapshot, Way, Workload},
};

/// The status with which the agent answers a request that it may not send on.
const FORBIDDEN: u16 = 403;

impl Explanation {
    /// Asks the policies of every endpoint that the answer names. `dialled` is where a connection that
    /// passes goes; `http`: the agent answers requests.
    pub(super) fn authorized(
        &mut self,
        snapshot: &Snapshot,
        source: &Workload,
        dialled: SocketAddr,
        http: bool,
    ) {
        let ends = match self.action {
            Action::Route => self.endpoints(),
            Action::Passthrough => vec![dialled],
            _ => return,
        };
        let mut allowed = None;
        let mut refused: Vec<Denial<'_>> = Vec::new();
        for end in &ends {
            let Some(server) = snapshot.workload_by_address.get(&end.ip()) else {
                continue;
            };
            // A pod may talk to itself.
            let access = server
                .access
                .as_ref()
                .filter(|_| server.name != source.name);
            match access.map(|access| access.decide(&Client::pod(source, end.ip()), end.port())) {
                Some(Decision::Allow(policy)) => allowed = allowed.or(Some(policy)),
                Some(Decision::Deny(denial)) => refused.push(denial),
                None => {}
            }
        }
        if let Some(denial) = refused.first().filter(|_| refused.len() == ends.len()) {
            let reason = vouched(source, denial.reason());
            self.refused(denial, reason, http);
        } else if let Some(denial) = refused.first() {
            self.authorization = Some(Authorization {
                decision: AuthorizationDecision::Allow,
                policy: None,
                reason: vouched(
                    source,
                    format!(
                        "{} of {} endpoints refuse it: {}",
                        refused.len(),
                        ends.len(),
                        denial.reason()
                    ),
                ),
            });
        } else if let Some(policy) = allowed {
            let reason = match policy {
                Some(name) => format!("AuthorizationPolicy {name} allows it"),
                None => "no policy of the workload refuses it".to_owned(),
            };
            self.authorization = Some(Authorization {
                decision: AuthorizationDecision::Allow,
                policy: policy.map(ToString::to_string),
                reason: vouched(source, reason),
            });
        }
    }

    fn refused(&mut self, denial: &Denial<'_>, reason: String, http: bool) {
        self.action = Action::Denied;
        if self.way == Way::Agent.as_str() {
            self.status = http.then_some(FORBIDDEN);
        } else {
            Way::Deny.as_str().clone_into(&mut self.way);
        }
        self.reason.clone_from(&reason);
        self.authorization = Some(Authorization {
            decision: AuthorizationDecision::Deny,
            policy: match denial {
                Denial::Policy(name) => Some(name.to_string()),
                Denial::NothingAllows | Denial::Plaintext(_) => None,
            },
            reason,
        });
    }

    fn endpoints(&self) -> Vec<SocketAddr> {
        let all = self.destinations.iter().flat_map(|one| &one.endpoints);
        all.filter_map(|address| address.parse().ok()).collect()
    }
}

/// Identities are known on the node that a pod runs on.
fn vouched(source: &Workload, reason: String) -> String {
    if source.local {
        return reason;
    }
    format!(
        "{reason} (as if both ran on one node: between nodes this version knows addresses only)"
    )
}
