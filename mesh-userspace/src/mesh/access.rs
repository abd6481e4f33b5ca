//! Who may connect to a workload: the one place that decides it. The agent asks it, `explain` asks it,
//! and what the kernel does is compiled from its answers.
//!
//! A client has an identity where this node vouches for it: it is an enrolled pod, known by its address.
//! The order is Istio's: peer authentication, then CUSTOM and DENY, then ALLOW.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
};

use super::model::Workload;
use crate::config::model::{
    AuthorizationRule, ConditionMatch, IpBlock, Labels, MutualTls, ObjectName, OperationMatch,
    PodPlace, PolicyAction, SourceMatch,
};

/// Everything that selects a workload and may refuse a connection to it.
#[derive(Debug, Clone, Default)]
pub struct WorkloadAccess {
    /// What must be authenticated.
    pub authentication: Authentication,
    /// CUSTOM, DENY, ALLOW, in this order; each by creation time and name.
    pub policies: Vec<Policy>,
}

/// The effective peer authentication of a workload.
#[derive(Debug, Clone, Default)]
pub struct Authentication {
    /// For ports that are not named.
    pub mode: MutualTls,
    /// Who says so; None: it is the default.
    pub policy: Option<ObjectName>,
    /// By the workload's port.
    pub ports: BTreeMap<u16, MutualTls>,
    /// Who says that.
    pub ports_policy: Option<ObjectName>,
}

/// An `AuthorizationPolicy` that selects the workload.
#[derive(Debug, Clone)]
pub struct Policy {
    /// `default/deny-all`.
    pub name: ObjectName,
    /// What it does with what matches.
    pub action: PolicyAction,
    /// Any of them.
    pub rules: Vec<AuthorizationRule>,
}

/// A security policy for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicySummary {
    /// `AuthorizationPolicy` or `PeerAuthentication`.
    pub kind: &'static str,
    /// Namespace and name.
    pub name: ObjectName,
    /// Its action or mode, as the API spells it.
    pub effect: &'static str,
    /// Labels that it selects by.
    pub selector: Labels,
    /// How many rules it has.
    pub rules: usize,
    /// Whom it holds for, by name.
    pub workloads: Vec<ObjectName>,
}

/// Who wants to connect.
#[derive(Debug, Clone, Copy)]
pub struct Client<'c> {
    /// The address, or a whole block of them: then it is asked about all that no smaller block covers.
    pub address: IpBlock,
    /// The enrolled pod that it is.
    pub workload: Option<&'c Workload>,
}

impl<'c> Client<'c> {
    /// A pod whose identity is known, by its own address of the family of `server`. One in the host's
    /// namespace has the address of everything that runs there, and so no identity.
    pub fn pod(workload: &'c Workload, server: IpAddr) -> Self {
        let mut addresses = workload.addresses.iter().copied();
        let address = addresses.find(|own| own.is_ipv4() == server.is_ipv4());
        Self {
            // A pod without such an address comes from nowhere: in no block but the whole.
            address: address.map_or(IpBlock::ALL, IpBlock::host),
            workload: (!matches!(workload.place, Some(PodPlace::Cgroup(_)))).then_some(workload),
        }
    }

    /// Somebody outside of the mesh.
    pub fn stranger(address: IpAddr) -> Self {
        Self {
            address: IpBlock::host(address),
            workload: None,
        }
    }
}

/// What becomes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision<'a> {
    /// It is let in; by an ALLOW policy, where there is any.
    Allow(Option<&'a ObjectName>),
    /// It is refused.
    Deny(Denial<'a>),
}

/// Why a connection is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial<'a> {
    /// A DENY or CUSTOM policy matches.
    Policy(&'a ObjectName),
    /// There are ALLOW policies, and none matches.
    NothingAllows,
    /// It would be plaintext, and STRICT is asked for by this `PeerAuthentication`.
    Plaintext(&'a ObjectName),
}

impl fmt::Display for Denial<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Policy(name) => write!(f, "AuthorizationPolicy {name}"),
            Self::NothingAllows => f.write_str("no ALLOW policy matches"),
            Self::Plaintext(name) => write!(f, "PeerAuthentication {name}"),
        }
    }
}

impl Denial<'_> {
    /// One line for people.
    pub fn reason(&self) -> String {
        match self {
            Self::Policy(name) => format!("AuthorizationPolicy {name} refuses it"),
            Self::NothingAllows => {
                "there are ALLOW policies for the workload, and none of them matches".to_owned()
            }
            Self::Plaintext(name) => format!(
                "PeerAuthentication {name} wants mutual TLS (STRICT), and the client is no pod that \
                 the node vouches for"
            ),
        }
    }
}

/// Why a pod of the mesh may not connect to another `at` its address and port; None: it may.
pub fn refusal<'s>(client: &Workload, server: &'s Workload, at: SocketAddr) -> Option<Denial<'s>> {
    let access = server.access.as_ref()?;
    if client.name == server.name {
        // A pod may talk to itself.
        return None;
    }
    match access.decide(&Client::pod(client, at.ip()), at.port()) {
        Decision::Deny(denial) => Some(denial),
        Decision::Allow(_) => None,
    }
}

impl WorkloadAccess {
    /// Whether a connection of `client` to the workload's `port` is let in.
    pub fn decide(&self, client: &Client<'_>, port: u16) -> Decision<'_> {
        if let Some(policy) = self.authentication.refuses(client, port) {
            return Decision::Deny(Denial::Plaintext(policy));
        }
        let mut allowing = false;
        for policy in &self.policies {
            match policy.action {
                PolicyAction::Allow => {
                    allowing = true;
                    if policy.matches(client, port) {
                        return Decision::Allow(Some(&policy.name));
                    }
                }
                PolicyAction::Deny | PolicyAction::Custom => {
                    if policy.matches(client, port) {
                        return Decision::Deny(Denial::Policy(&policy.name));
                    }
                }
                PolicyAction::Audit => {}
            }
        }
        if allowing {
            Decision::Deny(Denial::NothingAllows)
        } else {
            Decision::Allow(None)
        }
    }

    /// Every port that may be judged otherwise than the rest.
    pub fn ports(&self) -> impl Iterator<Item = u16> {
        let operations = |rule: &AuthorizationRule| {
            let conditions = rule.when.iter().filter_map(|one| match one {
                ConditionMatch::Operation(operation) => Some(operation),
                ConditionMatch::Source(_) => None,
            });
            rule.to
                .iter()
                .chain(conditions)
                .flat_map(|operation| operation.port.iter().copied())
                .collect::<Vec<u16>>()
        };
        self.authentication
            .ports
            .keys()
            .copied()
            .chain(self.rules().flat_map(operations))
    }

    /// Every block of addresses that may be judged otherwise than the rest.
    pub fn blocks(&self) -> impl Iterator<Item = IpBlock> {
        self.rules()
            .flat_map(sources)
            .flat_map(|source| source.address.iter().copied())
    }

    /// Whether it matters who the client is, beyond its address.
    pub fn asks_for_identity(&self) -> bool {
        self.authentication.is_strict_anywhere()
            || self.rules().flat_map(sources).any(|source| {
                !source.principal.is_empty()
                    || !source.namespace.is_empty()
                    || !source.service_account.is_empty()
                    || !source.trust_domain.is_empty()
            })
    }

    fn rules(&self) -> impl Iterator<Item = &AuthorizationRule> {
        self.policies.iter().flat_map(|policy| &policy.rules)
    }
}

fn sources(rule: &AuthorizationRule) -> impl Iterator<Item = &SourceMatch> {
    let conditions = rule.when.iter().filter_map(|one| match one {
        ConditionMatch::Source(source) => Some(source),
        ConditionMatch::Operation(_) => None,
    });
    rule.from.iter().chain(conditions)
}

impl Authentication {
    /// Whether some port takes nothing but what is authenticated.
    pub fn is_strict_anywhere(&self) -> bool {
        self.mode == MutualTls::Strict || self.ports.values().any(|mode| *mode == MutualTls::Strict)
    }

    /// Who refuses the plaintext of this client; None: nobody.
    fn refuses(&self, client: &Client<'_>, port: u16) -> Option<&ObjectName> {
        let (mode, policy) = match self.ports.get(&port) {
            Some(mode) => (*mode, &self.ports_policy),
            None => (self.mode, &self.policy),
        };
        (mode == MutualTls::Strict && client.workload.is_none())
            .then_some(policy.as_ref())
            .flatten()
    }
}

impl Policy {
    fn matches(&self, client: &Client<'_>, port: u16) -> bool {
        self.rules.iter().any(|rule| {
            // What it asks about a request cannot be answered. ALLOW then never matches; the others are
            // read without it: both refuse more rather than less.
            !(rule.needs_request && self.action == PolicyAction::Allow)
                && self.rule_matches(rule, client, port)
        })
    }

    fn rule_matches(&self, rule: &AuthorizationRule, client: &Client<'_>, port: u16) -> bool {
        let source = |source: &SourceMatch| self.source_matches(source, client);
        let operation = |operation: &OperationMatch| operation.port.matches(|one| *one == port);
        (rule.from.is_empty() || rule.from.iter().any(source))
            && (rule.to.is_empty() || rule.to.iter().any(operation))
            && rule.when.iter().all(|condition| match condition {
                ConditionMatch::Source(one) => source(one),
                ConditionMatch::Operation(one) => operation(one),
            })
    }

    fn source_matches(&self, source: &SourceMatch, client: &Client<'_>) -> bool {
        // Whoever has no identity has an empty one: `*` does not match it, `not…` does.
        let principal = client
            .workload
            .map_or("", |pod| pod.principal.trim_start_matches("spiffe://"));
        let namespace = client.workload.map_or("", |pod| &pod.name.namespace);
        let account = client.workload.map_or("", |pod| &pod.service_account);
        let trust_domain = principal.split('/').next().unwrap_or_default();
        source
            .address
            .matches(|block| block.covers(&client.address))
            && source.principal.matches(|one| one.matches(principal))
            && source.namespace.matches(|one| one.matches(namespace))
            && source.trust_domain.matches(|one| one.matches(trust_domain))
            && source.service_account.matches(|(of, name)| {
                let of = of.as_deref().unwrap_or(&self.name.namespace);
                client.workload.is_some() && of == namespace && name == account
            })
    }
}

#[cfg(test)]
mod tests;
