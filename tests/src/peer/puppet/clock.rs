//! When something happened.

use std::time::SystemTime;

use serde_json::{Value, json};

use super::calls;

/// Waits until the connection has an end, and says when: nanoseconds since 1970.
pub(super) fn ends_at(fd: i32, within: usize) -> Value {
    let within = i32::try_from(within).unwrap_or(i32::MAX);
    let told = calls::poll(fd, libc::POLLRDHUP, within);
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let at = u64::try_from(since.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX);
    json!({"told": told, "at": at})
}
