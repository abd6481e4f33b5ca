//! Pods that come and go, and the end.

use std::{cell::Cell, rc::Rc, time::Duration};

use http::Request;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    harness::{Lab, Manifests, eventually, run},
    server::{Server, answer, full},
    wire::{exchange, get, http2_client, read_answer},
};

const REVIEWS: &str = "10.96.0.1:9080";

fn reviews(port: u16) -> Manifests {
    Manifests::new()
        .service("reviews", REVIEWS, "http")
        .backend("reviews", "http", "v1", port)
}

/// A server that answers when it is told to.
async fn waiting() -> (Server, Rc<tokio::sync::Notify>) {
    let go = Rc::new(tokio::sync::Notify::new());
    let wait = go.clone();
    let server = Server::http(move |_, _| {
        let wait = wait.clone();
        async move {
            wait.notified().await;
            answer(200, "done")
        }
    })
    .await;
    (server, go)
}

#[test]
fn requests_under_way_finish_and_nothing_new_is_accepted() {
    run(async {
        let (server, go) = waiting().await;
        let lab = Lab::start(&reviews(server.port));
        let address = lab.dial(REVIEWS);
        let mut busy = tokio::net::TcpStream::connect(address).await.unwrap();
        busy.write_all(get("reviews", "/").as_bytes())
            .await
            .unwrap();
        let mut idle = tokio::net::TcpStream::connect(address).await.unwrap();
        eventually("the request is there", || server.requests() == 1).await;

        let drained = Cell::new(false);
        let drain = async {
            lab.proxy.drain().await;
            drained.set(true);
        };
        let client = async {
            assert_eq!(
                idle.read(&mut [0; 1]).await.unwrap(),
                0,
                "an idle connection is closed"
            );
            assert!(!drained.get());
            assert!(tokio::net::TcpStream::connect(address).await.is_err());
            go.notify_one();
            let got = read_answer(&mut busy).await;
            assert_eq!(
                (got.text(), got.fields("connection")),
                ("done", vec!["close"])
            );
            assert_eq!(busy.read(&mut [0; 1]).await.unwrap(), 0);
        };
        tokio::join!(drain, client);
        lab.expect_records(1, "200", "-").await;
        let Lab { proxy, .. } = lab;
        proxy.stop();
    });
}

#[test]
fn an_http2_client_is_told_to_go_away_and_its_stream_finishes() {
    run(async {
        let go = Rc::new(tokio::sync::Notify::new());
        let wait = go.clone();
        let server = Server::http2(move |_, _| {
            let wait = wait.clone();
            async move {
                wait.notified().await;
                answer(200, "done")
            }
        })
        .await;
        let lab = Lab::start(&reviews(server.port));
        let address = lab.dial(REVIEWS);
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let mut client = http2_client(stream).await;
        let request = Request::get("http://reviews:9080/").body(full("")).unwrap();
        let under_way = tokio::task::spawn_local(client.send_request(request));
        eventually("the request is there", || server.requests() == 1).await;

        let drained = Cell::new(false);
        let drain = async {
            lab.proxy.drain().await;
            drained.set(true);
        };
        let finish = async {
            while tokio::net::TcpStream::connect(address).await.is_ok() {
                tokio::task::yield_now().await;
            }
            assert!(!drained.get(), "it waits for the stream");
            go.notify_one();
            let got = under_way.await.unwrap().unwrap();
            let body = got.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body, "done");
        };
        tokio::join!(drain, finish);
        eventually("the connection ends", || client.is_closed()).await;
    });
}

#[test]
fn what_is_open_at_the_deadline_is_dropped() {
    run(async {
        let (server, _never) = waiting().await;
        let lab = Lab::start_with(&reviews(server.port), |config| {
            config.drain = Duration::from_millis(50);
        });
        let mut client = lab.connect(REVIEWS).await;
        client
            .write_all(get("reviews", "/").as_bytes())
            .await
            .unwrap();
        eventually("the request is there", || server.requests() == 1).await;
        lab.proxy.drain().await;
        assert_eq!(client.read(&mut [0; 1]).await.unwrap_or(0), 0);
        lab.expect_records(1, "0", "DC").await;
    });
}

#[test]
fn a_removed_pod_is_no_longer_served_and_others_are() {
    run(async {
        let server = Server::http(|_, _| async { answer(200, "") }).await;
        let lab = Lab::start(&reviews(server.port));
        let (gone, stays) = (lab.dial(REVIEWS), lab.dial(REVIEWS));
        let mut open = tokio::net::TcpStream::connect(gone).await.unwrap();
        open.write_all(get("reviews", "/").as_bytes())
            .await
            .unwrap();
        assert_eq!(read_answer(&mut open).await.status, 200);
        lab.proxy
            .remove_pod(&crate::mesh::testing::object_name("default/listener-0"));
        assert_eq!(open.read(&mut [0; 1]).await.unwrap(), 0);
        assert!(tokio::net::TcpStream::connect(gone).await.is_err());
        let mut other = tokio::net::TcpStream::connect(stays).await.unwrap();
        other
            .write_all(get("reviews", "/").as_bytes())
            .await
            .unwrap();
        assert_eq!(read_answer(&mut other).await.status, 200);
    });
}

#[test]
fn every_worker_serves_a_pod_from_a_listener_of_its_own() {
    run(async {
        let server = Server::http(|_, _| async { answer(200, "") }).await;
        let lab = Lab::start_with(&reviews(server.port), |config| config.workers = 3);
        let reusable = || {
            let kind = socket2::Type::STREAM;
            let socket = socket2::Socket::new(socket2::Domain::IPV4, kind, None).unwrap();
            socket.set_reuse_port(true).unwrap();
            socket
        };
        let first = reusable();
        let any: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
        first.bind(&any.into()).unwrap();
        let address = first.local_addr().unwrap();
        let mut listeners = vec![first, reusable(), reusable()];
        for listener in &listeners[1..] {
            listener.bind(&address).unwrap();
        }
        let listeners: Vec<std::net::TcpListener> = listeners
            .drain(..)
            .map(|listener| {
                listener.listen(64).unwrap();
                listener.into()
            })
            .collect();
        let source = crate::mesh::testing::object_name("default/client");
        let mut pod = crate::proxy::PodSockets::new(source.clone());
        pod.handle = Some(std::sync::Arc::new(
            REVIEWS.parse::<std::net::SocketAddr>().unwrap(),
        ));
        lab.proxy.add_pod(&pod, &source, listeners).unwrap();
        let address = address.as_socket().unwrap();
        for _ in 0..30 {
            let got = exchange(address, &get("reviews", "/")).await;
            assert_eq!(got.status, 200);
        }
        // The kernel spreads the clients; each worker keeps a connection of its own.
        assert!(server.connections() > 1, "{}", server.connections());
        lab.expect_records(30, "200", "-").await;

        let none = lab.proxy.add_pod(&pod, &source, Vec::new()).unwrap_err();
        assert_eq!(none.to_string(), "pod default/client: no listener");
    });
}
