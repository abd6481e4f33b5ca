//! Names: a resolver of a pod's own, and clients that ask in every way that clients do.

mod client;
mod server;
mod wire;

pub(super) use self::{
    client::{Arguments as ResolveArguments, run as resolve},
    server::{Arguments as NameServerArguments, run as serve},
};
