//! Kubernetes `v1` `Pod`: who a workload is and where it runs.

use std::{collections::BTreeMap, net::IpAddr};

use super::{ParsedSpec, annotations::annotations};
use crate::config::{
    fields::{Cursor, Fields, Parsed},
    model::{Meta, Pod, Spec},
};

/// Reads the few fields that concern the mesh.
pub fn parse(root: &Fields<'_>, _meta: &Meta) -> ParsedSpec {
    let found = annotations(root)?;
    let spec = root.optional("spec", Cursor::fields)?;
    let status = root.optional("status", Cursor::fields)?;
    let text = |name| match &spec {
        Some(spec) => spec.optional(name, Cursor::string),
        None => Ok(None),
    };
    let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
    let service_account = match filled(text("serviceAccountName")?) {
        Some(name) => Some(name),
        // The field's former name, still written by the API for old clients.
        None => filled(text("serviceAccount")?),
    };
    Ok(Ok(Spec::Pod(Pod {
        node_name: filled(text("nodeName")?),
        service_account: service_account.unwrap_or_else(|| "default".to_owned()),
        addresses: status.as_ref().map_or(Ok(Vec::new()), addresses)?,
        ready: status.as_ref().map_or(Ok(true), ready)?,
        named_ports: spec.as_ref().map_or(Ok(BTreeMap::new()), named_ports)?,
        place: found.place,
        acceleration: found.defaults.acceleration,
        acceleration_exclude_ports: found.defaults.acceleration_exclude_ports,
        failure_policy: found.defaults.failure_policy,
    })))
}

fn addresses(status: &Fields<'_>) -> Parsed<Vec<IpAddr>> {
    let all = status.list("podIPs", |item| {
        item.fields()?.required("ip", Cursor::address)
    })?;
    if !all.is_empty() {
        return Ok(all);
    }
    let own = status.optional("podIP", |cursor| match cursor.string()?.as_str() {
        // A pod that has not been given one yet.
        "" => Ok(None),
        _ => cursor.address().map(Some),
    })?;
    Ok(own.flatten().into_iter().collect())
}

/// Only Ready=False says no: in a folder there is as a rule no status at all.
fn ready(status: &Fields<'_>) -> Parsed<bool> {
    let conditions = status.list("conditions", |item| {
        let condition = item.fields()?;
        let kind = condition.optional("type", Cursor::string)?;
        let status = condition.optional("status", Cursor::string)?;
        Ok(kind.as_deref() == Some("Ready") && status.as_deref() == Some("False"))
    })?;
    Ok(!conditions.contains(&true))
}

fn named_ports(spec: &Fields<'_>) -> Parsed<BTreeMap<String, u16>> {
    let mut named = BTreeMap::new();
    // Init containers too: one that is always restarted is a server beside the others.
    for list in ["initContainers", "containers"] {
        let ports = spec.list(list, |container| {
            container.fields()?.list("ports", |item| {
                let port = item.fields()?;
                let name = port.optional("name", Cursor::string)?;
                let number = port.required("containerPort", Cursor::port)?;
                Ok(name
                    .filter(|name| !name.is_empty())
                    .map(|name| (name, number)))
            })
        })?;
        named.extend(ports.into_iter().flatten().flatten());
    }
    Ok(named)
}
