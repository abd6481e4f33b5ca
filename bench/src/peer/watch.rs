//! Watches a URL: says when its answer changes, on the clock that all processes share.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Between two requests: what the time of a change is exact to.
const INTERVAL: Duration = Duration::from_micros(500);

/// Asks for `path` again and again on one HTTP/1.1 connection, until it is killed. Prints
/// `NANOSECONDS STATUS BODY` (since 1970, when the request was sent) for each answer that differs
/// from the one before.
pub fn watch(address: SocketAddr, host: &str, path: &str) -> io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let mut last = String::new();
    loop {
        let sent = now_nanoseconds();
        stream.write_all(request.as_bytes())?;
        let answer = read_answer(&mut reader)?;
        if answer != last {
            println!("{sent} {answer}");
            last = answer;
        }
        std::thread::sleep(INTERVAL);
    }
}

/// Nanoseconds since 1970.
pub fn now_nanoseconds() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// `STATUS BODY`, of an answer that says its length.
fn read_answer(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let status = line.split_whitespace().nth(1).unwrap_or("none").to_owned();
    let mut length = 0;
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let header = line.trim_end();
        if header.is_empty() {
            break;
        }
        if let Some((name, value)) = header.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(format!(
        "{status} {}",
        String::from_utf8_lossy(&body).trim_end()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_and_body_are_read_up_to_the_length() {
        let mut answer = &b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nv1\nHTTP/1.1 404"[..];
        assert_eq!(read_answer(&mut answer).unwrap(), "200 v1");
    }

    #[test]
    fn an_answer_cut_short_is_an_error() {
        assert!(read_answer(&mut &b"HTTP/1.1 200 OK\r\n"[..]).is_err());
    }
}
