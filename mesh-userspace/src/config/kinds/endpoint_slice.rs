//! Kubernetes `discovery.k8s.io/v1` `EndpointSlice`: endpoints that somebody else computed.

use super::{NotActedOn, ParsedSpec, service::transport};
use crate::config::{
    fields::{Cursor, Fields, Parsed},
    model::{EndpointSlice, Meta, SliceEndpoint, SlicePort, Spec},
};

const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Reads a slice. Its fields stand at the top level: the kind has no `spec`.
pub fn parse(root: &Fields<'_>, meta: &Meta) -> ParsedSpec {
    let service = match meta.labels.get(SERVICE_NAME) {
        Some(service) if !service.is_empty() => service.clone(),
        _ => {
            let mut rejection = root.reject_at(
                "metadata",
                format!("the label {SERVICE_NAME} is missing: it says whose endpoints these are"),
            );
            rejection.field = format!("metadata.labels[{SERVICE_NAME}]");
            return Err(rejection);
        }
    };
    if root.optional("addressType", Cursor::string)?.as_deref() == Some("FQDN") {
        let reason = "endpoints with names for addresses (addressType: FQDN) are not acted on";
        return Ok(Err(NotActedOn(reason.to_owned())));
    }
    let ports = root.list("ports", port)?;
    Ok(Ok(Spec::EndpointSlice(EndpointSlice {
        service,
        ports: ports.into_iter().flatten().collect(),
        endpoints: root.list("endpoints", |item| endpoint(&item.fields()?))?,
    })))
}

/// `None` for a port without a number, which stands for all ports.
fn port(item: &Cursor<'_>) -> Parsed<Option<SlicePort>> {
    let fields = item.fields()?;
    let Some(port) = fields.optional("port", Cursor::port)? else {
        item.context()
            .unsupported(&format!("{}: all ports", item.path()), item.line());
        return Ok(None);
    };
    let name = fields.optional("name", Cursor::string)?.unwrap_or_default();
    Ok(Some(SlicePort {
        name,
        port,
        transport: transport(&fields)?,
    }))
}

fn endpoint(fields: &Fields<'_>) -> Parsed<SliceEndpoint> {
    let addresses = fields.list("addresses", Cursor::address)?;
    if addresses.is_empty() {
        return Err(fields.reject_at("addresses", "is empty: an endpoint needs an address"));
    }
    let ready = match fields.optional("conditions", Cursor::fields)? {
        Some(conditions) => conditions
            .optional("ready", Cursor::boolean)?
            .unwrap_or(true),
        None => true,
    };
    let pod = match fields.optional("targetRef", Cursor::fields)? {
        Some(target) if target.optional("kind", Cursor::string)?.as_deref() == Some("Pod") => {
            target.optional("name", Cursor::string)?
        }
        _ => None,
    };
    Ok(SliceEndpoint {
        addresses,
        ready,
        pod,
    })
}
