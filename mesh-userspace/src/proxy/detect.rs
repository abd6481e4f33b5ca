//! Which protocol a client speaks, from its first bytes.

use std::{future::poll_fn, io, pin::Pin, time::Duration};

use bytes::BytesMut;
use hyper::rt::{Read, ReadBuf};

use super::socket::Socket;
use crate::mesh::model::Protocol;

/// Where the server speaks first or HTTP never is: SMTP, DNS, `MySQL`, `MongoDB` (as Istio has it).
const NEVER_SNIFFED: [u16; 4] = [25, 53, 3306, 27017];

/// The request line must end within this.
const LIMIT: usize = 8 * 1024;

/// The longest method that is believed.
const METHOD_LIMIT: usize = 24;

const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What the proxy does with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spoken {
    /// HTTP/1.0 or 1.1.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// Anything else.
    Tcp,
}

/// What the first bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Is(Spoken),
    NeedsMore,
}

/// Reads what it must to tell, and puts it back. A client that says nothing for `patience` waits for the
/// server to speak: TCP. On ports of declared HTTP only the version is looked for, without a limit of
/// time, and what is neither goes to the HTTP/1 parser, which answers 400.
pub async fn detect(
    socket: &mut Socket,
    declared: Protocol,
    port: u16,
    patience: Duration,
) -> io::Result<Spoken> {
    match declared {
        Protocol::Tcp | Protocol::Tls | Protocol::Https => Ok(Spoken::Tcp),
        Protocol::Http | Protocol::Http2 | Protocol::Grpc => read_until(socket, http_version).await,
        Protocol::Auto if NEVER_SNIFFED.contains(&port) => Ok(Spoken::Tcp),
        Protocol::Auto => match tokio::time::timeout(patience, read_until(socket, sniff)).await {
            Ok(spoken) => spoken,
            Err(_) => Ok(Spoken::Tcp),
        },
    }
}

async fn read_until(socket: &mut Socket, judge: fn(&[u8]) -> Verdict) -> io::Result<Spoken> {
    let mut seen = Replayed {
        socket,
        bytes: BytesMut::new(),
    };
    loop {
        let mut chunk = [0; 1024];
        let mut buf = ReadBuf::new(&mut chunk);
        let socket = &mut *seen.socket;
        poll_fn(|cx| Pin::new(&mut *socket).poll_read(cx, buf.unfilled())).await?;
        let ended = buf.filled().is_empty();
        seen.bytes.extend_from_slice(buf.filled());
        match judge(&seen.bytes) {
            Verdict::Is(spoken) => return Ok(spoken),
            // A client that closed before it said enough is passed on as it is.
            Verdict::NeedsMore if ended => return Ok(Spoken::Tcp),
            Verdict::NeedsMore => {}
        }
    }
}

/// Puts back what was read, also when the wait for more is given up.
struct Replayed<'a> {
    socket: &'a mut Socket,
    bytes: BytesMut,
}

impl Drop for Replayed<'_> {
    fn drop(&mut self) {
        self.socket.unread(std::mem::take(&mut self.bytes).freeze());
    }
}

fn http_version(bytes: &[u8]) -> Verdict {
    let n = bytes.len().min(H2_PREFACE.len());
    if bytes[..n] != H2_PREFACE[..n] {
        Verdict::Is(Spoken::Http1)
    } else if n == H2_PREFACE.len() {
        Verdict::Is(Spoken::Http2)
    } else {
        Verdict::NeedsMore
    }
}

fn sniff(bytes: &[u8]) -> Verdict {
    match http_version(bytes) {
        Verdict::Is(Spoken::Http1) => request_line(bytes),
        verdict => verdict,
    }
}

/// A request line is judged whole: "GET x" alone may be another protocol's.
fn request_line(bytes: &[u8]) -> Verdict {
    let method_end = bytes
        .iter()
        .take(METHOD_LIMIT + 1)
        .position(|b| !(b.is_ascii_uppercase() || matches!(b, b'-' | b'_')));
    match method_end {
        None if bytes.len() <= METHOD_LIMIT => return Verdict::NeedsMore,
        Some(end) if end > 0 && bytes[end] == b' ' => {}
        _ => return Verdict::Is(Spoken::Tcp),
    }
    match bytes.iter().take(LIMIT).position(|b| *b == b'\n') {
        Some(end) => {
            let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
            if line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0") {
                Verdict::Is(Spoken::Http1)
            } else {
                Verdict::Is(Spoken::Tcp)
            }
        }
        None if bytes.len() < LIMIT => Verdict::NeedsMore,
        None => Verdict::Is(Spoken::Tcp),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_line_is_http_however_it_is_cut() {
        let line = b"PROPFIND /x?y=1 HTTP/1.1\r\n";
        for cut in 0..line.len() {
            assert_eq!(sniff(&line[..cut]), Verdict::NeedsMore, "cut at {cut}");
        }
        assert_eq!(sniff(line), Verdict::Is(Spoken::Http1));
    }

    #[test]
    fn the_preface_is_http2_however_it_is_cut() {
        for cut in 0..H2_PREFACE.len() {
            assert_eq!(
                sniff(&H2_PREFACE[..cut]),
                Verdict::NeedsMore,
                "cut at {cut}"
            );
        }
        assert_eq!(sniff(H2_PREFACE), Verdict::Is(Spoken::Http2));
    }

    #[test]
    fn other_protocols_are_tcp() {
        let others: [&[u8]; 6] = [
            b"\x16\x03\x01\x02\x00\x01\x00",
            b"*1\r\n$4\r\nPING\r\n",
            b"PING\r\n",
            b"HELO example\r\n",
            b"get key\r\n",
            b"CONNECT {\"verbose\":false}\r\n",
        ];
        for bytes in others {
            assert_eq!(sniff(bytes), Verdict::Is(Spoken::Tcp), "{bytes:?}");
        }
    }

    #[test]
    fn a_line_without_end_is_given_up() {
        let endless = [b"GET /".as_slice(), &[b'x'; LIMIT]].concat();
        assert_eq!(sniff(&endless), Verdict::Is(Spoken::Tcp));
    }

    #[test]
    fn on_an_http_port_only_the_preface_makes_http2() {
        assert_eq!(
            http_version(b"PRI * HTTP/1.1\r\n"),
            Verdict::Is(Spoken::Http1)
        );
        assert_eq!(http_version(b"\x00\x01garbage"), Verdict::Is(Spoken::Http1));
    }
}
