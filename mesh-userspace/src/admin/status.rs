//! What the agent says of itself and of its connections: the JSON that `meshctl` reads.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::{
    config::model::{Report, State},
    kernel::owners::SocketMap,
};

/// The agent itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The agent's version.
    pub version: String,
    /// Version of the layout of the pinned maps (`mesh_common`).
    pub layout: u32,
    /// `--node-name`.
    pub node: String,
    /// Process id.
    pub pid: u32,
    /// Since the process started, in milliseconds.
    pub uptime_ms: u64,
    /// Version of the snapshot in force.
    pub snapshot: u64,
    /// Local pods whose connections are seen.
    pub pods: Vec<EnrolledPod>,
    /// Whether bytes go from socket to socket.
    pub acceleration: AccelerationStatus,
    /// Whether pods' queries for the mesh's names are answered.
    pub dns: bool,
    /// The eBPF programs that are attached.
    pub programs: Vec<AttachedProgram>,
    /// Other tools' socket maps: sockets that are in one of them are not accelerated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_socket_maps: Vec<SocketMap>,
    /// The documents of the configuration, counted by what became of them.
    pub config: ConfigCounts,
    /// The newest rejection, or why the source cannot be read; absent while all is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_config_error: Option<String>,
}

/// The answer of `/status`: the agent, and whether it is ready.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusAnswer {
    /// As `/readyz`.
    pub ready: bool,
    /// Why it is not ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_ready_reason: Option<String>,
    /// The agent itself.
    #[serde(flatten)]
    pub status: Status,
}

/// A local pod.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnrolledPod {
    /// `NAMESPACE/POD`.
    pub name: String,
    /// Path of its network namespace, or of its cgroup where it is in the host's namespace.
    pub netns: String,
    /// The agent's listener in that namespace; absent until it is bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener: Option<SocketAddr>,
    /// The agent's first listener for names there; absent where names are the pod's own resolver's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<SocketAddr>,
}

/// Whether bytes go from socket to socket, and why.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccelerationStatus {
    /// On or off.
    pub state: AccelerationState,
    /// One line: who or what decided.
    pub reason: String,
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccelerationState {
    /// Pairs of this node are redirected.
    On,
    /// Plain TCP.
    Off,
}

/// An eBPF program.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AttachedProgram {
    /// Its name in the object.
    pub name: String,
    /// Where it is attached: `cgroup/connect4`.
    pub hook: String,
    /// The kernel's id, as `bpftool prog` shows it.
    pub id: u32,
}

/// The documents of the configuration, counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigCounts {
    /// In force.
    pub applied: usize,
    /// Refused.
    pub rejected: usize,
    /// Of kinds that Zerohop does not act on.
    pub ignored: usize,
    /// Warnings on all of them.
    pub warnings: usize,
    /// Fields that are known and not acted on.
    pub unsupported: usize,
}

impl ConfigCounts {
    /// Counts the reports.
    pub fn of(reports: &[Report]) -> Self {
        let mut counts = Self::default();
        for report in reports {
            match report.state {
                State::Applied => counts.applied += 1,
                State::Rejected => counts.rejected += 1,
                State::Ignored => counts.ignored += 1,
            }
            counts.warnings += report.warnings.len();
            counts.unsupported += report.unsupported.len();
        }
        counts
    }
}

/// An open connection, as its client's side sees it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionRow {
    /// The client, `NAMESPACE/POD`.
    pub source: String,
    /// The server, `NAMESPACE/POD`, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// Host of the service that was dialled, where it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// How it goes.
    pub way: ConnectionWay,
    /// Its bytes go from socket to socket.
    pub accelerated: bool,
    /// Why it is not accelerated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The client's end.
    pub local: SocketAddr,
    /// The other end, as the kernel has it.
    pub remote: SocketAddr,
    /// From the client, redirected ones included.
    pub bytes_sent: u64,
    /// To the client, redirected ones included.
    pub bytes_received: u64,
    /// Of both directions, those that went from socket to socket.
    pub bytes_redirected: u64,
    /// Since it was established, in milliseconds.
    pub age_ms: u64,
    /// Smoothed round trip time, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_us: Option<u64>,
    /// The smallest of the last minutes, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_rtt_us: Option<u64>,
    /// Segments sent again, by the ends that are seen.
    #[serde(default)]
    pub retransmits: u64,
}

/// How an open connection goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConnectionWay {
    /// The kernel picked the endpoint.
    Direct,
    /// By the agent's listener.
    Agent,
    /// Not a mesh destination.
    Pass,
}
