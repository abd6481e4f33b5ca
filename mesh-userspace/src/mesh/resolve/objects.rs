//! The objects by kind, in the order in which each kind takes precedence.

use std::{collections::HashMap, sync::Arc};

use crate::config::model::{
    AuthorizationPolicy, DestinationRule, EndpointSlice, Meta, Object, PeerAuthentication, Pod,
    PodDefaults, Service, Spec, VirtualService,
};

/// An object of one kind with its metadata.
pub struct Typed<'o, T> {
    /// Name, labels, place.
    pub meta: &'o Meta,
    /// What it says.
    pub spec: &'o T,
}

/// All objects by kind.
#[derive(Default)]
pub struct Objects<'o> {
    /// What a Namespace says for its pods.
    pub pod_defaults: HashMap<&'o str, &'o PodDefaults>,
    /// By namespace and name.
    pub services: Vec<Typed<'o, Service>>,
    /// By namespace and name.
    pub slices: Vec<Typed<'o, EndpointSlice>>,
    /// By namespace and name.
    pub pods: Vec<Typed<'o, Pod>>,
    /// By creation time, name, namespace: Istio's precedence.
    pub virtual_services: Vec<Typed<'o, VirtualService>>,
    /// By creation time, name, namespace: Istio's precedence.
    pub destination_rules: Vec<Typed<'o, DestinationRule>>,
    /// By creation time, name, namespace: the oldest of a scope counts.
    pub peer_authentications: Vec<Typed<'o, PeerAuthentication>>,
    /// By creation time, name, namespace: so they are told.
    pub authorization_policies: Vec<Typed<'o, AuthorizationPolicy>>,
}

impl<'o> Objects<'o> {
    /// Sorts `objects` out; their own order does not count.
    pub fn sort(objects: &'o [Arc<Object>]) -> Self {
        let mut sorted = Self::default();
        for object in objects {
            let meta = &object.meta;
            match &object.spec {
                Spec::Namespace(defaults) => {
                    sorted.pod_defaults.insert(&meta.name.name, defaults);
                }
                Spec::Service(spec) => sorted.services.push(Typed { meta, spec }),
                Spec::EndpointSlice(spec) => sorted.slices.push(Typed { meta, spec }),
                Spec::Pod(spec) => sorted.pods.push(Typed { meta, spec }),
                Spec::VirtualService(spec) => sorted.virtual_services.push(Typed { meta, spec }),
                Spec::DestinationRule(spec) => sorted.destination_rules.push(Typed { meta, spec }),
                Spec::PeerAuthentication(spec) => {
                    sorted.peer_authentications.push(Typed { meta, spec });
                }
                Spec::AuthorizationPolicy(spec) => {
                    sorted.authorization_policies.push(Typed { meta, spec });
                }
            }
        }
        by_name(&mut sorted.services);
        by_name(&mut sorted.slices);
        by_name(&mut sorted.pods);
        by_precedence(&mut sorted.virtual_services);
        by_precedence(&mut sorted.destination_rules);
        by_precedence(&mut sorted.peer_authentications);
        by_precedence(&mut sorted.authorization_policies);
        sorted
    }
}

fn by_name<T>(objects: &mut [Typed<'_, T>]) {
    objects.sort_by_key(|object| &object.meta.name);
}

fn by_precedence<T>(objects: &mut [Typed<'_, T>]) {
    objects.sort_by_key(|object| {
        let meta = object.meta;
        (
            meta.creation_timestamp.as_deref(),
            meta.name.name.as_ref(),
            meta.name.namespace.as_ref(),
        )
    });
}
