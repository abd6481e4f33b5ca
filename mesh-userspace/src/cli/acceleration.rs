//! `meshctl acceleration`: the kill switch.

use serde_json::json;

use super::{
    args::AccelerationCommand,
    client::Client,
    error::CliError,
    exit::ExitStatus,
    output::Output,
    table::{Cell, Table, Tone},
};
use crate::admin::{AccelerationState, AccelerationStatus};

/// Throws it, or asks how it stands.
pub fn run(
    client: &Client,
    asked: AccelerationCommand,
    out: Output,
) -> Result<ExitStatus, CliError> {
    let value = match asked {
        AccelerationCommand::On => client.post("/acceleration", &json!({"state": "on"}))?,
        AccelerationCommand::Off => client.post("/acceleration", &json!({"state": "off"}))?,
        AccelerationCommand::Status => client
            .get("/status")?
            .get_mut("acceleration")
            .map(serde_json::Value::take)
            .unwrap_or_default(),
    };
    out.write(&value, |colour| {
        let AccelerationStatus { state, reason } = serde_json::from_value(value.clone())?;
        let mut table = Table::new(["ACCELERATION", "WHY"]);
        table.row([state_cell(state), Cell::new(reason)]);
        Ok::<_, CliError>(table.render(colour, ""))
    })?;
    Ok(ExitStatus::Ok)
}

/// On or off, in its colour.
pub fn state_cell(state: AccelerationState) -> Cell {
    match state {
        AccelerationState::On => Cell::new("on").tone(Tone::Good),
        AccelerationState::Off => Cell::new("off").tone(Tone::Warning),
    }
}
