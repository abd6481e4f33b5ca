//! What only shows after a long time: `cargo xtask soak`. Each soak is also a scenario, shorter.

pub mod life;
pub mod race;
