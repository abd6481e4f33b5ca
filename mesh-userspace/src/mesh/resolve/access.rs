//! Which security policies select a workload.

use std::{cell::RefCell, collections::HashMap, sync::Arc};

use super::{
    endpoints::selector_matches,
    objects::{Objects, Typed},
    workloads::PodEntry,
};
use crate::{
    config::model::{AuthorizationPolicy, Labels, MutualTls, PeerAuthentication, PolicyAction},
    mesh::{
        access::{Authentication, Policy, PolicySummary, WorkloadAccess},
        model::Workload,
        names::ROOT_NAMESPACE,
    },
};

/// The places of policies in their lists: who has the same ones shares what comes of them.
#[derive(PartialEq, Eq, Hash)]
struct Selection {
    policies: Vec<usize>,
    workload: Option<usize>,
    namespace: Option<usize>,
}

/// One in the root namespace holds everywhere.
fn selects(policy: &Typed<'_, AuthorizationPolicy>, namespace: &str, labels: &Labels) -> bool {
    let home = &*policy.meta.name.namespace;
    (home == namespace || home == ROOT_NAMESPACE) && selector_matches(&policy.spec.selector, labels)
}

/// Every security policy, ready to be asked.
pub struct AccessPolicies<'o> {
    authorizations: &'o [Typed<'o, AuthorizationPolicy>],
    authentications: &'o [Typed<'o, PeerAuthentication>],
    mesh_wide: Option<usize>,
    shared: RefCell<HashMap<Selection, Option<Arc<WorkloadAccess>>>>,
}

impl<'o> AccessPolicies<'o> {
    /// Of all objects.
    pub fn new(objects: &'o Objects<'o>) -> Self {
        let authentications = &objects.peer_authentications;
        let mesh_wide = authentications.iter().position(|policy| {
            policy.spec.selector.is_empty() && &*policy.meta.name.namespace == ROOT_NAMESPACE
        });
        Self {
            authorizations: &objects.authorization_policies,
            authentications,
            mesh_wide,
            shared: RefCell::default(),
        }
    }

    /// What holds for a workload; None: whoever wants may connect.
    pub fn of(&self, namespace: &str, labels: &Labels) -> Option<Arc<WorkloadAccess>> {
        let selection = self.select(namespace, labels);
        if let Some(known) = self.shared.borrow().get(&selection) {
            return known.clone();
        }
        let access = WorkloadAccess {
            authentication: self.authentication(&selection),
            policies: self.policies(&selection),
        };
        let matters = !access.policies.is_empty() || access.authentication.is_strict_anywhere();
        let access = matters.then(|| Arc::new(access));
        self.shared.borrow_mut().insert(selection, access.clone());
        access
    }

    fn select(&self, namespace: &str, labels: &Labels) -> Selection {
        let policies = self.authorizations.iter().enumerate();
        let policies = policies
            .filter(|(_, policy)| {
                policy.spec.action != PolicyAction::Audit && selects(policy, namespace, labels)
            })
            .map(|(index, _)| index)
            .collect();
        // The oldest of each scope. One with a selector in the root namespace selects nothing: Istio reads
        // that place as the whole mesh only.
        let at_home = |policy: &Typed<'_, PeerAuthentication>| {
            &*policy.meta.name.namespace == namespace && namespace != ROOT_NAMESPACE
        };
        Selection {
            policies,
            workload: self.authentications.iter().position(|policy| {
                at_home(policy)
                    && !policy.spec.selector.is_empty()
                    && selector_matches(&policy.spec.selector, labels)
            }),
            namespace: self
                .authentications
                .iter()
                .position(|policy| at_home(policy) && policy.spec.selector.is_empty()),
        }
    }

    /// Every policy with those of `pods` that it holds for.
    pub fn summaries(&self, pods: &[PodEntry<'_>]) -> Vec<PolicySummary> {
        let holds_for = |selects: &dyn Fn(&Workload) -> bool| {
            let selected = pods.iter().filter(|pod| selects(&pod.workload));
            selected.map(|pod| pod.workload.name.clone()).collect()
        };
        let authorizations = self.authorizations.iter().map(|policy| PolicySummary {
            kind: "AuthorizationPolicy",
            name: policy.meta.name.clone(),
            effect: policy.spec.action.as_str(),
            selector: policy.spec.selector.clone(),
            rules: policy.spec.rules.len(),
            workloads: holds_for(&|pod| selects(policy, &pod.name.namespace, &pod.labels)),
        });
        let authentications = self.authentications.iter().enumerate();
        let authentications = authentications.map(|(index, policy)| PolicySummary {
            kind: "PeerAuthentication",
            name: policy.meta.name.clone(),
            effect: policy.spec.mode.map_or("UNSET", MutualTls::as_str),
            selector: policy.spec.selector.clone(),
            rules: policy.spec.ports.len(),
            workloads: holds_for(&|pod| {
                let selection = self.select(&pod.name.namespace, &pod.labels);
                // The nearest one that says something; a workload's own has its ports besides.
                let said = self.authentication(&selection).policy;
                selection.workload == Some(index) || said.as_ref() == Some(&policy.meta.name)
            }),
        });
        authorizations.chain(authentications).collect()
    }

    /// CUSTOM, DENY, ALLOW; the lists are in order of precedence already.
    fn policies(&self, selection: &Selection) -> Vec<Policy> {
        let order = [
            PolicyAction::Custom,
            PolicyAction::Deny,
            PolicyAction::Allow,
        ];
        let of_action = |action| {
            let selected = selection.policies.iter();
            selected
                .map(|index| &self.authorizations[*index])
                .filter(move |policy| policy.spec.action == action)
        };
        order
            .into_iter()
            .flat_map(of_action)
            .map(|policy| Policy {
                name: policy.meta.name.clone(),
                action: policy.spec.action,
                rules: policy.spec.rules.clone(),
            })
            .collect()
    }

    /// The workload's own, else its namespace's, else the mesh's; what is unset is inherited.
    fn authentication(&self, selection: &Selection) -> Authentication {
        let scopes = [selection.workload, selection.namespace, self.mesh_wide];
        let said = scopes
            .into_iter()
            .flatten()
            .map(|index| &self.authentications[index])
            .find_map(|policy| Some((policy.spec.mode?, policy.meta.name.clone())));
        let (mode, policy) = match said {
            Some((mode, policy)) => (mode, Some(policy)),
            None => (MutualTls::default(), None),
        };
        let own = selection.workload.map(|index| &self.authentications[index]);
        let ports = own.into_iter().flat_map(|policy| &policy.spec.ports);
        Authentication {
            mode,
            policy,
            // A port without a mode of its own is as its workload's others.
            ports: ports
                .filter_map(|(port, mode)| Some((*port, (*mode)?)))
                .collect(),
            ports_policy: own.map(|policy| policy.meta.name.clone()),
        }
    }
}
