//! `meshctl connections`: what is open now.

use super::{
    client::Client,
    error::CliError,
    exit::ExitStatus,
    output::Output,
    table::{Cell, Table, Tone},
    units,
};
use crate::admin::{ConnectionRow, ConnectionWay};

/// Prints the open connections.
pub fn run(client: &Client, out: Output) -> Result<ExitStatus, CliError> {
    let value = client.get("/connections")?;
    out.write(&value, |colour| {
        let rows: Vec<ConnectionRow> = serde_json::from_value(value.clone())?;
        Ok::<_, CliError>(table(rows).render(colour, "no open connections"))
    })?;
    Ok(ExitStatus::Ok)
}

fn table(rows: Vec<ConnectionRow>) -> Table {
    let mut table = Table::new([
        "SOURCE",
        "DESTINATION",
        "SERVICE",
        "WAY",
        "ACCELERATED",
        "SENT",
        "RECEIVED",
        "REDIRECTED",
        "RTT",
        "MIN RTT",
        "RETRANSMITS",
        "AGE",
        "LOCAL",
        "REMOTE",
    ]);
    for row in rows {
        let accelerated = match (row.accelerated, row.reason) {
            (true, _) => Cell::new("yes").tone(Tone::Good),
            (false, Some(why)) => Cell::new(format!("no: {why}")),
            (false, None) => Cell::new("no"),
        };
        table.row([
            row.source.into(),
            row.destination.unwrap_or_default().into(),
            row.service.unwrap_or_default().into(),
            way(row.way).into(),
            accelerated,
            Cell::number(units::bytes(row.bytes_sent)),
            Cell::number(units::bytes(row.bytes_received)),
            Cell::number(units::bytes(row.bytes_redirected)),
            Cell::number(row.rtt_us.map(units::micros).unwrap_or_default()),
            Cell::number(row.min_rtt_us.map(units::micros).unwrap_or_default()),
            Cell::number(row.retransmits.to_string()),
            Cell::number(units::millis(row.age_ms)),
            row.local.to_string().into(),
            row.remote.to_string().into(),
        ]);
    }
    table
}

fn way(way: ConnectionWay) -> &'static str {
    match way {
        ConnectionWay::Direct => "direct",
        ConnectionWay::Agent => "agent",
        ConnectionWay::Pass => "pass",
    }
}
