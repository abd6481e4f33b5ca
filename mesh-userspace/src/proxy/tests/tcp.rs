//! Connections whose bytes are not read.

use std::io::ErrorKind;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    harness::{Lab, Manifests, eventually, run},
    server::{Server, answer},
    wire::{get, http2_client},
};

const REDIS: &str = "10.96.0.3:6379";

fn redis(port_name: &str, port: u16) -> Manifests {
    Manifests::new()
        .service("redis", REDIS, port_name)
        .backend("redis", port_name, "v1", port)
}

/// Echoes until the client's side ends, then says goodbye.
async fn echo() -> Server {
    Server::raw(|mut stream, _| async move {
        let (mut reader, mut writer) = stream.split();
        tokio::io::copy(&mut reader, &mut writer).await.unwrap();
        writer.write_all(b"bye").await.unwrap();
    })
    .await
}

#[test]
fn bytes_pass_both_ways_and_a_half_close_is_one() {
    run(async {
        let server = echo().await;
        let lab = Lab::start(&redis("tcp", server.port));
        let mut client = lab.connect(REDIS).await;
        let sent: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
        let (mut reader, mut writer) = client.split();
        let send = async {
            writer.write_all(&sent).await.unwrap();
            writer.shutdown().await.unwrap();
        };
        let mut back = Vec::new();
        let receive = async { reader.read_to_end(&mut back).await.unwrap() };
        tokio::join!(send, receive);
        assert!(back.strip_suffix(b"bye") == Some(sent.as_slice()));
        let one = |family: &str| lab.metrics(family).iter().map(|(_, n)| *n).sum::<u64>();
        eventually("the end", || one("istio_tcp_connections_closed_total") == 1).await;
        assert_eq!(one("istio_tcp_connections_opened_total"), 1);
        assert_eq!(one("istio_tcp_received_bytes_total"), 3_000_000);
        assert_eq!(one("istio_tcp_sent_bytes_total"), 3_000_003);
        let (labels, _) = &lab.metrics("istio_tcp_connections_opened_total")[0];
        assert_eq!(labels["destination_service_name"], "redis");
        assert_eq!(
            (
                labels["request_protocol"].as_str(),
                labels["response_flags"].as_str()
            ),
            ("tcp", "-")
        );
    });
}

#[test]
fn a_reset_of_the_server_reaches_the_client() {
    run(async {
        let server = Server::raw(|mut stream, _| async move {
            stream.read_u8().await.unwrap();
            socket2::SockRef::from(&stream)
                .set_linger(Some(std::time::Duration::ZERO))
                .unwrap();
        })
        .await;
        let lab = Lab::start(&redis("tcp", server.port));
        let mut client = lab.connect(REDIS).await;
        client.write_all(b"x").await.unwrap();
        let error = client.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_reset_of_the_client_reaches_the_server() {
    run(async {
        let (told, seen) = tokio::sync::oneshot::channel();
        let told = std::cell::Cell::new(Some(told));
        let server = Server::raw(move |mut stream, _| {
            let told = told.take().unwrap();
            async move {
                stream.read_u8().await.unwrap();
                told.send(stream.read_u8().await.unwrap_err().kind())
                    .unwrap();
            }
        })
        .await;
        let lab = Lab::start(&redis("tcp", server.port));
        let mut client = lab.connect(REDIS).await;
        client.write_all(b"x").await.unwrap();
        eventually("it is connected", || server.connections() == 1).await;
        socket2::SockRef::from(&client)
            .set_linger(Some(std::time::Duration::ZERO))
            .unwrap();
        drop(client);
        assert_eq!(seen.await.unwrap(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_server_that_speaks_first_is_heard_on_a_port_of_unknown_protocol() {
    run(async {
        let server = Server::raw(|mut stream, _| async move {
            stream.write_all(b"220 hello").await.unwrap();
            assert_eq!(stream.read_u8().await.unwrap(), b'Q');
        })
        .await;
        let lab = Lab::start_with(&redis("auto", server.port), |config| {
            config.detection_timeout = std::time::Duration::from_millis(30);
        });
        let mut client = lab.connect(REDIS).await;
        let mut hello = [0; 9];
        client.read_exact(&mut hello).await.unwrap();
        assert_eq!(&hello, b"220 hello");
        client.write_all(b"Q").await.unwrap();
        assert_eq!(client.read(&mut hello).await.unwrap(), 0);
    });
}

#[test]
fn what_is_not_http_passes_a_port_of_unknown_protocol_untouched() {
    run(async {
        let server = echo().await;
        let lab = Lab::start(&redis("auto", server.port));
        for bytes in [&b"*1\r\n$4\r\nPING\r\n"[..], b"\x16\x03\x01\x00", b"G"] {
            let mut client = lab.connect(REDIS).await;
            client.write_all(bytes).await.unwrap();
            client.shutdown().await.unwrap();
            let mut back = Vec::new();
            client.read_to_end(&mut back).await.unwrap();
            assert_eq!(back, [bytes, b"bye"].concat());
        }
    });
}

#[test]
fn http_is_found_on_a_port_of_unknown_protocol() {
    run(async {
        let server = Server::http(|_, _| async { answer(200, "http/1.1") }).await;
        let lab = Lab::start(&redis("auto", server.port));
        let mut client = lab.connect(REDIS).await;
        // In pieces: nothing is decided before the request line is whole.
        for piece in ["GE", "T / HT", "TP/1.1\r", "\nHost: redis:6379\r\n\r\n"] {
            client.write_all(piece.as_bytes()).await.unwrap();
            client.flush().await.unwrap();
            tokio::task::yield_now().await;
        }
        assert_eq!(
            super::wire::read_answer(&mut client).await.text(),
            "http/1.1"
        );
        lab.expect_records(1, "200", "-").await;

        let server = Server::http2(|_, _| async { answer(200, "http/2") }).await;
        let lab = Lab::start(&redis("auto", server.port));
        let mut client = http2_client(lab.connect(REDIS).await).await;
        let request = http::Request::get("http://redis:6379/")
            .body(super::server::full(""))
            .unwrap();
        assert_eq!(client.send_request(request).await.unwrap().status(), 200);
    });
}

#[test]
fn a_tcp_service_without_endpoints_resets() {
    run(async {
        let lab = Lab::start(&Manifests::new().service("redis", REDIS, "tcp"));
        let address = lab.dial(REDIS);
        // The reset may come at any step.
        let outcome = async {
            let mut client = tokio::net::TcpStream::connect(address).await?;
            client.write_all(b"x").await?;
            client.read_to_end(&mut Vec::new()).await
        };
        let error = outcome.await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        eventually("its record", || {
            !lab.metrics("istio_tcp_connections_closed_total").is_empty()
        })
        .await;
        let (labels, closed) = &lab.metrics("istio_tcp_connections_closed_total")[0];
        assert_eq!((labels["response_flags"].as_str(), *closed), ("UH", 1));
    });
}

#[test]
fn a_connection_that_the_kernel_did_not_bring_is_closed() {
    run(async {
        let server = echo().await;
        let lab = Lab::start(&redis("tcp", server.port));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let name = crate::mesh::testing::object_name("default/client");
        let pod = crate::proxy::PodSockets::new(name.clone());
        lab.proxy.add_pod(&pod, &name, vec![listener]).unwrap();
        let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
        // It may be closed before it is written to.
        let _ = client.write_all(get("redis", "/").as_bytes()).await;
        assert_eq!(client.read(&mut [0; 1]).await.unwrap_or(0), 0);
        assert_eq!(server.connections(), 0);
    });
}
