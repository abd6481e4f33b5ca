//! Istio `PeerAuthentication` (`security/v1beta1/peer_authentication.proto`).

use std::collections::BTreeMap;

use super::{
    ParsedSpec,
    security::{self, Beside},
};
use crate::config::{
    fields::{Cursor, Fields, Parsed},
    model::{Meta, MutualTls, PeerAuthentication, Spec},
};

/// The fields below `spec`.
pub const SPEC_FIELDS: &[&str] = &["selector", "mtls", "portLevelMtls"];

/// Reads and validates a `PeerAuthentication`.
pub fn parse(root: &Fields<'_>, _meta: &Meta) -> ParsedSpec {
    let policy = match security::spec(root, SPEC_FIELDS)? {
        Beside::Spec(spec) => {
            let policy = PeerAuthentication {
                selector: security::selector(&spec)?,
                mode: spec.optional("mtls", mode)?.flatten(),
                ports: spec.optional("portLevelMtls", ports)?.unwrap_or_default(),
            };
            spec.finish();
            if !policy.ports.is_empty() && policy.selector.is_empty() {
                return Err(spec.reject_at(
                    "portLevelMtls",
                    "needs `selector.matchLabels`: a port means a port of the workloads that it selects",
                ));
            }
            policy
        }
        Beside::Nothing => PeerAuthentication {
            selector: [].into(),
            mode: None,
            ports: BTreeMap::new(),
        },
    };
    Ok(Ok(Spec::PeerAuthentication(policy)))
}

fn mode(cursor: &Cursor<'_>) -> Parsed<Option<MutualTls>> {
    let fields = cursor.fields()?;
    let mode = fields.optional("mode", |mode| {
        mode.one_of(&[
            ("UNSET", None),
            ("DISABLE", Some(MutualTls::Disable)),
            ("PERMISSIVE", Some(MutualTls::Permissive)),
            ("STRICT", Some(MutualTls::Strict)),
        ])
    })?;
    fields.finish();
    Ok(mode.flatten())
}

fn ports(cursor: &Cursor<'_>) -> Parsed<BTreeMap<u16, Option<MutualTls>>> {
    let mut ports = BTreeMap::new();
    for (port, value) in cursor.entries()? {
        match port.parse::<u16>() {
            Ok(number) if number > 0 => ports.insert(number, mode(&value)?),
            _ => {
                return Err(value.reject(format!(
                    "{port:?} is no port: write a number from 1 to 65535"
                )));
            }
        };
    }
    Ok(ports)
}
