//! The lab: a node and its pods on one machine, out of network namespaces and cgroups.
//!
//! The scenarios, the demo and the benchmarks all run in it. A [`Lab`] is one node: a namespace
//! with a bridge, a cgroup v2 folder, and a folder of manifests. A [`Pod`] is a namespace with a
//! veth to that bridge, a cgroup of its own and an `/etc/hosts` that knows the lab's services. An
//! [`Agent`] is a `mesh-agent` that runs on that node. Whatever way a lab ends (dropped, Ctrl-C,
//! SIGTERM) nothing of it stays; what a killed one left, the next [`Lab::new`] removes.

pub mod agent;
pub mod binaries;
pub mod bookinfo;
pub mod crowd;
pub mod demo;
pub mod duel;
pub mod exec;
pub mod foreign;
pub mod host;
pub mod http;
pub mod load;
pub mod manifests;
pub mod metrics;
mod net;
pub mod node;
pub mod peer;
pub mod pod;
pub mod poll;
pub mod process;
pub mod reaper;
pub mod rules;
pub mod soak;
pub mod stage;
mod sys;
pub mod traffic;

pub use agent::{Agent, AgentOptions};
pub use load::Load;
pub use manifests::{Families, Manifests, Service, ServicePort, ServiceSpec};
pub use metrics::Metrics;
pub use node::Lab;
pub use pod::{Pod, PodSpec};
pub use poll::{eventually, eventually_some};
pub use process::{Output, Process};
pub use stage::Stage;
pub use traffic::Traffic;
