//! The kernel's own count of who spoke to whom, by which way, read through `meshctl maps`.

use anyhow::{Context, Result};
use serde_json::Value;

/// One line of the kernel's count: connections that have been opened, and the bytes of those that
/// have closed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// The client, `namespace/pod`; `-` or empty where it is unknown.
    pub source: String,
    /// The server, `namespace/pod`.
    pub destination: String,
    /// The service that was dialled.
    pub service: String,
    /// `direct`, `agent`, `pass`.
    pub way: String,
    /// Connections opened.
    pub opened: u64,
    /// Connections closed.
    pub closed: u64,
    /// Payload bytes from the client.
    pub sent: u64,
    /// Payload bytes to the client.
    pub received: u64,
    /// Of both, those that went from socket to socket.
    pub redirected: u64,
}

/// Reads the answer of `meshctl maps dump traffic -o json`.
pub fn parse(dump: &Value) -> Result<Vec<Traffic>> {
    let rows = dump.as_array().context("the traffic map is no list")?;
    rows.iter().map(parse_row).collect()
}

/// Adds those lines up that `wanted` takes.
pub fn total(rows: &[Traffic], wanted: impl Fn(&Traffic) -> bool) -> Traffic {
    let mut total = Traffic::default();
    for row in rows.iter().filter(|row| wanted(row)) {
        total.opened += row.opened;
        total.closed += row.closed;
        total.sent += row.sent;
        total.received += row.received;
        total.redirected += row.redirected;
    }
    total
}

fn parse_row(row: &Value) -> Result<Traffic> {
    let what = || format!("the traffic map has the entry {row}");
    let (source, destination) = row["key"]
        .as_str()
        .and_then(|key| key.split_once('>'))
        .with_context(what)?;
    let value = &row["value"];
    let number = |key: &str| value[key].as_u64().with_context(what);
    let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
    Ok(Traffic {
        source: source.to_owned(),
        destination: destination.to_owned(),
        service: text("service"),
        way: text("way"),
        opened: number("opened")?,
        closed: number("closed")?,
        sent: number("sent")?,
        received: number("received")?,
        redirected: number("redirectedSent")? + number("redirectedReceived")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_dump_is_read_and_added_up() {
        let entry = |key: &str, way: &str| {
            json!({"key": key, "value": {
                "service": "s.default.svc.cluster.local", "way": way, "opened": 2, "closed": 1,
                "sent": 10, "received": 20, "redirectedSent": 3, "redirectedReceived": 4,
            }})
        };
        let dump = json!([
            entry("d/a>d/b", "direct"),
            entry("d/a>d/c", "direct"),
            entry("d/a>", "agent")
        ]);
        let rows = parse(&dump).expect("well-formed");
        assert_eq!(rows[0].destination, "d/b");
        let direct = total(&rows, |row| row.way == "direct");
        assert_eq!((direct.opened, direct.sent, direct.redirected), (4, 20, 14));
        assert!(parse(&json!([{"key": "x", "value": {}}])).is_err());
    }
}
