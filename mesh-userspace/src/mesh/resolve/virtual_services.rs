//! Which VirtualService has a host, for the clients of one namespace.

use std::collections::{HashMap, HashSet};

use super::objects::Objects;
use crate::{
    config::model::{Meta, VirtualService},
    mesh::names::{self, Visibility},
};

/// All VirtualServices, in the order of their precedence.
pub struct VirtualServices<'o> {
    domain: String,
    rules: Vec<MeshRule<'o>>,
}

/// A VirtualService with its hosts in full.
pub struct MeshRule<'o> {
    /// Name, place.
    pub meta: &'o Meta,
    /// As written.
    pub spec: &'o VirtualService,
    /// In the order written: full names, wildcards, addresses.
    pub hosts: Vec<String>,
}

/// Which rule has which host, as the clients of one namespace see it.
#[derive(Default)]
pub struct HostTable<'r> {
    /// Full host to an index into [`VirtualServices::rules`].
    pub exact: HashMap<&'r str, usize>,
    /// What stands behind the star, the longest first.
    pub wildcards: Vec<(&'r str, usize)>,
}

impl<'o> VirtualServices<'o> {
    /// Those that act on clients inside the mesh.
    pub fn new(objects: &Objects<'o>, domain: &str) -> Self {
        let rules = objects
            .virtual_services
            .iter()
            .filter(|rule| names::acts_in_mesh(&rule.spec.gateways))
            .map(|rule| MeshRule {
                meta: rule.meta,
                spec: rule.spec,
                hosts: rule
                    .spec
                    .hosts
                    .iter()
                    .map(|host| names::full_host(host, &rule.meta.name.namespace, domain))
                    .collect(),
            })
            .collect();
        Self {
            domain: domain.to_owned(),
            rules,
        }
    }

    /// What a host in a rule stands for.
    pub fn full_host(&self, rule: &MeshRule<'_>, host: &str) -> String {
        names::full_host(host, &rule.meta.name.namespace, &self.domain)
    }

    /// In the order of precedence among equally near ones.
    pub fn rules(&self) -> &[MeshRule<'o>] {
        &self.rules
    }

    /// Namespaces whose clients see other rules than everybody sees.
    pub fn special_namespaces(&self) -> HashSet<&str> {
        let mut special = HashSet::new();
        for rule in &self.rules {
            let export_to = &rule.spec.export_to;
            if names::is_public(export_to) {
                continue;
            }
            special.insert(rule.meta.name.namespace.as_ref());
            special.extend(export_to.iter().map(String::as_str));
        }
        special
    }

    /// Private ones first, then what is exported to `client`, then public ones; the first has the host.
    pub fn table(&self, client: &str) -> HostTable<'_> {
        let mut seen: Vec<(Visibility, usize)> = self
            .rules
            .iter()
            .enumerate()
            .filter_map(|(index, rule)| {
                let home = &rule.meta.name.namespace;
                names::visibility(&rule.spec.export_to, home, client).map(|near| (near, index))
            })
            .collect();
        seen.sort_unstable();

        let mut table = HostTable::default();
        let mut starred = HashSet::new();
        for (_, index) in seen {
            for host in &self.rules[index].hosts {
                match names::wildcard_suffix(host) {
                    None => {
                        table.exact.entry(host.as_str()).or_insert(index);
                    }
                    Some(suffix) if starred.insert(suffix) => {
                        table.wildcards.push((suffix, index));
                    }
                    Some(_) => {}
                }
            }
        }
        table
            .wildcards
            .sort_by_key(|(suffix, _)| std::cmp::Reverse(suffix.len()));
        table
    }
}

impl HostTable<'_> {
    /// The rule that has a host exactly as a rule's `hosts` say it, wildcard or not.
    pub fn written(&self, host: &str) -> Option<usize> {
        match names::wildcard_suffix(host) {
            None => self.exact.get(host).copied(),
            Some(suffix) => self
                .wildcards
                .iter()
                .find(|(known, _)| *known == suffix)
                .map(|(_, index)| *index),
        }
    }

    /// The rule that has a full host; of wildcards the most specific.
    pub fn rule_of(&self, host: &str) -> Option<usize> {
        self.exact.get(host).copied().or_else(|| {
            self.wildcards
                .iter()
                .find(|(suffix, _)| names::wildcard_covers(suffix, host))
                .map(|(_, index)| *index)
        })
    }
}
