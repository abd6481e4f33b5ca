//! The kinds that Zerohop acts on, each with its group, its versions and its parser.

mod annotations;
mod authorization_policy;
mod destination_rule;
mod endpoint_slice;
mod istio;
mod metadata;
mod namespace;
mod peer_authentication;
mod pod;
mod security;
mod service;
#[cfg(test)]
mod tests;
mod virtual_service;

pub use metadata::metadata;

use super::{
    fields::{Fields, Parsed, closest},
    model::{Meta, Spec},
};

/// Why an object that is well formed is nevertheless not put in force.
#[derive(Debug)]
pub struct NotActedOn(pub String);

/// What a kind's parser returns.
pub type ParsedSpec = Parsed<Result<Spec, NotActedOn>>;

/// A kind that Zerohop acts on.
#[derive(Debug)]
pub struct Kind {
    /// As manifests spell it.
    pub name: &'static str,
    /// API group; empty for the core group.
    pub group: &'static str,
    /// The versions that are read, all alike.
    pub versions: &'static [&'static str],
    /// Has no namespace.
    pub cluster_scoped: bool,
    /// Names of the fields below `spec`, to recognise those that lost their indentation.
    pub spec_fields: &'static [&'static str],
    /// Reads the document; its metadata are read already.
    pub parse: fn(&Fields<'_>, &Meta) -> ParsedSpec,
}

const ISTIO: &str = "networking.istio.io";
const ISTIO_VERSIONS: &[&str] = &["v1", "v1beta1", "v1alpha3"];

const SECURITY: &str = "security.istio.io";
const SECURITY_VERSIONS: &[&str] = &["v1", "v1beta1"];

static KINDS: [Kind; 8] = [
    Kind {
        name: "Namespace",
        group: "",
        versions: &["v1"],
        cluster_scoped: true,
        spec_fields: &[],
        parse: namespace::parse,
    },
    Kind {
        name: "Service",
        group: "",
        versions: &["v1"],
        cluster_scoped: false,
        spec_fields: &["ports", "selector", "clusterIP", "type"],
        parse: service::parse,
    },
    Kind {
        name: "EndpointSlice",
        group: "discovery.k8s.io",
        versions: &["v1"],
        cluster_scoped: false,
        spec_fields: &[],
        parse: endpoint_slice::parse,
    },
    Kind {
        name: "Pod",
        group: "",
        versions: &["v1"],
        cluster_scoped: false,
        spec_fields: &["containers", "nodeName", "serviceAccountName"],
        parse: pod::parse,
    },
    Kind {
        name: "VirtualService",
        group: ISTIO,
        versions: ISTIO_VERSIONS,
        cluster_scoped: false,
        spec_fields: virtual_service::SPEC_FIELDS,
        parse: virtual_service::parse,
    },
    Kind {
        name: "DestinationRule",
        group: ISTIO,
        versions: ISTIO_VERSIONS,
        cluster_scoped: false,
        spec_fields: destination_rule::SPEC_FIELDS,
        parse: destination_rule::parse,
    },
    Kind {
        name: "AuthorizationPolicy",
        group: SECURITY,
        versions: SECURITY_VERSIONS,
        cluster_scoped: false,
        spec_fields: authorization_policy::SPEC_FIELDS,
        parse: authorization_policy::parse,
    },
    Kind {
        name: "PeerAuthentication",
        group: SECURITY,
        versions: SECURITY_VERSIONS,
        cluster_scoped: false,
        spec_fields: peer_authentication::SPEC_FIELDS,
        parse: peer_authentication::parse,
    },
];

/// What is known of an `apiVersion` and `kind`.
#[derive(Debug)]
pub enum Lookup {
    /// Acted on.
    Known(&'static Kind),
    /// Acted on in these versions, of which it is none.
    OtherVersion {
        /// As an `apiVersion` spells them.
        known: Vec<String>,
    },
    /// Not acted on.
    Other {
        /// A kind of the same group whose name is nearly this one.
        similar: Option<&'static str>,
    },
}

/// Looks a kind up.
pub fn look_up(api_version: &str, kind: &str) -> Lookup {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let Some(known) = KINDS
        .iter()
        .find(|known| known.name == kind && known.group == group)
    else {
        let names: Vec<&str> = KINDS
            .iter()
            .filter(|known| known.group == group)
            .map(|known| known.name)
            .collect();
        return Lookup::Other {
            similar: closest(kind, &names),
        };
    };
    if known.versions.contains(&version) {
        return Lookup::Known(known);
    }
    let spelled = |version: &&str| match known.group {
        "" => (*version).to_owned(),
        group => format!("{group}/{version}"),
    };
    Lookup::OtherVersion {
        known: known.versions.iter().map(spelled).collect(),
    }
}

/// Whether objects of a kind have no namespace; kinds that are not acted on included, for reports.
pub fn is_cluster_scoped(kind: &str) -> bool {
    const OTHERS: [&str; 12] = [
        "APIService",
        "ClusterIssuer",
        "ClusterRole",
        "ClusterRoleBinding",
        "CustomResourceDefinition",
        "GatewayClass",
        "IngressClass",
        "MutatingWebhookConfiguration",
        "Node",
        "PersistentVolume",
        "StorageClass",
        "ValidatingWebhookConfiguration",
    ];
    OTHERS.contains(&kind)
        || KINDS
            .iter()
            .any(|known| known.name == kind && known.cluster_scoped)
}
