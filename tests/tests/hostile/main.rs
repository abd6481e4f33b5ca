//! Pods that are up to no good: root in their own namespace, with what a container has, and not a bit more of
//! the mesh for it.

mod addresses;
mod cutting;
mod listeners;
mod packets;
mod support;
