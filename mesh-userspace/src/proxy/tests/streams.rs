//! Large bodies: streamed, not gathered.

use std::{cell::Cell, rc::Rc, time::Duration};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    harness::{Lab, Manifests, run},
    server::Server,
    wire::{get, read_answer, read_head},
};

const REVIEWS: &str = "10.96.0.1:9080";
const TOTAL: usize = 256 * 1024 * 1024;
/// Socket buffers on both sides of the proxy and what it holds itself; far from the total.
const HELD: usize = 64 * 1024 * 1024;

fn reviews(port: u16) -> Manifests {
    Manifests::new()
        .service("reviews", REVIEWS, "http")
        .backend("reviews", "http", "v1", port)
}

/// Waits until a counter stands still.
async fn stands_still(counter: &Cell<usize>) -> usize {
    let (mut last, mut same) = (0, 0);
    while same < 25 {
        tokio::time::sleep(Duration::from_millis(4)).await;
        let now = counter.get();
        same = if now == last && now > 0 { same + 1 } else { 0 };
        last = now;
    }
    last
}

/// Position-stamped bytes, so that loss and disorder show.
fn block(start: usize, buf: &mut [u8]) {
    for (offset, word) in buf.chunks_exact_mut(8).enumerate() {
        word.copy_from_slice(&((start / 8 + offset) as u64).to_ne_bytes());
    }
}

async fn send(stream: &mut (impl AsyncWriteExt + Unpin), counter: &Cell<usize>) {
    let mut buf = vec![0; 64 * 1024];
    for start in (0..TOTAL).step_by(buf.len()) {
        block(start, &mut buf);
        stream.write_all(&buf).await.unwrap();
        counter.set(start + buf.len());
    }
}

async fn receive(stream: &mut (impl AsyncReadExt + Unpin)) {
    let mut buf = vec![0; 64 * 1024];
    let mut expected = vec![0; 64 * 1024];
    for start in (0..TOTAL).step_by(buf.len()) {
        stream.read_exact(&mut buf).await.unwrap();
        block(start, &mut expected);
        assert!(buf == expected, "other bytes at {start}");
    }
}

#[test]
fn a_slow_reader_holds_the_server_back_and_gets_every_byte() {
    run(async {
        let sent = Rc::new(Cell::new(0));
        let counter = sent.clone();
        let server = Server::raw(move |mut stream, _| {
            let counter = counter.clone();
            async move {
                read_head(&mut stream).await;
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {TOTAL}\r\n\r\n");
                stream.write_all(head.as_bytes()).await.unwrap();
                send(&mut stream, &counter).await;
            }
        })
        .await;
        let lab = Lab::start(&reviews(server.port));
        let mut client = lab.connect(REVIEWS).await;
        client
            .write_all(get("reviews", "/").as_bytes())
            .await
            .unwrap();
        let held = stands_still(&sent).await;
        assert!(
            held < HELD,
            "{held} bytes were taken for a client that reads nothing"
        );
        read_head(&mut client).await;
        receive(&mut client).await;
        lab.expect_records(1, "200", "-").await;
        let bytes = lab.metrics("istio_response_bytes_sum")[0].1 as usize;
        assert!((TOTAL..TOTAL + 1000).contains(&bytes), "{bytes}");
    });
}

#[test]
fn a_slow_server_holds_the_client_back_and_gets_every_byte() {
    run(async {
        let (go, wait) = tokio::sync::oneshot::channel::<()>();
        let wait = Cell::new(Some(wait));
        let server = Server::raw(move |mut stream, _| {
            let wait = wait.take().unwrap();
            async move {
                read_head(&mut stream).await;
                wait.await.unwrap();
                receive(&mut stream).await;
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                    .await
                    .unwrap();
            }
        })
        .await;
        let lab = Lab::start(&reviews(server.port));
        let mut client = lab.connect(REVIEWS).await;
        let head = format!("PUT / HTTP/1.1\r\nHost: reviews\r\nContent-Length: {TOTAL}\r\n\r\n");
        client.write_all(head.as_bytes()).await.unwrap();
        let sent = Cell::new(0);
        let (mut reader, mut writer) = client.split();
        let upload = send(&mut writer, &sent);
        let watch = async {
            let held = stands_still(&sent).await;
            assert!(
                held < HELD,
                "{held} bytes were taken for a server that reads nothing"
            );
            go.send(()).unwrap();
        };
        tokio::join!(upload, watch);
        let mut answer = Vec::new();
        while !answer.ends_with(b"ok") {
            answer.push(reader.read_u8().await.unwrap());
        }
        lab.expect_records(1, "200", "-").await;
        let bytes = lab.metrics("istio_request_bytes_sum")[0].1 as usize;
        assert!((TOTAL..TOTAL + 1000).contains(&bytes), "{bytes}");
    });
}

#[test]
fn an_answer_may_start_before_the_request_has_ended() {
    run(async {
        let server = Server::raw(|mut stream, _| async move {
            read_head(&mut stream).await;
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                .await
                .unwrap();
            // Each byte of the request is answered by a chunk before the next one is sent.
            for _ in 0..50 {
                let byte = stream.read_u8().await.unwrap();
                let chunk = [b"1\r\n", [byte, b'\r', b'\n'].as_slice()].concat();
                stream.write_all(&chunk).await.unwrap();
            }
            stream.write_all(b"0\r\n\r\n").await.unwrap();
            // The connection can be used again.
            read_head(&mut stream).await;
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nagain")
                .await
                .unwrap();
        })
        .await;
        let lab = Lab::start(&reviews(server.port));
        let mut client = lab.connect(REVIEWS).await;
        client
            .write_all(b"POST / HTTP/1.1\r\nHost: reviews\r\nContent-Length: 50\r\n\r\n")
            .await
            .unwrap();
        read_head(&mut client).await;
        for byte in 0..50 {
            client.write_all(&[byte]).await.unwrap();
            let mut chunk = [0; 6];
            client.read_exact(&mut chunk).await.unwrap();
            assert_eq!(chunk[3], byte);
        }
        let mut end = [0; 5];
        client.read_exact(&mut end).await.unwrap();
        client
            .write_all(get("reviews", "/").as_bytes())
            .await
            .unwrap();
        assert_eq!(read_answer(&mut client).await.text(), "again");
        assert_eq!(server.connections(), 1);
    });
}
