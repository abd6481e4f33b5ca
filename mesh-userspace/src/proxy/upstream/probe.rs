//! Whether a server speaks HTTP/2, where a client does and nobody declared it.

use std::{future::poll_fn, io, pin::Pin, time::Duration};

use bytes::BytesMut;
use hyper::rt::{Read, ReadBuf, Write};

use super::super::socket::Socket;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Length, type, flags, stream.
const FRAME_HEADER: usize = 9;
const SETTINGS: u8 = 4;

/// A server that says nothing to the preface may wait for the client's own settings: it is believed.
const PATIENCE: Duration = Duration::from_millis(500);

/// Sends the client's preface and looks at the first bytes of the answer, which have to be the server's
/// settings (RFC 9113, 3.4). What was sent and read is hidden from whoever gets the socket next.
pub async fn speaks_http2(socket: &mut Socket) -> io::Result<bool> {
    let mut sent = 0;
    while sent < PREFACE.len() {
        sent += poll_fn(|cx| Pin::new(&mut *socket).poll_write(cx, &PREFACE[sent..])).await?;
    }
    socket.skip_written(PREFACE.len());
    let mut seen = BytesMut::new();
    let verdict = tokio::time::timeout(PATIENCE, async {
        loop {
            let mut chunk = [0; 256];
            let mut buf = ReadBuf::new(&mut chunk);
            poll_fn(|cx| Pin::new(&mut *socket).poll_read(cx, buf.unfilled())).await?;
            if buf.filled().is_empty() {
                return Ok(false);
            }
            seen.extend_from_slice(buf.filled());
            if let Some(verdict) = is_settings(&seen) {
                return Ok(verdict);
            }
        }
    })
    .await;
    socket.unread(seen.freeze());
    verdict.unwrap_or(Ok(true))
}

/// Whether the bytes begin with a SETTINGS frame; `None` where there are too few to tell.
fn is_settings(bytes: &[u8]) -> Option<bool> {
    let plausible = |at: usize, wanted: u8| bytes.get(at).is_none_or(|byte| *byte == wanted);
    // No server announces settings of 64 KiB, and they belong to no stream.
    if !(plausible(0, 0) && plausible(3, SETTINGS) && (5..9).all(|at| plausible(at, 0))) {
        return Some(false);
    }
    (bytes.len() >= FRAME_HEADER).then_some(true)
}

#[cfg(test)]
mod tests {
    use super::is_settings;

    #[test]
    fn settings_are_told_from_anything_else() {
        let settings = [0, 0, 18, 4, 0, 0, 0, 0, 0, 0, 3];
        for cut in 0..9 {
            assert_eq!(is_settings(&settings[..cut]), None, "cut at {cut}");
        }
        assert_eq!(is_settings(&settings), Some(true));
        assert_eq!(is_settings(b"H"), Some(false));
        assert_eq!(is_settings(&[0, 0, 0, 6, 0, 0, 0, 0, 0]), Some(false));
    }
}
