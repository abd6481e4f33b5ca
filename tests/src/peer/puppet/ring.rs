//! recv and send by io_uring.

use std::os::fd::RawFd;

use anyhow::{Context, Result};
use io_uring::{IoUring, opcode, squeue, types};
use serde_json::{Value, json};

use super::names::{bytes, error};

pub(super) fn recv(fd: RawFd, size: usize, flags: i32) -> Result<Value> {
    let mut buffer = vec![0; size];
    let entry = opcode::Recv::new(types::Fd(fd), buffer.as_mut_ptr(), u32::try_from(size)?)
        .flags(flags)
        .build();
    let result = submit(&entry)?;
    if result < 0 {
        return Ok(error(-result));
    }
    buffer.truncate(result.cast_unsigned() as usize);
    Ok(bytes(&buffer))
}

pub(super) fn send(fd: RawFd, what: &[u8]) -> Result<Value> {
    let entry = opcode::Send::new(types::Fd(fd), what.as_ptr(), u32::try_from(what.len())?)
        .flags(libc::MSG_NOSIGNAL)
        .build();
    let result = submit(&entry)?;
    Ok(if result < 0 {
        error(-result)
    } else {
        json!(result)
    })
}

/// Hands the entry in and waits until it is complete.
fn submit(entry: &squeue::Entry) -> Result<i32> {
    let mut ring = IoUring::new(2).context("io_uring_setup")?;
    // SAFETY: what the entry points to outlives this call, which waits for its completion.
    unsafe { ring.submission().push(entry) }.context("the submission queue is full")?;
    ring.submit_and_wait(1).context("io_uring_enter")?;
    let completion = ring.completion().next().context("no completion")?;
    Ok(completion.result())
}
