//! The agent's HTTP face: health, metrics, dump, explain, and what `meshctl` asks for.
//!
//! It knows the mesh's snapshot and nothing of how it is carried out: the rest of the agent is behind
//! [`AdminState`].

mod answer;
mod events;
mod page;
mod query;
mod router;
mod server;
mod status;

#[cfg(test)]
mod tests;

use std::{io, sync::Arc, time::Duration};

pub use events::{ClosedConnection, EventKind, EventPage, EventRow};
pub use server::{AdminError, Server};
pub use status::{
    AccelerationState, AccelerationStatus, AttachedProgram, ConfigCounts, ConnectionRow,
    ConnectionWay, EnrolledPod, Status, StatusAnswer,
};

use crate::{config::model::Report, mesh::model::Snapshot};

/// What the server serves. Its functions may block for as long as a read of a BPF map takes: they are
/// called on a thread for blocking work.
pub trait AdminState: Send + Sync + 'static {
    /// Whether programs are attached, every local pod is enrolled and the configuration is in effect;
    /// the reason, in a sentence, where not.
    fn ready(&self) -> Result<(), String>;
    /// What is in force.
    fn snapshot(&self) -> Arc<Snapshot>;
    /// What became of each document of the configuration.
    fn reports(&self) -> Arc<Vec<Report>>;
    /// The agent itself.
    fn status(&self) -> Status;
    /// All metrics, as Prometheus text or, where `openmetrics`, as `OpenMetrics` text.
    fn metrics(&self, openmetrics: bool) -> String;
    /// The open connections that the agent or the kernel's maps know of.
    fn connections(&self) -> io::Result<Vec<ConnectionRow>>;
    /// What happened to connections after event number `after`. Waits for the first for as long as `wait`,
    /// and lets the programs tell of every connection for a while if that is not zero.
    fn events(&self, after: u64, wait: Duration) -> EventPage;
    /// The kill switch; the reason, in a sentence, where it could not be thrown.
    fn set_acceleration(&self, on: bool) -> Result<(), String>;
}
