//! What the agent says of single connections: the JSON that `meshctl events` reads.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// Something that happened to a connection. What does not apply, or is not known, is absent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventRow {
    /// When, RFC 3339.
    pub time: String,
    /// What.
    pub event: EventKind,
    /// The client, `NAMESPACE/POD`; `unknown` where it is not enrolled.
    pub source: String,
    /// The server, `NAMESPACE/POD`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// Host of the service that was dialled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// `direct`, `agent` or `pass`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub way: Option<String>,
    /// Why it ended, failed or was refused: `refused`, `reset`; of a denial where (`connect`, `syn`, `agent`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who refused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// The client's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<IpAddr>,
    /// Its port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_port: Option<u16>,
    /// The server's end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<SocketAddr>,
    /// Of a closed one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed: Option<ClosedConnection>,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    /// A connection was established.
    Opened,
    /// One was closed.
    Closed,
    /// A connect failed.
    Failed,
    /// A policy refused one.
    Denied,
}

/// What a connection had carried when it closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClosedConnection {
    /// From the client, redirected ones included.
    pub bytes_sent: u64,
    /// To the client, redirected ones included.
    pub bytes_received: u64,
    /// Of both, those that went from socket to socket.
    pub bytes_redirected: u64,
    /// Since it was established, in microseconds.
    pub duration_us: u64,
    /// Smoothed round trip, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_us: Option<u64>,
    /// The smallest one, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_rtt_us: Option<u64>,
    /// Segments sent again.
    pub retransmits: u64,
}

/// The answer of `/events`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventPage {
    /// Oldest first.
    pub events: Vec<EventRow>,
    /// To ask for what comes after them.
    pub next: u64,
    /// Events after the one that was named which the agent does not hold any more.
    pub lost: u64,
}
