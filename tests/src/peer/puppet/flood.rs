//! A sender that is held back, and a reader that takes a short read for the end, as epoll(7) allows.
//!
//! The bytes tell their place in the stream, so several floods of one connection are one stream.

use serde_json::{Value, json};

use super::calls;
use super::names::outcome;

/// How long a reader waits for the next event, in milliseconds.
const PATIENCE: i32 = 5000;
/// What a sender that nobody holds back has sent by then.
const ENDLESS: usize = 256 << 20;

fn byte(place: usize) -> u8 {
    (place % 251) as u8
}

/// Sends messages of `size` bytes, from a place in the stream on, until one is refused.
pub(super) fn fill(fd: i32, size: usize, from: usize) -> Value {
    let mut sent = 0;
    while sent < ENDLESS {
        let message: Vec<u8> = (from + sent..from + sent + size).map(byte).collect();
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: the message outlives the call.
        let result = unsafe { libc::send(fd, message.as_ptr().cast(), size, flags) };
        if result < 0 {
            return json!({"sent": sent, "then": outcome(result)});
        }
        sent += result.cast_unsigned();
    }
    json!({"sent": sent, "then": "nothing holds it back"})
}

/// Reads `size` bytes by an edge-triggered epoll instance: after a read that is shorter than its buffer, only
/// an event leads to the next one.
pub(super) fn drain(fd: i32, size: usize, from: usize) -> Value {
    const EDGES: u32 = (libc::EPOLLIN | libc::EPOLLET).cast_unsigned();
    let epoll = match calls::epoll(fd, EDGES) {
        Ok(epoll) => epoll,
        Err(error) => return json!(error.to_string()),
    };
    let seen = read_by_edges(fd, epoll, size, from);
    // SAFETY: made above, used by nobody else.
    unsafe { libc::close(epoll) };
    seen
}

fn read_by_edges(fd: i32, epoll: i32, size: usize, from: usize) -> Value {
    let mut buffer = vec![0; 16 * 1024];
    let mut got = 0;
    while got < size {
        if calls::wait(epoll, PATIENCE) == json!("") {
            return json!(format!("no event after {got} of {size} bytes"));
        }
        loop {
            let wanted = buffer.len().min(size - got);
            // SAFETY: the buffer is at least as long as is said.
            let result =
                unsafe { libc::recv(fd, buffer.as_mut_ptr().cast(), wanted, libc::MSG_DONTWAIT) };
            if result < 0 && outcome(result) == json!("EAGAIN") {
                break;
            }
            if result <= 0 {
                return json!(format!("{} after {got} of {size} bytes", outcome(result)));
            }
            let read = result.cast_unsigned();
            let wrong = (0..read).find(|&place| buffer[place] != byte(from + got + place));
            if let Some(place) = wrong {
                return json!(format!("another byte at {}", got + place));
            }
            got += read;
            if read < wanted || got == size {
                break;
            }
        }
    }
    json!("all, in order")
}
