//! Zerohop's node agent as a library: `mesh-agent` and `meshctl` are thin shells around it.
//!
//! Direction of knowledge: `config` knows no kernel, `mesh` does no I/O, only `kernel` imports aya,
//! only `proxy` and `admin` speak HTTP.

pub mod admin;
pub mod agent;
pub mod cli;
pub mod config;
pub mod dns;
pub mod kernel;
pub mod mesh;
pub mod proxy;
pub mod telemetry;
