//! The proxy between real sockets on loopback: servers and clients that say exact bytes.

mod continues;
mod drain;
mod faults;
mod harness;
mod http1;
mod http2;
mod retries;
mod routing;
mod server;
mod streams;
mod tcp;
mod upgrades;
mod wire;
