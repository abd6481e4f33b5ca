//! HTTP/2 on either side.

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use hyper::body::Frame;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    harness::{Lab, Manifests, run},
    server::{Server, answer, frames, full},
    wire::{get, http2_client},
};

const RATINGS: &str = "10.96.0.2:9080";

fn ratings(port_name: &str, port: u16) -> Manifests {
    Manifests::new()
        .service("ratings", RATINGS, port_name)
        .backend("ratings", port_name, "v1", port)
}

#[test]
fn an_http2_client_reaches_an_http2_server_on_one_connection() {
    run(async {
        let server = Server::http2(|request, _| async move {
            assert_eq!(request.version(), http::Version::HTTP_2);
            let authority = request.uri().authority().unwrap().to_string();
            let body = request.into_body().collect().await.unwrap().to_bytes();
            answer(200, &format!("{authority} {}", body.len()))
        })
        .await;
        let lab = Lab::start(&ratings("http", server.port));
        let client = http2_client(lab.connect(RATINGS).await).await;
        let exchanges: Vec<_> = (0..40)
            .map(|n| {
                let mut client = client.clone();
                tokio::task::spawn_local(async move {
                    let body = full(vec![b'x'; n * 5000]);
                    let request = Request::post("http://ratings:9080/x").body(body).unwrap();
                    let answer = client.send_request(request).await.unwrap();
                    let body = answer.into_body().collect().await.unwrap().to_bytes();
                    assert_eq!(body, format!("ratings:9080 {}", n * 5000));
                })
            })
            .collect();
        for exchange in exchanges {
            exchange.await.unwrap();
        }
        assert_eq!(server.connections(), 1);
        lab.expect_records(40, "200", "-").await;
    });
}

#[test]
fn a_grpc_exchange_keeps_its_trailers_and_its_status_is_recorded() {
    run(async {
        let server = Server::http2(|request, _| async move {
            assert_eq!(request.headers()["te"], "trailers");
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "5".parse().unwrap());
            let body = frames([
                Frame::data(Bytes::from_static(b"\0\0\0\0\0")),
                Frame::trailers(trailers),
            ]);
            let mut answer = http::Response::new(body);
            answer
                .headers_mut()
                .insert("content-type", "application/grpc".parse().unwrap());
            answer
        })
        .await;
        let lab = Lab::start(&ratings("grpc", server.port));
        let mut client = http2_client(lab.connect(RATINGS).await).await;
        let request = Request::post("http://ratings:9080/pkg.Service/Call")
            .header("content-type", "application/grpc+proto")
            .header("te", "trailers")
            .body(full("\0\0\0\0\0"))
            .unwrap();
        let answer = client
            .send_request(request)
            .await
            .unwrap()
            .into_body()
            .collect()
            .await
            .unwrap();
        assert_eq!(answer.trailers().unwrap()["grpc-status"], "5");
        lab.expect_records(1, "200", "-").await;
        let (labels, _) = &lab.metrics("istio_requests_total")[0];
        assert_eq!(
            (
                labels["request_protocol"].as_str(),
                labels["grpc_response_status"].as_str()
            ),
            ("grpc", "5")
        );
    });
}

#[test]
fn a_local_reply_to_a_grpc_client_is_a_grpc_status() {
    run(async {
        let lab = Lab::start(&Manifests::new().service("ratings", RATINGS, "grpc"));
        let mut client = http2_client(lab.connect(RATINGS).await).await;
        let request = Request::post("http://ratings:9080/pkg.Service/Call")
            .header("content-type", "application/grpc")
            .body(full(""))
            .unwrap();
        let answer = client.send_request(request).await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["grpc-status"], "14");
        assert_eq!(answer.headers()["grpc-message"], "no healthy upstream");
        lab.expect_records(1, "200", "UH").await;
    });
}

#[test]
fn an_http1_client_reaches_a_server_that_speaks_http2() {
    run(async {
        let server = Server::http2(|request, _| async move {
            assert!(
                request.headers().get("host").is_none()
                    && request.headers().get("connection").is_none()
            );
            let authority = request.uri().authority().unwrap().to_string();
            let body = request.into_body().collect().await.unwrap().to_bytes();
            answer(200, &format!("{authority} {}", body.len()))
        })
        .await;
        let lab = Lab::start(&ratings("http2", server.port));
        let mut client = lab.connect(RATINGS).await;
        let request = "POST /x HTTP/1.1\r\nHost: ratings:9080\r\nConnection: keep-alive\r\n\
                       Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
        for _ in 0..3 {
            client.write_all(request.as_bytes()).await.unwrap();
            assert_eq!(
                super::wire::read_answer(&mut client).await.text(),
                "ratings:9080 3"
            );
        }
        assert_eq!(server.connections(), 1);
    });
}

#[test]
fn an_http2_client_reaches_a_server_that_speaks_http1_only() {
    run(async {
        let server = Server::http(|request, _| async move {
            assert_eq!(request.version(), http::Version::HTTP_11);
            let host = request.headers()["host"].to_str().unwrap().to_owned();
            let target = request.uri().to_string();
            let body = request.into_body().collect().await.unwrap().to_bytes();
            answer(200, &format!("{host} {target} {}", body.len()))
        })
        .await;
        let lab = Lab::start(&ratings("http", server.port));
        let mut client = http2_client(lab.connect(RATINGS).await).await;
        for _ in 0..5 {
            let request = Request::post("http://ratings:9080/x?y")
                .body(full("abc"))
                .unwrap();
            let got = client.send_request(request).await.unwrap();
            let body = got.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body, "ratings:9080 /x?y 3");
        }
        // One to find out, one to use.
        assert_eq!((server.connections(), server.requests()), (2, 5));
        lab.expect_records(5, "200", "-").await;
    });
}

#[test]
fn a_large_answer_streams_over_http2() {
    run(async {
        let server = Server::http2(|_, _| async { answer(200, &"y".repeat(20_000_000)) }).await;
        let lab = Lab::start(&ratings("http2", server.port));
        let mut client = http2_client(lab.connect(RATINGS).await).await;
        let request = Request::get("http://ratings:9080/").body(full("")).unwrap();
        let body = client
            .send_request(request)
            .await
            .unwrap()
            .into_body()
            .collect()
            .await
            .unwrap();
        assert_eq!(body.to_bytes().len(), 20_000_000);
        lab.expect_records(1, "200", "-").await;
    });
}

#[test]
fn a_refused_stream_is_tried_again() {
    run(async {
        let server = Server::raw(|stream, _| async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            let mut refused = 0;
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                if refused < 2 {
                    refused += 1;
                    respond.send_reset(h2::Reason::REFUSED_STREAM);
                } else {
                    respond
                        .send_response(http::Response::new(()), true)
                        .unwrap();
                }
            }
        })
        .await;
        let lab = Lab::start(&ratings("http2", server.port));
        let post = "POST / HTTP/1.1\r\nHost: ratings\r\nContent-Length: 2\r\n\r\nhi";
        assert_eq!(lab.exchange(RATINGS, post).await.status, 200);
        lab.expect_records(1, "200", "-").await;
    });
}

#[test]
fn a_connection_that_is_going_away_is_replaced() {
    run(async {
        // Each connection takes one request.
        let server = Server::raw(|stream, _| async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            if let Some(Ok((_, mut respond))) = connection.accept().await {
                respond
                    .send_response(http::Response::new(()), true)
                    .unwrap();
            }
            connection.graceful_shutdown();
            while connection.accept().await.is_some() {}
        })
        .await;
        let lab = Lab::start(&ratings("http2", server.port));
        let mut client = lab.connect(RATINGS).await;
        for number in 1..=5 {
            client
                .write_all(get("ratings", "/").as_bytes())
                .await
                .unwrap();
            assert_eq!(super::wire::read_answer(&mut client).await.status, 200);
            super::harness::eventually("another connection", || server.connections() >= number)
                .await;
        }
    });
}

#[test]
fn a_stream_that_the_client_resets_is_cancelled_upstream() {
    run(async {
        let (told, seen) = tokio::sync::oneshot::channel();
        let told = std::cell::Cell::new(Some(told));
        let server = Server::raw(move |stream, _| {
            let told = told.take().unwrap();
            async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                let (_, mut respond) = connection.accept().await.unwrap().unwrap();
                let reset = async { std::future::poll_fn(|cx| respond.poll_reset(cx)).await };
                tokio::select! {
                    reason = reset => told.send(reason.unwrap()).unwrap(),
                    _ = connection.accept() => {}
                }
            }
        })
        .await;
        let lab = Lab::start(&ratings("http2", server.port));
        let mut client = http2_client(lab.connect(RATINGS).await).await;
        let request = Request::get("http://ratings:9080/").body(full("")).unwrap();
        let mut answer = Box::pin(client.send_request(request));
        tokio::select! {
            _ = &mut answer => panic!("nobody answers"),
            () = super::harness::eventually("it arrives", || server.connections() == 1) => {}
        }
        // The request has to be on its way before it is taken back.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        drop(answer);
        assert_eq!(seen.await.unwrap(), h2::Reason::CANCEL);
        lab.expect_records(1, "0", "DC").await;
    });
}

#[test]
fn a_connect_tunnel_over_http2_carries_bytes() {
    run(async {
        let server = Server::raw(|stream, _| async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            let (request, mut respond) = connection.accept().await.unwrap().unwrap();
            assert_eq!(request.method(), "CONNECT");
            let mut send = respond
                .send_response(http::Response::new(()), false)
                .unwrap();
            let mut receive = request.into_body();
            let echo = tokio::task::spawn_local(async move {
                while let Some(Ok(data)) = receive.data().await {
                    receive.flow_control().release_capacity(data.len()).unwrap();
                    send.send_data(data, false).unwrap();
                }
                send.send_data(Bytes::from_static(b"bye"), true).unwrap();
            });
            while connection.accept().await.is_some() {}
            echo.await.unwrap();
        })
        .await;
        let lab = Lab::start(&ratings("http2", server.port));
        let mut client = lab.connect(RATINGS).await;
        client
            .write_all(b"CONNECT ratings:9080 HTTP/1.1\r\nHost: ratings:9080\r\n\r\n")
            .await
            .unwrap();
        assert!(
            super::wire::read_head(&mut client)
                .await
                .starts_with("HTTP/1.1 200")
        );
        client.write_all(b"hello").await.unwrap();
        client.shutdown().await.unwrap();
        let mut back = Vec::new();
        client.read_to_end(&mut back).await.unwrap();
        assert_eq!(back, b"hellobye");
        lab.expect_records(1, "200", "-").await;
    });
}
