//! A small blocking HTTP/1.1 client for the agent's admin address: one connection per request.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    time::Duration,
};

use serde_json::Value;

/// To connect; the agent is on this machine, or a port-forward away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Between two reads: a little more than the agent allows itself for an answer.
const READ_TIMEOUT: Duration = Duration::from_secs(15);
/// Of an answer: a dump of a large mesh is far below it.
const MAX_BODY: u64 = 1 << 30;
/// Of the head of an answer, and of a chunk's size line.
const MAX_HEAD: u64 = 64 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens, or the address does not resolve.
    #[error(
        "no agent answers at {address}: {source}: start one with `mesh-agent run --config-dir DIR`, \
         or name its address with --admin or MESH_ADMIN"
    )]
    NoAgent {
        /// What was tried.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// The connection broke, or something else than an agent listens there.
    #[error(
        "{address} did not answer {path} as an agent does: {what}: \
         name the agent's address with --admin or MESH_ADMIN"
    )]
    NotAnAgent {
        /// What was tried.
        address: String,
        /// The request's path.
        path: String,
        /// What came instead.
        what: String,
    },
    /// The agent said no.
    #[error("{error}: {mend}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// What failed and why.
        error: String,
        /// What to do.
        mend: String,
    },
}

/// Asks one agent.
#[derive(Debug)]
pub struct Client {
    address: String,
}

impl Client {
    /// An agent at `HOST:PORT`.
    pub fn new(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
        }
    }

    /// The JSON behind a path.
    pub fn get(&self, path: &str) -> Result<Value, ClientError> {
        self.ask("GET", path, &[])
    }

    /// The JSON that answers a JSON query.
    pub fn post(&self, path: &str, query: &Value) -> Result<Value, ClientError> {
        self.ask("POST", path, query.to_string().as_bytes())
    }

    fn ask(&self, method: &str, path: &str, body: &[u8]) -> Result<Value, ClientError> {
        let not_an_agent = |what: String| ClientError::NotAnAgent {
            address: self.address.clone(),
            path: path.to_owned(),
            what,
        };
        let mut stream = self.connect().map_err(|source| ClientError::NoAgent {
            address: self.address.clone(),
            source,
        })?;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nuser-agent: meshctl/{}\r\n\
             accept: application/json\r\ncontent-type: application/json\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n",
            self.address,
            env!("CARGO_PKG_VERSION"),
            body.len(),
        );
        stream
            .write_all(&[head.as_bytes(), body].concat())
            .map_err(|e| not_an_agent(format!("sending the request: {e}")))?;
        let (status, answer) =
            read_response(BufReader::new(stream)).map_err(|e| not_an_agent(e.to_string()))?;
        let value: Value = serde_json::from_slice(&answer)
            .map_err(|e| not_an_agent(format!("status {status} and no JSON: {e}")))?;
        if (200..300).contains(&status) {
            return Ok(value);
        }
        let text = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
        match (text("error"), text("mend")) {
            (Some(error), Some(mend)) => Err(ClientError::Refused {
                status,
                error,
                mend,
            }),
            _ => Err(not_an_agent(format!("status {status}"))),
        }
    }

    /// The first of the name's addresses that takes the connection.
    fn connect(&self) -> io::Result<TcpStream> {
        let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in self.address.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(READ_TIMEOUT))?;
                    stream.set_write_timeout(Some(READ_TIMEOUT))?;
                    return Ok(stream);
                }
                Err(e) => failure = e,
            }
        }
        Err(failure)
    }
}

/// Status and body of an HTTP/1.x response (RFC 9112, sections 2 to 7).
fn read_response(mut from: impl BufRead) -> io::Result<(u16, Vec<u8>)> {
    let (status, length) = loop {
        let (status, length) = read_head(&mut from)?;
        // Interim answers have no body; the one that counts follows.
        if status >= 200 {
            break (status, length);
        }
    };
    let mut body = Vec::new();
    match length {
        Length::Exact(length) if length > MAX_BODY => {
            return Err(malformed("the answer is too large"));
        }
        Length::Exact(length) => {
            from.take(length).read_to_end(&mut body)?;
            if body.len() as u64 != length {
                return Err(malformed("the answer ended early"));
            }
        }
        Length::Chunked => read_chunks(&mut from, &mut body)?,
        Length::UntilClose => {
            from.take(MAX_BODY).read_to_end(&mut body)?;
        }
    }
    Ok((status, body))
}

/// How a body is delimited.
enum Length {
    Exact(u64),
    Chunked,
    UntilClose,
}

fn read_head(from: &mut impl BufRead) -> io::Result<(u16, Length)> {
    let mut head = from.take(MAX_HEAD);
    let line = read_line(&mut head)?;
    let status = line
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split(' ').nth(1))
        .and_then(|code| code.parse().ok())
        .ok_or_else(|| malformed("no HTTP/1.x status line"))?;
    let mut length = Length::UntilClose;
    loop {
        let line = read_line(&mut head)?;
        if line.is_empty() {
            return Ok((status, length));
        }
        let (name, value) = line
            .split_once(':')
            .ok_or_else(|| malformed("a header without colon"))?;
        let value = value.trim();
        if name.eq_ignore_ascii_case("transfer-encoding") {
            if !value.eq_ignore_ascii_case("chunked") {
                return Err(malformed("an unknown transfer encoding"));
            }
            length = Length::Chunked;
        } else if name.eq_ignore_ascii_case("content-length") && !matches!(length, Length::Chunked)
        {
            let value = value
                .parse()
                .map_err(|_| malformed("a content-length that is no number"))?;
            length = Length::Exact(value);
        }
    }
}

fn read_chunks(from: &mut impl BufRead, body: &mut Vec<u8>) -> io::Result<()> {
    loop {
        let line = read_line(&mut from.by_ref().take(MAX_HEAD))?;
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = u64::from_str_radix(size, 16).map_err(|_| malformed("a chunk without size"))?;
        if size > MAX_BODY - body.len() as u64 {
            return Err(malformed("the answer is too large"));
        }
        if size == 0 {
            // Trailers, which nobody needs, and the empty line.
            while !read_line(&mut from.by_ref().take(MAX_HEAD))?.is_empty() {}
            return Ok(());
        }
        let before = body.len() as u64;
        from.by_ref().take(size).read_to_end(body)?;
        let complete = body.len() as u64 - before == size;
        if !complete || !read_line(&mut from.by_ref().take(2))?.is_empty() {
            return Err(malformed("the answer ended early"));
        }
    }
}

/// A line without its CRLF.
fn read_line(from: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    let Some(end) = line.strip_suffix('\n') else {
        return Err(malformed("the answer ended early"));
    };
    Ok(end.strip_suffix('\r').unwrap_or(end).to_owned())
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;

    fn response(text: &str) -> io::Result<(u16, Vec<u8>)> {
        read_response(text.as_bytes())
    }

    #[test]
    fn a_body_ends_where_its_length_says() {
        let (status, body) =
            response("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}more").expect("valid");
        assert_eq!((status, body.as_slice()), (200, &b"{}"[..]));
    }

    #[test]
    fn a_body_in_chunks_is_joined() {
        let text = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
                    3;x=y\r\n[1,\r\nA\r\n2,3,4,5,6]\r\n0\r\ntrailer: t\r\n\r\n";
        let (_, body) = response(text).expect("valid");
        assert_eq!(body, b"[1,2,3,4,5,6]");
    }

    #[test]
    fn a_body_without_length_ends_with_the_connection() {
        let (_, body) = response("HTTP/1.0 503 x\r\n\r\nwhy").expect("valid");
        assert_eq!(body, b"why");
    }

    #[test]
    fn an_interim_answer_is_passed_over() {
        let text = "HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n1";
        assert_eq!(response(text).expect("valid"), (200, b"1".to_vec()));
    }

    #[test]
    fn what_ends_early_or_is_no_http_is_an_error() {
        for text in [
            "",
            "SSH-2.0-OpenSSH\r\n",
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        ] {
            assert!(response(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn nobody_there_is_said_with_the_address_and_what_to_do() {
        // A port that was free a moment ago.
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = listener.local_addr().expect("bound").to_string();
        drop(listener);
        let error = Client::new(&address)
            .get("/status")
            .expect_err("nobody listens");
        let text = error.to_string();
        assert!(matches!(error, ClientError::NoAgent { .. }), "{text}");
        assert!(
            text.contains(&address) && text.contains("mesh-agent run"),
            "{text}"
        );
    }

    #[test]
    fn the_agents_own_error_is_passed_on() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = listener.local_addr().expect("bound").to_string();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut request = [0; 1024];
            let read = stream.read(&mut request).expect("a request");
            let body = r#"{"error":"no pod a/b","mend":"see meshctl workloads"}"#;
            write!(
                stream,
                "HTTP/1.1 404 x\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            )
            .expect("written");
            String::from_utf8_lossy(&request[..read]).into_owned()
        });
        let error = Client::new(&address).get("/explain").expect_err("404");
        assert_eq!(error.to_string(), "no pod a/b: see meshctl workloads");
        let request = server.join().expect("served");
        assert!(
            request.starts_with("GET /explain HTTP/1.1\r\n"),
            "{request}"
        );
        assert!(
            request.contains(&format!("host: {address}\r\n")),
            "{request}"
        );
    }
}
