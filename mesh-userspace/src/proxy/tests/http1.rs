//! HTTP/1.x as it passes: heads, bodies, connections.

use http_body_util::BodyExt;
use hyper::body::Frame;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    harness::{Lab, Manifests, eventually, run},
    server::{Server, answer, frames},
    wire::{exchange, fields, get, read_answer, read_head},
};

const REVIEWS: &str = "10.96.0.1:9080";

fn reviews(port: u16) -> Manifests {
    Manifests::new()
        .service("reviews", REVIEWS, "http")
        .backend("reviews", "http", "v1", port)
}

#[test]
fn a_request_reaches_its_service_and_leaves_one_record() {
    run(async {
        let server = Server::http(|request, _| async move {
            let head = format!(
                "{} {} {:?}",
                request.method(),
                request.uri(),
                request.headers()["host"]
            );
            let body = request.into_body().collect().await.unwrap().to_bytes();
            answer(201, &format!("{head} {body:?}"))
        })
        .await;
        let lab = Lab::start(&reviews(server.port));
        let request = "POST /a?b=c HTTP/1.1\r\nHost: reviews:9080\r\nContent-Length: 3\r\n\r\nabc";
        let got = lab.exchange(REVIEWS, request).await;
        assert_eq!(got.status, 201);
        assert_eq!(got.text(), r#"POST /a?b=c "reviews:9080" b"abc""#);
        lab.expect_records(1, "201", "-").await;
        let (labels, _) = &lab.metrics("istio_requests_total")[0];
        for (name, value) in [
            ("reporter", "source"),
            ("source_workload_namespace", "default"),
            ("source_app", "client"),
            ("destination_app", "reviews"),
            ("destination_version", "v1"),
            ("destination_service", "reviews.default.svc.cluster.local"),
            ("destination_service_name", "reviews"),
            ("destination_service_namespace", "default"),
            ("request_protocol", "http"),
        ] {
            assert_eq!(labels[name], value, "{name}");
        }
    });
}

#[test]
fn connections_are_kept_on_both_sides() {
    run(async {
        let server =
            Server::http(|_, number| async move { answer(200, &number.to_string()) }).await;
        let lab = Lab::start(&reviews(server.port));
        let listener = lab.dial(REVIEWS);
        let mut client = TcpStream::connect(listener).await.unwrap();
        for number in 0..20 {
            client
                .write_all(get("reviews", "/").as_bytes())
                .await
                .unwrap();
            assert_eq!(read_answer(&mut client).await.text(), number.to_string());
        }
        assert_eq!(server.connections(), 1);
        // Another client takes the same connection: it is idle.
        let other = exchange(listener, &get("reviews", "/")).await;
        assert_eq!((other.text(), server.connections()), ("20", 1));
        lab.expect_records(21, "200", "-").await;
    });
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    run(async {
        let server =
            Server::http(|request, _| async move { answer(200, request.uri().path()) }).await;
        let lab = Lab::start(&reviews(server.port));
        let mut client = lab.connect(REVIEWS).await;
        let all: String = (0..50).map(|n| get("reviews", &format!("/{n}"))).collect();
        client.write_all(all.as_bytes()).await.unwrap();
        for n in 0..50 {
            assert_eq!(read_answer(&mut client).await.text(), format!("/{n}"));
        }
        lab.expect_records(50, "200", "-").await;
    });
}

#[test]
fn fields_of_one_hop_stay_on_it() {
    run(async {
        let server = Server::raw(|mut stream, _| async move {
            let head = read_head(&mut stream).await;
            for gone in ["connection", "keep-alive", "proxy-connection", "x-hop", "te"] {
                assert!(fields(&head, gone).is_empty(), "{gone} in {head}");
            }
            assert_eq!(fields(&head, "x-end"), ["kept"]);
            assert_eq!(fields(&head, "host"), ["reviews:9080"]);
            let answer = "HTTP/1.1 200 OK\r\nConnection: x-mine, close\r\nX-Mine: 1\r\nKeep-Alive: max=5\r\n\
                          X-Theirs: 2\r\nContent-Length: 0\r\n\r\n";
            stream.write_all(answer.as_bytes()).await.unwrap();
        })
        .await;
        let lab = Lab::start(&reviews(server.port));
        let mut client = lab.connect(REVIEWS).await;
        let request = "GET / HTTP/1.1\r\nHost: reviews:9080\r\nConnection: keep-alive, X-Hop, Host\r\n\
                       X-Hop: gone\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nTE: gzip\r\n\
                       X-End: kept\r\n\r\n";
        for _ in 0..2 {
            // The server's `close` is about its own connection, not the client's.
            client.write_all(request.as_bytes()).await.unwrap();
            let got = read_answer(&mut client).await;
            assert_eq!(got.status, 200);
            assert!(got.fields("connection").is_empty() && got.fields("keep-alive").is_empty());
            assert!(got.fields("x-mine").is_empty());
            assert_eq!(got.fields("x-theirs"), ["2"]);
        }
        assert_eq!(server.connections(), 2);
    });
}

#[test]
fn answers_without_a_body_have_none() {
    run(async {
        let server = Server::raw(|mut stream, _| async move {
            loop {
                let head = read_head(&mut stream).await;
                let answer: &[u8] = match head.split(' ').nth(1).unwrap() {
                    "/head" => b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n",
                    "/204" => b"HTTP/1.1 204 No Content\r\n\r\n",
                    "/304" => b"HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\nETag: x\r\n\r\n",
                    "/early" => b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
                    _ => return,
                };
                stream.write_all(answer).await.unwrap();
            }
        })
        .await;
        let lab = Lab::start(&reviews(server.port));
        let mut client = lab.connect(REVIEWS).await;
        client
            .write_all(b"HEAD /head HTTP/1.1\r\nhost: reviews\r\n\r\n")
            .await
            .unwrap();
        let head = read_head(&mut client).await;
        assert_eq!(fields(&head, "content-length"), ["1000"]);
        client
            .write_all(get("reviews", "/204").as_bytes())
            .await
            .unwrap();
        assert!(read_head(&mut client).await.starts_with("HTTP/1.1 204"));
        client
            .write_all(get("reviews", "/304").as_bytes())
            .await
            .unwrap();
        let head = read_head(&mut client).await;
        assert_eq!(
            (
                fields(&head, "etag"),
                fields(&head, "transfer-encoding").len()
            ),
            (vec!["x"], 0)
        );
        client
            .write_all(get("reviews", "/early").as_bytes())
            .await
            .unwrap();
        assert_eq!(read_answer(&mut client).await.text(), "ok");
        assert_eq!(server.connections(), 1, "none of them broke the framing");
    });
}

#[test]
fn an_http_1_0_client_is_answered_and_its_connection_closed() {
    run(async {
        let server = Server::http(|request, _| async move {
            assert_eq!(request.version(), http::Version::HTTP_11);
            http::Response::new(frames(["ab", "cd"].map(|part| Frame::data(part.into()))))
        })
        .await;
        let lab = Lab::start(&reviews(server.port));
        let got = lab
            .exchange(REVIEWS, "GET / HTTP/1.0\r\nHost: reviews\r\n\r\n")
            .await;
        assert_eq!(got.text(), "abcd");
        assert!(got.fields("transfer-encoding").is_empty());
        // Without a Host it can only mean whom it dialled.
        let got = lab.exchange(REVIEWS, "GET / HTTP/1.0\r\n\r\n").await;
        assert_eq!(got.text(), "abcd");
    });
}

#[test]
fn trailers_pass_both_ways() {
    run(async {
        let server = Server::http(|request, _| async move {
            assert_eq!(request.headers()["te"], "trailers");
            let collected = request.into_body().collect().await.unwrap();
            assert_eq!(collected.trailers().unwrap()["x-sum"], "abc");
            let mut trailers = http::HeaderMap::new();
            trailers.insert("x-check", "7".parse().unwrap());
            let body = frames([Frame::data("body".into()), Frame::trailers(trailers)]);
            let mut answer = http::Response::new(body);
            answer
                .headers_mut()
                .insert("trailer", "x-check".parse().unwrap());
            answer
        })
        .await;
        let lab = Lab::start(&reviews(server.port));
        let request = "POST / HTTP/1.1\r\nHost: reviews\r\nTE: trailers\r\nConnection: TE\r\nTrailer: x-sum\r\n\
                       Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-sum: abc\r\n\r\n";
        let got = lab.exchange(REVIEWS, request).await;
        assert_eq!(got.text(), "4\r\nbody\r\n0\r\nx-check: 7\r\n\r\n");
    });
}

#[test]
fn what_is_not_a_request_is_answered_400_and_recorded() {
    run(async {
        let server = Server::http(|_, _| async { answer(200, "") }).await;
        for (number, bad) in [
            "nonsense\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
        ]
        .into_iter()
        .enumerate()
        {
            let lab = Lab::start(&reviews(server.port));
            assert_eq!(
                lab.exchange(REVIEWS, bad).await.status,
                400,
                "request {number}"
            );
            lab.expect_records(1, "400", "DPE").await;
        }
        assert_eq!(server.requests(), 0);
    });
}

#[test]
fn a_connection_that_the_server_closed_idle_is_not_used() {
    run(async {
        let server = Server::raw(|mut stream, _| async move {
            read_head(&mut stream).await;
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                .await
                .unwrap();
        })
        .await;
        let lab = Lab::start(&reviews(server.port));
        let listener = lab.dial(REVIEWS);
        for number in 1..=5 {
            let got = exchange(
                listener,
                "POST / HTTP/1.1\r\nhost: reviews\r\ncontent-length: 0\r\n\r\n",
            )
            .await;
            assert_eq!(got.status, 200);
            assert_eq!(server.connections(), number);
        }
    });
}

#[test]
fn a_get_that_met_a_closing_connection_is_sent_again_and_a_post_is_not() {
    run(async {
        // The first request of a connection is answered, the second one meets its end.
        let server = Server::raw(|mut stream, _| async move {
            read_head(&mut stream).await;
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                .await
                .unwrap();
            read_head(&mut stream).await;
        })
        .await;
        let lab = Lab::start(&reviews(server.port));
        let listener = lab.dial(REVIEWS);
        assert_eq!(exchange(listener, &get("reviews", "/1")).await.status, 200);
        let again = exchange(listener, &get("reviews", "/2")).await;
        assert_eq!(
            (again.status, again.text(), server.connections()),
            (200, "ok", 2)
        );
        let post = "POST / HTTP/1.1\r\nhost: reviews\r\ncontent-length: 1\r\n\r\nx";
        assert_eq!(exchange(listener, post).await.status, 503);
        assert_eq!(server.connections(), 2);
        eventually("three records", || lab.recorded("503", "UC") == (3, 1)).await;
    });
}

#[test]
fn a_client_that_leaves_is_recorded_and_its_request_cancelled() {
    run(async {
        let (closed, saw) = tokio::sync::oneshot::channel();
        let closed = std::cell::Cell::new(Some(closed));
        let server = Server::raw(move |mut stream, _| {
            let closed = closed.take().unwrap();
            async move {
                read_head(&mut stream).await;
                let n = stream.read(&mut [0; 16]).await.unwrap_or(0);
                closed.send(n).unwrap();
            }
        })
        .await;
        let lab = Lab::start(&reviews(server.port));
        let mut client = lab.connect(REVIEWS).await;
        client
            .write_all(get("reviews", "/").as_bytes())
            .await
            .unwrap();
        eventually("the server has it", || server.connections() == 1).await;
        drop(client);
        assert_eq!(saw.await.unwrap(), 0, "the upstream connection is closed");
        lab.expect_records(1, "0", "DC").await;
    });
}

#[test]
fn a_client_that_leaves_in_mid_upload_is_recorded_as_gone() {
    run(async {
        let server = Server::raw(|mut stream, _| async move {
            read_head(&mut stream).await;
            // Whatever comes of the body, it is not all of it.
            let mut body = Vec::new();
            let _ = stream.read_to_end(&mut body).await;
            assert!(body.len() < 100);
        })
        .await;
        let lab = Lab::start(&reviews(server.port));
        let mut client = lab.connect(REVIEWS).await;
        let half = "POST / HTTP/1.1\r\nhost: reviews\r\ncontent-length: 100\r\n\r\nhalf";
        client.write_all(half.as_bytes()).await.unwrap();
        eventually("the server has it", || server.connections() == 1).await;
        drop(client);
        eventually("the record", || lab.recorded("0", "DC").0 == 1).await;
        let (labels, _) = &lab.metrics("istio_requests_total")[0];
        assert_eq!(labels["response_flags"], "DC");
    });
}

#[test]
fn an_answer_that_breaks_off_breaks_off_for_the_client_too() {
    run(async {
        let server = Server::raw(|mut stream, _| async move {
            read_head(&mut stream).await;
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
                .await
                .unwrap();
        })
        .await;
        let lab = Lab::start(&reviews(server.port));
        let mut client = lab.connect(REVIEWS).await;
        client
            .write_all(get("reviews", "/").as_bytes())
            .await
            .unwrap();
        read_head(&mut client).await;
        let mut body = Vec::new();
        // Reset or end: not ten bytes.
        let _ = client.read_to_end(&mut body).await;
        assert_eq!(body, b"half");
        lab.expect_records(1, "200", "UC").await;
    });
}

#[test]
fn an_upstream_that_speaks_no_http_is_a_bad_gateway() {
    run(async {
        let server = Server::raw(|mut stream, _| async move {
            read_head(&mut stream).await;
            stream
                .write_all(b"220 smtp.example ESMTP\r\n")
                .await
                .unwrap();
        })
        .await;
        let lab = Lab::start(&reviews(server.port));
        assert_eq!(
            lab.exchange(REVIEWS, &get("reviews", "/")).await.status,
            502
        );
        lab.expect_records(1, "502", "UPE").await;
    });
}
