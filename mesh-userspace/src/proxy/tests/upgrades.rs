//! Protocol switches: a request that becomes a stream of bytes.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    harness::{Lab, Manifests, run},
    server::Server,
    wire::{fields, read_answer, read_head},
};

const REVIEWS: &str = "10.96.0.1:9080";

fn reviews(port: u16) -> Manifests {
    Manifests::new()
        .service("reviews", REVIEWS, "http")
        .backend("reviews", "http", "v1", port)
}

/// Answers with `head`, then echoes until the client's side ends, then says goodbye.
async fn echo(mut stream: TcpStream, head: &'static str) {
    // The first bytes come in one packet with the head.
    stream
        .write_all(format!("{head}\r\n\r\nhi;").as_bytes())
        .await
        .unwrap();
    let mut buf = [0; 4096];
    loop {
        match stream.read(&mut buf).await.unwrap() {
            0 => break,
            n => stream.write_all(&buf[..n]).await.unwrap(),
        }
    }
    stream.write_all(b"bye").await.unwrap();
}

async fn converse(client: &mut TcpStream) {
    let mut hi = [0; 3];
    client.read_exact(&mut hi).await.unwrap();
    assert_eq!(&hi, b"hi;");
    let big = vec![7; 300_000];
    let (mut reader, mut writer) = client.split();
    let send = async {
        writer.write_all(&big).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    let mut back = Vec::new();
    let receive = async { reader.read_to_end(&mut back).await.unwrap() };
    tokio::join!(send, receive);
    assert_eq!(back.len(), big.len() + 3);
    assert!(
        back.ends_with(b"bye"),
        "what comes after the half-close still arrives"
    );
}

#[test]
fn an_upgraded_connection_carries_bytes_both_ways_and_half_closes() {
    run(async {
        let server = Server::raw(|mut stream, _| async move {
            let head = read_head(&mut stream).await;
            assert_eq!(fields(&head, "upgrade"), ["websocket"]);
            assert_eq!(fields(&head, "connection"), ["upgrade"]);
            assert_eq!(fields(&head, "sec-websocket-key"), ["x"]);
            echo(
                stream,
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade",
            )
            .await;
        })
        .await;
        let lab = Lab::start(&reviews(server.port));
        let mut client = lab.connect(REVIEWS).await;
        let request = "GET /chat HTTP/1.1\r\nHost: reviews\r\nConnection: keep-alive, Upgrade\r\n\
                       Upgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n";
        client.write_all(request.as_bytes()).await.unwrap();
        let head = read_head(&mut client).await;
        assert!(head.starts_with("HTTP/1.1 101"));
        assert_eq!(fields(&head, "upgrade"), ["websocket"]);
        converse(&mut client).await;
        lab.expect_records(1, "101", "-").await;
    });
}

#[test]
fn a_connect_tunnel_carries_bytes_both_ways() {
    run(async {
        let server = Server::raw(|mut stream, _| async move {
            let head = read_head(&mut stream).await;
            assert!(head.starts_with("CONNECT reviews:9080 HTTP/1.1"), "{head}");
            echo(stream, "HTTP/1.1 200 OK").await;
        })
        .await;
        let lab = Lab::start(&reviews(server.port));
        let mut client = lab.connect(REVIEWS).await;
        client
            .write_all(b"CONNECT reviews:9080 HTTP/1.1\r\nHost: reviews:9080\r\n\r\n")
            .await
            .unwrap();
        assert!(read_head(&mut client).await.starts_with("HTTP/1.1 200"));
        converse(&mut client).await;
        lab.expect_records(1, "200", "-").await;
    });
}

#[test]
fn a_declined_upgrade_leaves_plain_http() {
    run(async {
        let server = Server::raw(|mut stream, _| async move {
            for _ in 0..2 {
                read_head(&mut stream).await;
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                    .await
                    .unwrap();
            }
        })
        .await;
        let lab = Lab::start(&reviews(server.port));
        let mut client = lab.connect(REVIEWS).await;
        for _ in 0..2 {
            client
                .write_all(b"GET / HTTP/1.1\r\nHost: reviews\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
                .await
                .unwrap();
            assert_eq!(read_answer(&mut client).await.text(), "ok");
        }
        assert_eq!(server.connections(), 1);
    });
}
