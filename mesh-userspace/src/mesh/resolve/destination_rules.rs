//! Which DestinationRule applies to a host, for the clients of one namespace.

use std::{
    cell::RefCell,
    collections::{BTreeSet, HashMap},
    rc::Rc,
};

use super::objects::{Objects, Typed};
use crate::{
    config::model::{DestinationRule, ObjectName, Subset, TrafficPolicy},
    mesh::names::{self, ROOT_NAMESPACE},
};

/// All DestinationRules, by namespace and host.
pub struct DestinationRules<'o> {
    /// In the order of precedence.
    rules: Vec<(&'o ObjectName, &'o DestinationRule)>,
    by_namespace: HashMap<&'o str, NamespaceRules>,
    apart: Vec<Apart<'o>>,
    apart_by_host: HashMap<String, Vec<usize>>,
    merged: RefCell<HashMap<Vec<usize>, Rc<MergedRule<'o>>>>,
}

/// Indexes into [`DestinationRules::rules`].
#[derive(Default)]
struct NamespaceRules {
    exact: HashMap<String, Vec<usize>>,
    /// What stands behind the star, the longest first.
    wildcards: Vec<(String, Vec<usize>)>,
}

/// A host for which the clients of one namespace may get another rule than everybody gets.
pub struct Apart<'o> {
    /// A full host or a wildcard.
    pub host: String,
    /// The clients' namespace.
    pub client: &'o str,
    /// Not for services of that namespace itself: everybody gets the same rule for those.
    pub abroad_only: bool,
}

/// All that a namespace says about one host.
pub struct MergedRule<'o> {
    /// The first of those merged.
    pub name: &'o ObjectName,
    /// The first top-level policy that says something.
    pub traffic_policy: Option<&'o TrafficPolicy>,
    /// The first of each name, with the rule that it stands in.
    pub subsets: Vec<(&'o Subset, &'o ObjectName)>,
}

impl<'o> MergedRule<'o> {
    /// The subset of this name.
    pub fn subset(&self, name: &str) -> Option<&(&'o Subset, &'o ObjectName)> {
        self.subsets.iter().find(|(subset, _)| subset.name == name)
    }
}

impl<'o> DestinationRules<'o> {
    /// Indexes the rules; their hosts are taken in full.
    pub fn new(objects: &Objects<'o>, domain: &str) -> Self {
        let mut by_namespace: HashMap<&str, NamespaceRules> = HashMap::new();
        let mut rules = Vec::with_capacity(objects.destination_rules.len());
        let mut apart = Vec::new();
        for (index, Typed { meta, spec }) in objects.destination_rules.iter().enumerate() {
            rules.push((&meta.name, *spec));
            let host = names::full_host(&spec.host, &meta.name.namespace, domain);
            apart.extend(who_is_apart(&host, &meta.name.namespace, &spec.export_to));
            let namespace = by_namespace
                .entry(meta.name.namespace.as_ref())
                .or_default();
            match names::wildcard_suffix(&host) {
                None => namespace.exact.entry(host).or_default().push(index),
                Some(suffix) => match namespace.wildcards.iter_mut().find(|(s, _)| s == suffix) {
                    Some((_, indexes)) => indexes.push(index),
                    None => namespace.wildcards.push((suffix.to_owned(), vec![index])),
                },
            }
        }
        for namespace in by_namespace.values_mut() {
            namespace
                .wildcards
                .sort_by_key(|(suffix, _)| std::cmp::Reverse(suffix.len()));
        }
        let mut apart_by_host: HashMap<String, Vec<usize>> = HashMap::new();
        for (index, one) in apart.iter().enumerate() {
            let host = one.host.clone();
            apart_by_host.entry(host).or_default().push(index);
        }
        Self {
            rules,
            by_namespace,
            apart,
            apart_by_host,
            merged: RefCell::default(),
        }
    }

    /// Whether any block of a policy is set.
    pub fn says_something(policy: &TrafficPolicy) -> bool {
        let TrafficPolicy {
            load_balancer,
            connect_timeout,
        } = policy;
        load_balancer.is_some() || connect_timeout.is_some()
    }

    /// Where clients may get another answer than everybody gets.
    pub fn apart(&self) -> &[Apart<'o>] {
        &self.apart
    }

    /// The namespaces whose clients may get another answer for the host of a service than everybody.
    pub fn clients_apart(&self, host: &str, service_namespace: &str) -> BTreeSet<&'o str> {
        let exact = self.apart_by_host.get(host).into_iter().flatten();
        let starred = self.apart_by_host.iter().filter(|(pattern, _)| {
            names::wildcard_suffix(pattern).is_some_and(|s| names::wildcard_covers(s, host))
        });
        exact
            .chain(starred.flat_map(|(_, indexes)| indexes))
            .map(|index| &self.apart[*index])
            .filter(|one| !(one.abroad_only && one.client == service_namespace))
            .map(|one| one.client)
            .collect()
    }

    /// The client's namespace (unless it is the root's), then the service's, then the root's: the first
    /// that says anything about the host wins whole.
    pub fn find(
        &self,
        client: &str,
        host: &str,
        service_namespace: Option<&str>,
    ) -> Option<Rc<MergedRule<'o>>> {
        let own = (client != ROOT_NAMESPACE).then_some(client);
        [own, service_namespace, Some(ROOT_NAMESPACE)]
            .into_iter()
            .flatten()
            .find_map(|namespace| self.find_in(namespace, client, host))
    }

    /// An exact host beats a wildcard, a longer wildcard a shorter one.
    fn find_in(&self, namespace: &str, client: &str, host: &str) -> Option<Rc<MergedRule<'o>>> {
        let rules = self.by_namespace.get(namespace)?;
        let wildcards = rules
            .wildcards
            .iter()
            .filter(|(suffix, _)| names::wildcard_covers(suffix, host))
            .map(|(_, indexes)| indexes);
        rules
            .exact
            .get(host)
            .into_iter()
            .chain(wildcards)
            .find_map(|indexes| {
                let seen: Vec<usize> = indexes
                    .iter()
                    .copied()
                    .filter(|index| {
                        let export_to = &self.rules[*index].1.export_to;
                        names::visibility(export_to, namespace, client).is_some()
                    })
                    .collect();
                (!seen.is_empty()).then(|| self.merge(seen))
            })
    }

    fn merge(&self, indexes: Vec<usize>) -> Rc<MergedRule<'o>> {
        if let Some(known) = self.merged.borrow().get(&indexes) {
            return Rc::clone(known);
        }
        let mut merged = MergedRule {
            name: self.rules[indexes[0]].0,
            traffic_policy: None,
            subsets: Vec::new(),
        };
        for (name, rule) in indexes.iter().map(|index| self.rules[*index]) {
            if merged.traffic_policy.is_none() && Self::says_something(&rule.traffic_policy) {
                merged.traffic_policy = Some(&rule.traffic_policy);
            }
            for subset in &rule.subsets {
                if merged.subset(&subset.name).is_none() {
                    merged.subsets.push((subset, name));
                }
            }
        }
        let merged = Rc::new(merged);
        self.merged.borrow_mut().insert(indexes, Rc::clone(&merged));
        merged
    }
}

/// Its own namespace looks at a rule first; namespaces that it is exported to by name alone see it.
fn who_is_apart<'o>(host: &str, home: &'o str, export_to: &'o [String]) -> Vec<Apart<'o>> {
    let public = names::is_public(export_to);
    let named = export_to.iter().map(String::as_str).filter(|_| !public);
    let mut apart = vec![Apart {
        host: host.to_owned(),
        client: home,
        abroad_only: public,
    }];
    apart.extend(named.filter(|name| *name != ".").map(|client| Apart {
        host: host.to_owned(),
        client,
        abroad_only: false,
    }));
    apart
}
