//! What clients say and read, byte by byte.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::server::Body;
use crate::proxy::{runtime::LocalExecutor, socket::Socket};

/// One exchange on a connection of its own.
pub async fn exchange(listener: SocketAddr, request: &str) -> Answer {
    let mut stream = TcpStream::connect(listener).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    read_answer(&mut stream).await
}

/// An answer as it was read from the wire.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// With the status line, as it was read.
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    /// All values of a field.
    pub fn fields(&self, name: &str) -> Vec<&str> {
        fields(&self.head, name)
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// All values of a field of a head.
pub fn fields<'h>(head: &'h str, name: &str) -> Vec<&'h str> {
    head.lines()
        .skip(1)
        .filter_map(|line| line.split_once(':'))
        .filter(|(field, _)| field.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
        .collect()
}

/// Reads up to the end of a head.
pub async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(error) => panic!(
                "no head: {error}, after {:?}",
                String::from_utf8_lossy(&head)
            ),
        }
    }
    String::from_utf8(head).unwrap()
}

/// Reads one answer to a request other than HEAD. A chunked body is given as it stands on the wire.
pub async fn read_answer(stream: &mut TcpStream) -> Answer {
    let head = read_head(stream).await;
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let mut body = Vec::new();
    if let Some(length) = fields(&head, "content-length").first() {
        body.resize(length.parse().unwrap(), 0);
        stream.read_exact(&mut body).await.unwrap();
    } else if fields(&head, "transfer-encoding") == ["chunked"] {
        let mut ended = false;
        while !ended {
            let mut line = Vec::new();
            while !line.ends_with(b"\r\n") {
                line.push(stream.read_u8().await.unwrap());
            }
            let size =
                usize::from_str_radix(std::str::from_utf8(&line).unwrap().trim(), 16).unwrap();
            body.extend_from_slice(&line);
            if size == 0 {
                // The trailers' section ends with an empty line.
                let mut section = b"\r\n".to_vec();
                while !section.ends_with(b"\r\n\r\n") {
                    section.push(stream.read_u8().await.unwrap());
                }
                body.extend_from_slice(&section[2..]);
                ended = true;
            } else {
                let start = body.len();
                body.resize(start + size + 2, 0);
                stream.read_exact(&mut body[start..]).await.unwrap();
            }
        }
    } else if status >= 200 && status != 204 && status != 304 {
        stream.read_to_end(&mut body).await.unwrap();
    }
    Answer { status, head, body }
}

/// A GET as text.
pub fn get(host: &str, path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n")
}

/// An HTTP/2 client on a connection.
pub async fn http2_client(stream: TcpStream) -> hyper::client::conn::http2::SendRequest<Body> {
    let (sender, connection) =
        hyper::client::conn::http2::handshake(LocalExecutor, Socket::new(stream))
            .await
            .unwrap();
    tokio::task::spawn_local(async move {
        // What its requests meet they tell themselves.
        let _ = connection.await;
    });
    sender
}
