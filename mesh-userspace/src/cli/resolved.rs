//! `meshctl services`, `workloads`, `routes`: what the mesh resolved.

use super::{
    client::Client,
    error::CliError,
    exit::ExitStatus,
    output::Output,
    table::{Cell, Table, Tone},
    units,
};
use crate::mesh::dump::{
    PortView, RouteDestinationView, RouteEntryView, RouteView, ServiceView, WorkloadView,
};

/// Endpoints that a row shows before it counts the rest.
const SHOWN: usize = 3;

/// Prints the services, a row per port.
pub fn services(client: &Client, out: Output) -> Result<ExitStatus, CliError> {
    let value = client.get("/services")?;
    out.write(&value, |colour| {
        let services: Vec<ServiceView> = serde_json::from_value(value.clone())?;
        let mut table = Table::new([
            "SERVICE",
            "ADDRESS",
            "PORT",
            "PROTOCOL",
            "WAY",
            "READY",
            "ENDPOINTS",
            "WHY",
        ]);
        for service in &services {
            for port in &service.ports {
                table.row(service_row(service, port));
            }
        }
        Ok::<_, CliError>(table.render(colour, "no services"))
    })?;
    Ok(ExitStatus::Ok)
}

fn service_row(service: &ServiceView, port: &PortView) -> [Cell; 8] {
    let addresses = match service.addresses.as_slice() {
        [] => "none".to_owned(),
        some => some.join(", "),
    };
    let endpoints: Vec<_> = port.endpoints.iter().map(|e| e.address.clone()).collect();
    let ready = port
        .endpoints
        .iter()
        .filter(|endpoint| endpoint.ready)
        .count();
    let tone = if ready == 0 { Tone::Bad } else { Tone::Plain };
    [
        service.host.as_str().into(),
        addresses.into(),
        Cell::number(port.port),
        port.protocol.as_str().into(),
        port.way.as_str().into(),
        Cell::number(format!("{ready}/{}", endpoints.len())).tone(tone),
        units::some(&endpoints, SHOWN).into(),
        Cell::new(&port.way_reason).tone(Tone::Faint),
    ]
}

/// Prints the pods.
pub fn workloads(client: &Client, out: Output) -> Result<ExitStatus, CliError> {
    let value = client.get("/workloads")?;
    out.write(&value, |colour| {
        let workloads: Vec<WorkloadView> = serde_json::from_value(value.clone())?;
        let mut table = Table::new([
            "POD",
            "ADDRESS",
            "READY",
            "SERVICE",
            "VERSION",
            "ACCELERATION",
            "WITHOUT AGENT",
            "PRINCIPAL",
            "PLACE",
        ]);
        for pod in workloads {
            table.row(workload_row(pod));
        }
        Ok::<_, CliError>(table.render(colour, "no pods"))
    })?;
    Ok(ExitStatus::Ok)
}

fn workload_row(pod: WorkloadView) -> [Cell; 9] {
    let ready = if pod.ready {
        Cell::new("yes")
    } else {
        Cell::new("no").tone(Tone::Bad)
    };
    let place = match (pod.local, pod.place) {
        (true, Some(place)) => Cell::new(place),
        (true, None) => Cell::new("local, place not given").tone(Tone::Warning),
        (false, _) => Cell::new("another node").tone(Tone::Faint),
    };
    let acceleration = match pod.acceleration_exclude_ports.as_slice() {
        [] => pod.acceleration,
        ports => {
            let ports: Vec<_> = ports.iter().map(ToString::to_string).collect();
            format!("{} (not on {})", pod.acceleration, ports.join(", "))
        }
    };
    [
        format!("{}/{}", pod.namespace, pod.name).into(),
        pod.addresses.join(", ").into(),
        ready,
        pod.canonical_service.into(),
        pod.canonical_revision.into(),
        acceleration.into(),
        pod.failure_policy.into(),
        pod.principal.into(),
        place,
    ]
}

/// Prints the rules, a row per route and destination.
pub fn routes(client: &Client, out: Output) -> Result<ExitStatus, CliError> {
    let value = client.get("/routes")?;
    out.write(&value, |colour| {
        let rules: Vec<RouteView> = serde_json::from_value(value.clone())?;
        let mut table = Table::new([
            "HOST",
            "RULE",
            "CLIENTS",
            "ROUTE",
            "MATCHES",
            "WEIGHT",
            "DESTINATION",
            "READY",
            "AND",
        ]);
        for rule in &rules {
            add_rule(&mut table, rule);
        }
        Ok::<_, CliError>(table.render(colour, "no rules: services get what is sent to them"))
    })?;
    Ok(ExitStatus::Ok)
}

/// What a row shares with the one above it is left out.
fn add_rule(table: &mut Table, rule: &RouteView) {
    let http = rule.http.iter().map(|route| ("http", route));
    let tcp = rule.tcp.iter().map(|route| ("tcp", route));
    let mut whose = [
        Cell::new(&rule.host),
        Cell::new(&rule.virtual_service),
        Cell::new(units::some(&rule.clients, SHOWN)),
    ];
    for (layer, route) in http.chain(tcp) {
        let mut which = [route_name(layer, route).into(), matches(route).into()];
        let mut and = [Cell::new(route.policies.join("; "))];
        if route.destinations.is_empty() {
            let what = ["".into(), route.action.as_str().into(), "".into()];
            table.row(
                take(&mut whose)
                    .into_iter()
                    .chain(which)
                    .chain(what)
                    .chain(and),
            );
            continue;
        }
        for destination in &route.destinations {
            let row = take(&mut whose).into_iter().chain(take(&mut which));
            table.row(
                row.chain(destination_cells(destination))
                    .chain(take(&mut and)),
            );
        }
    }
}

/// The cells, leaving empty ones behind.
fn take<const N: usize>(cells: &mut [Cell; N]) -> [Cell; N] {
    std::mem::replace(cells, std::array::from_fn(|_| Cell::new("")))
}

fn route_name(layer: &str, route: &RouteEntryView) -> String {
    match &route.name {
        Some(name) => format!("{layer} {} ({name})", route.index),
        None => format!("{layer} {}", route.index),
    }
}

fn matches(route: &RouteEntryView) -> String {
    let matches = match route.matches.as_slice() {
        [] => "all".to_owned(),
        some => some.join(" or "),
    };
    match route.dialled_port {
        Some(port) => format!("{matches}, on port {port}"),
        None => matches,
    }
}

fn destination_cells(destination: &RouteDestinationView) -> [Cell; 3] {
    let subset = destination
        .subset
        .as_deref()
        .map(|subset| format!(" {subset}"));
    let name = format!(
        "{}:{}{}",
        destination.host,
        destination.port,
        subset.unwrap_or_default()
    );
    let ready = match &destination.reason {
        Some(reason) => Cell::new(format!("none: {reason}")).tone(Tone::Bad),
        None if destination.endpoints == 0 => Cell::new("0").tone(Tone::Bad),
        None => Cell::new(destination.endpoints.to_string()),
    };
    [Cell::number(destination.weight), name.into(), ready]
}
