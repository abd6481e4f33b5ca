//! What findings are judged by: the same indexes that a snapshot is built from.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    config::model::Object,
    mesh::{
        model::{Service, Snapshot},
        names,
        resolve::{BuildOptions, DestinationRules, Objects, VirtualServices},
    },
};

/// All objects, resolved as far as findings need it.
pub struct World<'o> {
    /// By kind.
    pub objects: Objects<'o>,
    /// Domain of full names.
    pub domain: &'o str,
    /// By full host.
    pub services: BTreeMap<Arc<str>, Arc<Service>>,
    /// Those that act inside the mesh.
    pub rules: VirtualServices<'o>,
    /// By namespace and host.
    pub destination_rules: DestinationRules<'o>,
    /// Namespaces that clients live in.
    pub clients: BTreeSet<Arc<str>>,
}

impl<'o> World<'o> {
    /// Resolves the objects for no node in particular.
    pub fn new(objects: &'o [Arc<Object>], domain: &'o str) -> Self {
        let options = BuildOptions {
            node_name: String::new(),
            domain: domain.to_owned(),
            version: 0,
        };
        let snapshot = Snapshot::build(objects, &options);
        let clients = snapshot.views.into_keys().collect();
        let objects = Objects::sort(objects);
        Self {
            domain,
            services: snapshot.services,
            rules: VirtualServices::new(&objects, domain),
            destination_rules: DestinationRules::new(&objects, domain),
            clients,
            objects,
        }
    }

    /// The services that a full host or a wildcard names.
    pub fn named_by<'w>(&'w self, host: &'w str) -> Vec<&'w Arc<Service>> {
        match names::wildcard_suffix(host) {
            None => self.services.get(host).into_iter().collect(),
            Some(suffix) => self
                .services
                .values()
                .filter(|service| names::wildcard_covers(suffix, &service.host))
                .collect(),
        }
    }

    /// Why a full host names no service, in a few words with a mend; as it was written, in a rule of
    /// `namespace`. `None` for a host that is not of this cluster, which need not be a service.
    pub fn unknown_host(&self, full: &str, written: &str) -> Option<String> {
        let spelled = self.services.values().find(|service| {
            let (name, namespace) = (&service.name.name, &service.name.namespace);
            full == format!("{name}.{namespace}") || full == format!("{name}.{namespace}.svc")
        });
        if let Some(service) = spelled {
            return Some(format!(
                "{written} has a dot, so it is no short name and stands for itself: write {}",
                service.host
            ));
        }
        let rest = full.strip_suffix(self.domain)?.strip_suffix(".svc.")?;
        let (name, namespace) = rest.split_once('.')?;
        let elsewhere: Vec<&str> = self
            .services
            .values()
            .filter(|service| *service.name.name == *name)
            .map(|service| service.host.as_ref())
            .collect();
        let hint = if elsewhere.is_empty() {
            String::new()
        } else {
            format!("; did you mean {}?", elsewhere.join(" or "))
        };
        Some(format!(
            "there is no Service {name} in namespace {namespace}{hint}"
        ))
    }
}
