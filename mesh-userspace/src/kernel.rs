//! The kernel's side: programs, maps, namespaces. The only module that knows aya.
//!
//! | file | what it is |
//! |---|---|
//! | `node` | all of it as the agent holds it |
//! | `loader` | the object, pins, attaching, adopting |
//! | `access`, `access_maps` | who may connect: compiled, and written |
//! | `announce` | the agent's own connections, told to guarded pods |
//! | `cut`, `sock_diag` | connections that a changed policy forbids, closed |
//! | `datagrams` | UDP sockets that talk to services; their end where the endpoint has gone |
//! | `dead` | connections to endpoints that are gone, closed |
//! | `served` | ports of pods that were closed |
//! | `forget` | what the programs count of services and endpoints, forgotten with them |
//! | `compile`, `alias`, `ids` | a snapshot as map contents: pure |
//! | `tables` | map contents written by difference |
//! | `connections` | live connections, read |
//! | `node/counts`, `events` | totals and single events, read |
//! | `maps` | the pinned maps for people, no agent needed |
//! | `selftest`, `btf` | what this kernel does, and where it keeps its fields |
//! | `verify` | every program loaded for its own sake, and what the verifier says |
//! | `listeners` | ports that were listened on before the programs were there |
//! | `owners` | other tools' programs on the same hooks and sockets |
//! | `netns`, `cgroup`, `sys`, `descriptors` | namespaces, mounts, system calls |

pub mod access;
mod access_maps;
pub mod alias;
mod announce;
pub mod btf;
pub mod caveats;
pub mod cgroup;
pub mod compile;
pub mod connections;
mod cut;
pub mod datagrams;
mod dead;
pub mod descriptors;
pub mod events;
pub mod executables;
mod forget;
pub mod ids;
pub mod listeners;
pub mod loader;
pub mod maps;
pub mod netns;
pub mod node;
pub mod owners;
pub mod selftest;
mod served;
mod sock_diag;
mod sys;
pub mod tables;
pub mod verify;

/// What the programs' times count from (`CLOCK_MONOTONIC`) until now.
pub fn since_boot() -> std::time::Duration {
    std::time::Duration::from_nanos(sys::monotonic_ns())
}
