//! What a snapshot says, from whole objects.

mod endpoints;
mod policies;
mod rules;
mod scale;
mod ways;
mod workloads;
