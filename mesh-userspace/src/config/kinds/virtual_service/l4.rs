//! `spec.tcp[]`: one TCP route.

use super::leave_out;
use crate::config::{
    fields::{Cursor, Parsed},
    kinds::istio,
    model::{L4Match, RouteDestination, TcpRoute},
};

/// Reads a route; `None` where it can't be served without something unsupported.
pub fn tcp_route(cursor: &Cursor<'_>) -> Parsed<Option<TcpRoute>> {
    let fields = cursor.fields()?;
    let matches = fields.list("match", l4_match)?;
    let list = fields
        .get("route")
        .ok_or_else(|| fields.reject_at("route", "is missing: a TCP route needs destinations"))?;
    let destinations = fields.list("route", destination)?;
    if destinations.is_empty() {
        return Err(list.reject("is empty: a TCP route needs destinations"));
    }
    let weights: Vec<u32> = destinations.iter().map(|route| route.weight).collect();
    istio::weights(&list, &weights)?;
    fields.finish();
    let conditional = !matches.is_empty();
    let matches: Vec<_> = matches.into_iter().flatten().collect();
    if conditional && matches.is_empty() {
        leave_out(cursor, "none of its matches is supported");
        return Ok(None);
    }
    Ok(Some(TcpRoute {
        location: cursor.location(),
        matches,
        destinations,
    }))
}

fn destination(item: &Cursor<'_>) -> Parsed<RouteDestination> {
    let fields = item.fields()?;
    let destination = RouteDestination {
        destination: fields.required("destination", istio::destination)?,
        weight: fields.optional("weight", Cursor::unsigned)?.unwrap_or(0),
    };
    fields.finish_with(|name| {
        matches!(name, "host" | "subset" | "port")
            .then(|| "indent it below `destination`".to_owned())
    });
    Ok(destination)
}

/// `None` where it has a condition that is not supported.
fn l4_match(item: &Cursor<'_>) -> Parsed<Option<L4Match>> {
    let fields = item.fields()?;
    let found = L4Match {
        port: fields.optional("port", Cursor::port)?,
        source_labels: fields
            .optional("sourceLabels", Cursor::string_map)?
            .unwrap_or_default(),
        source_namespace: fields.optional("sourceNamespace", Cursor::filled_string)?,
        gateways: istio::gateways(&fields)?,
    };
    let unsupported = fields.any_unsupported(&["destinationSubnets", "sourceSubnet"]);
    fields.finish();
    Ok((!unsupported).then_some(found))
}
