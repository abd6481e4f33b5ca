//! Calls that move many bytes, or move them without copying.

use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::{AsRawFd, FromRawFd};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::names::{bytes, outcome};

/// How long a read or write of a large amount may stand still.
const PATIENCE: i32 = 5000;

/// Bytes that tell their place: each is another than the one a power of two before it.
pub(super) fn pattern(size: usize) -> Vec<u8> {
    (0..size).map(|place| (place % 251) as u8).collect()
}

/// Writes all of the pattern, waiting as long as the connection moves.
pub(super) fn write_all(fd: i32, size: usize) -> Value {
    let all = pattern(size);
    let mut sent = 0;
    while sent < size {
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: the rest of the pattern outlives the call.
        let result = unsafe { libc::send(fd, all[sent..].as_ptr().cast(), size - sent, flags) };
        if result >= 0 {
            sent += result.cast_unsigned();
            continue;
        }
        let error = std::io::Error::last_os_error();
        if error.kind() != std::io::ErrorKind::WouldBlock {
            return outcome(result);
        }
        let ready = super::calls::poll(fd, libc::POLLOUT, PATIENCE);
        if ready == json!("") {
            return json!(format!("stands still after {sent}"));
        }
    }
    json!(sent)
}

/// Reads until this many bytes, the end or an error came.
pub(super) fn read_all(fd: i32, size: usize) -> Value {
    let mut all = vec![0; size];
    let mut got = 0;
    let mut end = json!("there is more");
    while got < size {
        let ready = super::calls::poll(fd, libc::POLLIN, PATIENCE);
        if ready == json!("") {
            end = json!("stands still");
            break;
        }
        // SAFETY: the rest of the buffer is as long as is said.
        let result = unsafe {
            libc::recv(
                fd,
                all[got..].as_mut_ptr().cast(),
                size - got,
                libc::MSG_DONTWAIT,
            )
        };
        if result <= 0 {
            end = outcome(result);
            break;
        }
        got += result.cast_unsigned();
    }
    all.truncate(got);
    json!({"read": bytes(&all), "then": end})
}

pub(super) fn splice(from: i32, to: i32, size: usize, flags: i32) -> Value {
    // SAFETY: no offsets: neither end is a file.
    outcome(unsafe {
        libc::splice(
            from,
            std::ptr::null_mut(),
            to,
            std::ptr::null_mut(),
            size,
            flags.cast_unsigned(),
        )
    })
}

/// Sends a file's content by sendfile(2).
pub(super) fn sendfile(fd: i32, content: &[u8]) -> Result<Value> {
    // SAFETY: the name ends in NUL; the descriptor belongs to nobody else.
    let mut file = unsafe {
        let file = libc::memfd_create(c"sent".as_ptr(), libc::MFD_CLOEXEC);
        anyhow::ensure!(
            file >= 0,
            "memfd_create: {}",
            std::io::Error::last_os_error()
        );
        File::from_raw_fd(file)
    };
    file.write_all(content).context("write to a memfd")?;
    file.rewind()?;
    let mut sent = 0;
    while sent < content.len() {
        // SAFETY: both descriptors are open; no offset: the file's own moves on.
        let result = unsafe {
            libc::sendfile(
                fd,
                file.as_raw_fd(),
                std::ptr::null_mut(),
                content.len() - sent,
            )
        };
        if result <= 0 {
            let error = std::io::Error::last_os_error();
            if result < 0
                && error.kind() == std::io::ErrorKind::WouldBlock
                && super::calls::poll(fd, libc::POLLOUT, PATIENCE) != json!("")
            {
                continue;
            }
            return Ok(outcome(result));
        }
        sent += result.cast_unsigned();
    }
    Ok(json!(sent))
}

/// `struct tcp_zerocopy_receive`, as far as Linux 6.18 has it.
#[repr(C)]
#[derive(Default)]
struct ZeroCopyReceive {
    address: u64,
    length: u32,
    recv_skip_hint: u32,
    inq: u32,
    err: i32,
    copybuf_address: u64,
    copybuf_len: i32,
    flags: u32,
    msg_control: u64,
    msg_controllen: u64,
    msg_flags: u32,
    reserved: u32,
}

/// `TCP_ZEROCOPY_RECEIVE` into a page of the socket's own: what it says is there to be had, mapped or
/// left for recv().
pub(super) fn zero_copy_receive(fd: i32) -> Value {
    const PAGE: usize = 4096;
    const TCP_ZEROCOPY_RECEIVE: i32 = 35;
    // SAFETY: a fresh mapping of the socket, taken down below; the structure outlives the call.
    unsafe {
        let place = libc::mmap(
            std::ptr::null_mut(),
            PAGE,
            libc::PROT_READ,
            libc::MAP_SHARED,
            fd,
            0,
        );
        if place == libc::MAP_FAILED {
            return outcome(-1);
        }
        let mut request = ZeroCopyReceive {
            address: place as u64,
            length: PAGE as u32,
            ..ZeroCopyReceive::default()
        };
        let mut size = size_of::<ZeroCopyReceive>() as libc::socklen_t;
        let result = libc::getsockopt(
            fd,
            libc::IPPROTO_TCP,
            TCP_ZEROCOPY_RECEIVE,
            (&raw mut request).cast(),
            &raw mut size,
        );
        let answer = if result < 0 {
            outcome(-1)
        } else {
            json!({"available": request.length + request.recv_skip_hint})
        };
        libc::munmap(place, PAGE);
        answer
    }
}
