//! `Expect: 100-continue`: the upstream decides whether the body is sent.

use std::{cell::RefCell, rc::Rc};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    harness::{Lab, Manifests, run},
    server::Server,
    wire::{read_answer, read_head},
};

const REVIEWS: &str = "10.96.0.1:9080";
const REQUEST: &[u8] =
    b"PUT / HTTP/1.1\r\nHost: reviews\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";

fn reviews(port: u16) -> Manifests {
    Manifests::new()
        .service("reviews", REVIEWS, "http")
        .backend("reviews", "http", "v1", port)
}

#[test]
fn the_client_hears_continue_only_after_the_upstream_said_it() {
    run(async {
        let order = Rc::new(RefCell::new(Vec::new()));
        let (go, wait) = tokio::sync::oneshot::channel::<()>();
        let wait = std::cell::Cell::new(Some(wait));
        let seen = order.clone();
        let server = Server::raw(move |mut stream, _| {
            let (wait, seen) = (wait.take().unwrap(), seen.clone());
            async move {
                let head = read_head(&mut stream).await;
                assert!(head.contains("100-continue"), "{head}");
                seen.borrow_mut().push("upstream has the head");
                wait.await.unwrap();
                seen.borrow_mut().push("upstream says continue");
                stream
                    .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")
                    .await
                    .unwrap();
                let mut body = [0; 5];
                stream.read_exact(&mut body).await.unwrap();
                assert_eq!(&body, b"hello");
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                    .await
                    .unwrap();
            }
        })
        .await;
        let lab = Lab::start(&reviews(server.port));
        let mut client = lab.connect(REVIEWS).await;
        client.write_all(REQUEST).await.unwrap();
        super::harness::eventually("the head arrives", || !order.borrow().is_empty()).await;
        go.send(()).unwrap();
        assert!(read_head(&mut client).await.starts_with("HTTP/1.1 100"));
        order.borrow_mut().push("client hears continue");
        client.write_all(b"hello").await.unwrap();
        assert_eq!(read_answer(&mut client).await.status, 200);
        let order = order.take();
        assert_eq!(
            order[..],
            [
                "upstream has the head",
                "upstream says continue",
                "client hears continue"
            ]
        );
        lab.expect_records(1, "200", "-").await;
    });
}

#[test]
fn a_refusal_reaches_the_client_without_a_continue() {
    run(async {
        let server = Server::raw(|mut stream, _| async move {
            read_head(&mut stream).await;
            stream
                .write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
                .await
                .unwrap();
            // Nothing of the body may come.
            assert_eq!(stream.read(&mut [0; 8]).await.unwrap_or(0), 0);
        })
        .await;
        let lab = Lab::start(&reviews(server.port));
        let mut client = lab.connect(REVIEWS).await;
        client.write_all(REQUEST).await.unwrap();
        let got = read_answer(&mut client).await;
        assert_eq!((got.status, got.text()), (413, "no"));
    });
}

#[test]
fn an_upstream_that_leaves_continue_out_gets_the_body_all_the_same() {
    run(async {
        let server = Server::raw(|mut stream, _| async move {
            read_head(&mut stream).await;
            let mut body = [0; 5];
            stream.read_exact(&mut body).await.unwrap();
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                .await
                .unwrap();
        })
        .await;
        let lab = Lab::start(&reviews(server.port));
        let mut client = lab.connect(REVIEWS).await;
        client.write_all(REQUEST).await.unwrap();
        client.write_all(b"hello").await.unwrap();
        assert!(read_head(&mut client).await.starts_with("HTTP/1.1 100"));
        assert_eq!(read_answer(&mut client).await.status, 200);
    });
}
