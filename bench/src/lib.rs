//! The benchmarks: what a path through Zerohop costs and gains against the other ways of the same
//! bytes.
//!
//! Every benchmark runs its arms interleaved over rounds, so that what the machine does meanwhile
//! meets all of them; figures are medians over rounds, ratios are medians of the rounds' ratios.
//! Load comes from `bench-peer` (L4, scale), `wrk` and `h2load` (L7), `redis-benchmark` and `wrk` (apps), in
//! the lab's pods.

pub mod apps;
pub mod figures;
pub mod l4;
pub mod l7;
pub mod machine;
pub mod peer;
mod pods;
pub mod scale;
pub mod start;
mod sys;

pub use sys::{pin, raise_descriptors};
