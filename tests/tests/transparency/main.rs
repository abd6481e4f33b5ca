//! No application can tell: each row of what socket maps are known to change, over an accelerated
//! connection and over plain TCP. What differs all the same is named by a row, and by docs/limits.md.

mod closing;
mod flags;
mod foreseen;
mod frozen;
mod lagging;
mod order;
mod readiness;
mod settings;

/// Of poll(2): everything but what is always reported.
const EVERYTHING: i16 = libc::POLLIN | libc::POLLOUT | libc::POLLPRI | libc::POLLRDHUP;
