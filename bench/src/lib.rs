//! The benchmarks: what a path through Zerohop costs and gains against the other ways of the same
//! bytes.
//!
//! Every benchmark runs its arms interleaved over rounds, so that what the machine does meanwhile
//! meets all of them; figures are medians over rounds, ratios are medians of the rounds' ratios.
//! Load comes from `bench-peer` (L4) and from `wrk` and `h2load` (L7), in the lab's pods.

pub mod figures;
pub mod l4;
pub mod l7;
pub mod machine;
pub mod peer;
pub mod start;
mod sys;

pub use sys::pin;
