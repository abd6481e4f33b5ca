//! Kubernetes `v1` `Service`: names and ports in front of endpoints.

use std::{collections::HashSet, net::IpAddr, time::Duration};

use super::ParsedSpec;
use crate::config::{
    fields::{Cursor, Fields, Parsed},
    model::{Meta, Service, ServicePort, Spec, TargetPort, Transport},
};

/// `ClientIPConfig.timeoutSeconds` where nothing is written: three hours.
const DEFAULT_AFFINITY_SECONDS: i64 = 10_800;
/// The most that the API takes: a day.
const MAX_AFFINITY_SECONDS: i64 = 86_400;

/// Reads the few fields that concern the mesh.
pub fn parse(root: &Fields<'_>, _meta: &Meta) -> ParsedSpec {
    let spec = root.required("spec", Cursor::fields)?;
    let kind = spec.optional("type", Cursor::string)?;
    let external_name = kind.as_deref() == Some("ExternalName");
    let (cluster_ips, headless) = cluster_ips(&spec)?;
    Ok(Ok(Spec::Service(Service {
        cluster_ips: if external_name {
            Vec::new()
        } else {
            cluster_ips
        },
        headless,
        selector: spec
            .optional("selector", Cursor::string_map)?
            .unwrap_or_default(),
        ports: ports(&spec)?,
        session_affinity: session_affinity(&spec)?,
    })))
}

fn cluster_ips(spec: &Fields<'_>) -> Parsed<(Vec<IpAddr>, bool)> {
    let mut written = spec.list("clusterIPs", |item| Ok(item.clone()))?;
    if written.is_empty() {
        written.extend(spec.get("clusterIP"));
    }
    let mut addresses = Vec::new();
    for cursor in written {
        match cursor.string()?.as_str() {
            "None" => return Ok((Vec::new(), true)),
            "" => {}
            _ => addresses.push(cursor.address()?),
        }
    }
    Ok((addresses, false))
}

/// `sessionAffinity` and `sessionAffinityConfig.clientIP.timeoutSeconds`, within the API's own bounds.
fn session_affinity(spec: &Fields<'_>) -> Parsed<Option<Duration>> {
    let by_client = spec.optional("sessionAffinity", |cursor| {
        cursor.one_of(&[("None", false), ("", false), ("ClientIP", true)])
    })?;
    let client_ip = spec
        .optional("sessionAffinityConfig", Cursor::fields)?
        .map(|config| config.optional("clientIP", Cursor::fields))
        .transpose()?
        .flatten();
    let seconds = client_ip
        .map(|client_ip| {
            client_ip.optional("timeoutSeconds", |cursor| {
                cursor.integer(1..=MAX_AFFINITY_SECONDS)
            })
        })
        .transpose()?
        .flatten()
        .unwrap_or(DEFAULT_AFFINITY_SECONDS);
    let timeout = Duration::from_secs(seconds.unsigned_abs());
    Ok(by_client.unwrap_or(false).then_some(timeout))
}

fn ports(spec: &Fields<'_>) -> Parsed<Vec<ServicePort>> {
    let items = spec.list("ports", |item| Ok(item.clone()))?;
    let several = items.len() > 1;
    let mut names = HashSet::new();
    let mut numbers = HashSet::new();
    let mut ports = Vec::new();
    for item in &items {
        let port = port(&item.fields()?)?;
        if several && port.name.is_empty() {
            return Err(item.reject("has no name: with several ports each needs one"));
        }
        if !names.insert(port.name.clone()) {
            return Err(item.reject(format!("is the second port named {:?}", port.name)));
        }
        if !numbers.insert((port.port, port.transport as u8)) {
            return Err(item.reject(format!("is the second port with number {}", port.port)));
        }
        ports.push(port);
    }
    Ok(ports)
}

fn port(fields: &Fields<'_>) -> Parsed<ServicePort> {
    let port = fields.required("port", Cursor::port)?;
    Ok(ServicePort {
        name: fields.optional("name", Cursor::string)?.unwrap_or_default(),
        port,
        transport: transport(fields)?,
        target: fields
            .optional("targetPort", target)?
            .unwrap_or(TargetPort::Number(port)),
        app_protocol: fields.optional("appProtocol", Cursor::string)?,
    })
}

/// The `protocol` of a port of a Service or an `EndpointSlice`.
pub fn transport(fields: &Fields<'_>) -> Parsed<Transport> {
    let transport = fields.optional("protocol", |cursor| {
        cursor.one_of(&[
            ("TCP", Transport::Tcp),
            ("UDP", Transport::Udp),
            ("SCTP", Transport::Sctp),
        ])
    })?;
    Ok(transport.unwrap_or(Transport::Tcp))
}

/// A number, or the name of a container port.
fn target(cursor: &Cursor<'_>) -> Parsed<TargetPort> {
    if let Ok(name) = cursor.string() {
        return if name.is_empty() || name.bytes().all(|b| b.is_ascii_digit()) {
            Err(cursor.reject("is a text without a letter: remove the quotes from a number"))
        } else {
            Ok(TargetPort::Name(name))
        };
    }
    // 0 is the default written out.
    if cursor.integer(0..=65535)? == 0 {
        return Err(cursor.reject("must be a port from 1 to 65535, or the name of one"));
    }
    cursor.port().map(TargetPort::Number)
}
