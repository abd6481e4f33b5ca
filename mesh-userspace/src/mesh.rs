//! Objects to one immutable, numbered snapshot, and every question that is asked of it.
//!
//! No I/O at all: the proxy, `explain`, `analyze` and the tests call the same functions.

pub mod access;
pub mod analyze;
pub mod dns;
pub mod dump;
pub mod explain;
pub mod model;
pub mod names;
pub mod protocol;
pub mod resolve;
pub mod retry;
pub mod route;

#[cfg(test)]
pub(crate) mod testing;
