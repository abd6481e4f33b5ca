//! Retries and timeouts, counted where they arrive.

use std::{net::Ipv4Addr, time::Duration};

use http_body_util::BodyExt;
use tokio::io::AsyncReadExt;

use super::{
    harness::{Lab, Manifests, run},
    server::{Server, answer},
    wire::{get, read_head},
};

const RATINGS: &str = "10.96.0.2:9080";

fn ratings(port: u16, policy: &str) -> Manifests {
    Manifests::new()
        .service("ratings", RATINGS, "http")
        .backend("ratings", "http", "v1", port)
        .virtual_service(
            "ratings",
            &format!("[{{route: [{{destination: {{host: ratings}}}}], {policy}}}]"),
        )
}

/// Fails so many times, then says what it got.
async fn flaky(failures: usize) -> Server {
    Server::http(move |request, number| async move {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        if number < failures {
            return answer(503, "not now");
        }
        answer(200, &format!("{} bytes", body.len()))
    })
    .await
}

#[test]
fn a_flaky_server_is_asked_again() {
    run(async {
        let server = flaky(2).await;
        let lab = Lab::start(&ratings(
            server.port,
            "retries: {attempts: 3, retryOn: 5xx}",
        ));
        let got = lab.exchange(RATINGS, &get("ratings", "/")).await;
        assert_eq!((got.status, server.requests()), (200, 3));
        lab.expect_records(1, "200", "-").await;
    });
}

#[test]
fn attempts_are_extra_tries_and_the_last_answer_is_passed_on() {
    run(async {
        let server = flaky(100).await;
        let lab = Lab::start(&ratings(
            server.port,
            "retries: {attempts: 3, retryOn: gateway-error}",
        ));
        let got = lab.exchange(RATINGS, &get("ratings", "/")).await;
        assert_eq!(
            (got.status, got.text(), server.requests()),
            (503, "not now", 4)
        );
        lab.expect_records(1, "503", "URX").await;
    });
}

#[test]
fn without_a_condition_that_names_it_nothing_is_retried() {
    run(async {
        let server = flaky(1).await;
        for policy in [
            "retries: {attempts: 3, retryOn: connect-failure}",
            "retries: {attempts: 0}",
        ] {
            let lab = Lab::start(&ratings(server.port, policy));
            let before = server.requests();
            lab.exchange(RATINGS, &get("ratings", "/")).await;
            assert_eq!(server.requests() - before, 1, "{policy}");
        }
        // Nor by the mesh's default: 503 is not among its conditions.
        let server = flaky(1).await;
        let lab = Lab::start(&ratings(server.port, "timeout: 10s"));
        assert_eq!(
            lab.exchange(RATINGS, &get("ratings", "/")).await.status,
            503
        );
        assert_eq!(server.requests(), 1);
    });
}

#[test]
fn a_body_is_sent_again_as_it_was() {
    run(async {
        let server = flaky(2).await;
        let lab = Lab::start(&ratings(
            server.port,
            "retries: {attempts: 2, retryOn: '503'}",
        ));
        let body = "x".repeat(60_000);
        let request =
            format!("POST / HTTP/1.1\r\nHost: ratings\r\nContent-Length: 60000\r\n\r\n{body}");
        let got = lab.exchange(RATINGS, &request).await;
        assert_eq!((got.text(), server.requests()), ("60000 bytes", 3));
    });
}

#[test]
fn a_body_beyond_the_bound_is_sent_once() {
    run(async {
        let server = flaky(1).await;
        let lab = Lab::start(&ratings(
            server.port,
            "retries: {attempts: 2, retryOn: 5xx}",
        ));
        let body = "x".repeat(70_000);
        let request =
            format!("POST / HTTP/1.1\r\nHost: ratings\r\nContent-Length: 70000\r\n\r\n{body}");
        let got = lab.exchange(RATINGS, &request).await;
        assert_eq!((got.status, server.requests()), (503, 1));
        lab.expect_records(1, "503", "-").await;
    });
}

#[test]
fn a_server_that_never_answers_is_given_up_after_each_tries_time() {
    run(async {
        let server = Server::raw(|mut stream, _| async move {
            // Until the proxy gives up.
            let _ = stream.read_to_end(&mut Vec::new()).await;
        })
        .await;
        let policy = "retries: {attempts: 2, perTryTimeout: 50ms, retryOn: 5xx}";
        let lab = Lab::start(&ratings(server.port, policy));
        let got = lab.exchange(RATINGS, &get("ratings", "/")).await;
        assert_eq!((got.status, got.text()), (504, "upstream request timeout"));
        assert_eq!(server.connections(), 3);
        lab.expect_records(1, "504", "UT,URX").await;
    });
}

#[test]
fn the_timeout_is_for_all_tries_together() {
    run(async {
        let server = Server::raw(|mut stream, _| async move {
            let _ = stream.read_to_end(&mut Vec::new()).await;
        })
        .await;
        let policy = "timeout: 120ms, retries: {attempts: 1000, perTryTimeout: 50ms, retryOn: 5xx}";
        let lab = Lab::start(&ratings(server.port, policy));
        assert_eq!(
            lab.exchange(RATINGS, &get("ratings", "/")).await.status,
            504
        );
        assert!(
            (2..=3).contains(&server.connections()),
            "{}",
            server.connections()
        );
        lab.expect_records(1, "504", "UT").await;
    });
}

#[test]
fn a_timeout_cuts_an_answer_that_stalls() {
    run(async {
        let server = Server::raw(|mut stream, _| async move {
            read_head(&mut stream).await;
            let half = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf";
            tokio::io::AsyncWriteExt::write_all(&mut stream, half)
                .await
                .unwrap();
            let _ = stream.read_to_end(&mut Vec::new()).await;
        })
        .await;
        let lab = Lab::start(&ratings(server.port, "timeout: 100ms"));
        let mut client = lab.connect(RATINGS).await;
        tokio::io::AsyncWriteExt::write_all(&mut client, get("ratings", "/").as_bytes())
            .await
            .unwrap();
        read_head(&mut client).await;
        let mut body = Vec::new();
        let _ = client.read_to_end(&mut body).await;
        assert_eq!(body, b"half");
        lab.expect_records(1, "200", "UT").await;
    });
}

#[test]
fn a_slow_upload_does_not_use_up_the_timeout() {
    run(async {
        let server = flaky(0).await;
        let lab = Lab::start(&ratings(server.port, "timeout: 100ms"));
        let mut client = lab.connect(RATINGS).await;
        let head = "POST / HTTP/1.1\r\nHost: ratings\r\nContent-Length: 4\r\n\r\n";
        tokio::io::AsyncWriteExt::write_all(&mut client, head.as_bytes())
            .await
            .unwrap();
        for byte in b"slow" {
            tokio::time::sleep(Duration::from_millis(60)).await;
            tokio::io::AsyncWriteExt::write_all(&mut client, &[*byte])
                .await
                .unwrap();
        }
        assert_eq!(
            super::wire::read_answer(&mut client).await.text(),
            "4 bytes"
        );
    });
}

#[test]
fn a_connect_that_fails_is_tried_at_another_endpoint() {
    run(async {
        let bound =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        bound
            .bind(&std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())
            .unwrap();
        let dead = bound.local_addr().unwrap().as_socket().unwrap().port();
        let server = flaky(0).await;
        let manifests = Manifests::new()
            .service("ratings", RATINGS, "http")
            .backend("ratings", "http", "v1", server.port)
            .backend("ratings", "http", "v2", dead);
        let lab = Lab::start(&manifests);
        let mut client = lab.connect(RATINGS).await;
        // A retry draws up to five times to find an endpoint that was not tried, and there are two of them.
        let mut failed = 0;
        for _ in 0..50 {
            let post = b"POST / HTTP/1.1\r\nHost: ratings\r\nContent-Length: 2\r\n\r\nhi";
            tokio::io::AsyncWriteExt::write_all(&mut client, post)
                .await
                .unwrap();
            let got = super::wire::read_answer(&mut client).await;
            failed += usize::from(got.status != 200);
        }
        assert!(
            failed < 5,
            "{failed} of 50 failed with one of two endpoints alive"
        );
    });
}
