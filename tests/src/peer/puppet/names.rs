//! The kernel's numbers as people write them, so that a difference can be read.

use serde_json::{Value, json};

/// Calls in which a thread counts as waiting.
pub(super) const WAITING_CALLS: [i64; 13] = [
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_ppoll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(not(target_arch = "x86_64"))]
    libc::SYS_ppoll,
    libc::SYS_epoll_pwait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    #[cfg(not(target_arch = "x86_64"))]
    libc::SYS_epoll_pwait,
    libc::SYS_accept4,
    libc::SYS_splice,
    libc::SYS_io_uring_enter,
];

/// What a call returned: its number, or the error's name.
pub(super) fn outcome(result: isize) -> Value {
    if result >= 0 {
        return json!(result);
    }
    error(std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
}

/// An error's name.
pub(super) fn error(number: i32) -> Value {
    let known = [
        (libc::EAGAIN, "EAGAIN"),
        (libc::EBADF, "EBADF"),
        (libc::ECONNREFUSED, "ECONNREFUSED"),
        (libc::ECONNRESET, "ECONNRESET"),
        (libc::EFAULT, "EFAULT"),
        (libc::EINPROGRESS, "EINPROGRESS"),
        (libc::EINTR, "EINTR"),
        (libc::EINVAL, "EINVAL"),
        (libc::EIO, "EIO"),
        (libc::EISCONN, "EISCONN"),
        (libc::ENOENT, "ENOENT"),
        (libc::ENOPROTOOPT, "ENOPROTOOPT"),
        (libc::ENOTCONN, "ENOTCONN"),
        (libc::EOPNOTSUPP, "EOPNOTSUPP"),
        (libc::EPERM, "EPERM"),
        (libc::EPIPE, "EPIPE"),
        (libc::ETIMEDOUT, "ETIMEDOUT"),
    ];
    let name = known.iter().find(|(known, _)| *known == number);
    name.map_or_else(|| json!(format!("error {number}")), |(_, name)| json!(name))
}

/// The events of poll(2) and epoll(7), whose numbers are the same.
pub(super) fn events(bits: u32) -> Value {
    let known = [
        (libc::EPOLLIN, "IN"),
        (libc::EPOLLPRI, "PRI"),
        (libc::EPOLLOUT, "OUT"),
        (libc::EPOLLRDHUP, "RDHUP"),
        (libc::EPOLLHUP, "HUP"),
        (libc::EPOLLERR, "ERR"),
    ];
    let names: Vec<_> = known
        .iter()
        .filter(|(bit, _)| bits & bit.cast_unsigned() != 0)
        .map(|(_, name)| *name)
        .collect();
    json!(names.join("|"))
}

/// What was received: in full where it is short.
pub(super) fn bytes(bytes: &[u8]) -> Value {
    const SHORT: usize = 64;
    if bytes.len() <= SHORT {
        return json!(String::from_utf8_lossy(bytes));
    }
    let right = bytes == super::bulk::pattern(bytes.len());
    json!(format!(
        "{} bytes, {}",
        bytes.len(),
        if right { "in order" } else { "not the pattern" }
    ))
}
