//! `lab-peer race-server` and `race-client`: connections by the hundred thousand, that meet, talk and
//! part in every way in which redirected bytes could overtake others, get lost or get mixed up.
//!
//! Event loops of one thread each. A server has a port per variant; a client opens connections of
//! variants by chance, over every address that it is told. Nothing is retried and nothing forgiven:
//! what does not end as its variant says is a failure, but for streams that are reset on purpose, of
//! which the part that came must be right.

mod client;
mod end;
mod server;
mod tally;
mod variant;
mod wire;

pub use client::{Arguments as ClientArguments, drive};
pub use server::{Arguments as ServerArguments, serve};

/// A variant's name and port, for whoever sets the stage.
#[derive(Clone, Debug)]
pub struct Port {
    /// As reports name it.
    pub name: &'static str,
    /// Where servers listen for it.
    pub port: u16,
}

/// All variants, in their order.
pub fn ports() -> Vec<Port> {
    let variants = variant::all();
    let port = |(index, variant): (usize, &variant::Variant)| Port {
        name: variant.name,
        port: variant::port(index),
    };
    variants.iter().enumerate().map(port).collect()
}
