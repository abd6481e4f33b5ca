//! `meshctl events`: connections as they are opened, closed, fail and are refused.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
};

use serde_json::{Value, json};

use super::{
    client::Client, error::CliError, exit::ExitStatus, output::Output, table::clean, units,
};
use crate::admin::{EventKind, EventPage, EventRow};

/// How long one question waits for an answer, in milliseconds.
const WAIT_MS: u64 = 2000;

/// Prints what the agent holds; where it is to `follow`, then what comes, a line each.
pub fn run(client: &Client, follow: bool, out: Output) -> Result<ExitStatus, CliError> {
    if !follow {
        let mut value = client.post("/events", &json!({}))?;
        let events = value.get_mut("events").map(Value::take).unwrap_or_default();
        out.write(&events, |_| {
            let rows: Vec<EventRow> = serde_json::from_value(events.clone())?;
            let lines: String = rows.iter().map(|row| line(row) + "\n").collect();
            Ok::<_, CliError>(lines)
        })?;
        return Ok(ExitStatus::Ok);
    }
    let mut after = 0;
    loop {
        let asked = json!({"after": after, "waitMs": WAIT_MS});
        let page: EventPage = serde_json::from_value(client.post("/events", &asked)?)?;
        if page.lost > 0 {
            writeln!(io::stderr(), "meshctl: {} events came too fast", page.lost)?;
        }
        let mut to = io::stdout().lock();
        for row in &page.events {
            if out.is_table() {
                writeln!(to, "{}", line(row))?;
            } else {
                writeln!(to, "{}", serde_json::to_string(row)?)?;
            }
        }
        to.flush()?;
        after = page.next;
    }
}

/// One event for people.
fn line(row: &EventRow) -> String {
    let event = match row.event {
        EventKind::Opened => "opened",
        EventKind::Closed => "closed",
        EventKind::Failed => "failed",
        EventKind::Denied => "denied",
    };
    let mut line = format!("{} {event} {}", row.time, row.source);
    let part = |line: &mut String, before: &str, text: &dyn std::fmt::Display| {
        // Writing to a String can't fail.
        let _ = write!(line, "{before}{text}");
    };
    if let Some(client) = row.client {
        part(&mut line, " ", &client);
    }
    if let Some(port) = row.client_port {
        part(&mut line, ":", &port);
    }
    part(
        &mut line,
        " > ",
        &row.destination.as_deref().unwrap_or("unknown"),
    );
    if let Some(server) = row.server {
        part(&mut line, " ", &server);
    }
    for (before, text) in [
        (" ", &row.service),
        (" ", &row.way),
        (" ", &row.reason),
        (" by ", &row.policy),
    ] {
        if let Some(text) = text {
            part(&mut line, before, text);
        }
    }
    if let Some(closed) = &row.closed {
        part(&mut line, " sent ", &units::bytes(closed.bytes_sent));
        part(
            &mut line,
            " received ",
            &units::bytes(closed.bytes_received),
        );
        part(
            &mut line,
            " redirected ",
            &units::bytes(closed.bytes_redirected),
        );
        part(&mut line, " in ", &units::micros(closed.duration_us));
        if let Some(rtt) = closed.rtt_us {
            part(&mut line, " rtt ", &units::micros(rtt));
        }
        if closed.retransmits > 0 {
            part(&mut line, " retransmits ", &closed.retransmits);
        }
    }
    clean(&line)
}
