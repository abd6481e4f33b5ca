//! The server over loopback, with a state made for the test.

mod running;

use std::sync::{Arc, atomic::Ordering};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use self::running::{Fake, Running};
use super::{AdminError, Server, router};

#[tokio::test]
async fn health_and_readiness_are_two_things() {
    let fake = Arc::new(Fake::ready());
    let server = Running::start(fake.clone()).await;
    assert_eq!(server.get("/readyz").await.status, 200);
    fake.ready.store(false, Ordering::Relaxed);
    let unready = server.get("/readyz").await;
    assert_eq!(
        (unready.status, unready.body.as_str()),
        (503, "default/a is not enrolled yet\n")
    );
    assert_eq!(server.get("/healthz").await.status, 200);
    let status = server.get("/status").await.json();
    assert_eq!(status["ready"], false);
    assert_eq!(status["notReadyReason"], "default/a is not enrolled yet");
    assert_eq!(status["snapshot"], 7);
    assert_eq!(
        status["config"],
        json!({"applied": 1, "rejected": 0, "ignored": 0, "warnings": 1, "unsupported": 0})
    );
    server.stop().await;
}

#[tokio::test]
async fn metrics_come_in_the_form_that_the_scraper_accepts() {
    let server = Running::start(Arc::new(Fake::ready())).await;
    let cases = [
        ("", "up 1\n", "text/plain; version=0.0.4"),
        ("accept: text/plain\r\n", "up 1\n", "text/plain"),
        (
            "accept: application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.1\r\n",
            "# EOF\n",
            "application/openmetrics-text; version=1.0.0",
        ),
        (
            "accept: application/openmetrics-text;q=0,text/plain\r\n",
            "up 1\n",
            "text/plain",
        ),
    ];
    for (accept, body, content_type) in cases {
        let reply = server.ask("GET", "/metrics", accept, "").await;
        assert_eq!(reply.body, body, "{accept}");
        assert!(
            reply
                .head
                .contains(&format!("content-type: {content_type}")),
            "{}",
            reply.head
        );
    }
    server.stop().await;
}

#[tokio::test]
async fn errors_are_json_with_a_mend() {
    let server = Running::start(Arc::new(Fake::ready())).await;
    assert_eq!(
        server.get("/nothing").await.failure(),
        (404, "/nothing: no such path".into())
    );
    let reply = server.ask("POST", "/status", "", "{}").await;
    assert_eq!(reply.failure().0, 405);
    assert!(reply.head.contains("allow: get"), "{}", reply.head);
    assert_eq!(
        server
            .ask("DELETE", "/acceleration", "", "")
            .await
            .failure()
            .0,
        405
    );
    let (status, error) = server.get("/connections").await.failure();
    assert_eq!(status, 503);
    assert!(
        error.starts_with("reading the open connections: "),
        "{error}"
    );
    server.stop().await;
}

#[tokio::test]
async fn the_kill_switch_answers_with_how_it_stands() {
    let fake = Arc::new(Fake::ready());
    let server = Running::start(fake.clone()).await;
    let reply = server
        .ask("POST", "/acceleration", "", r#"{"state":"off"}"#)
        .await;
    assert_eq!(reply.json(), json!({"state": "off", "reason": "asked for"}));
    assert!(!fake.accelerated.load(Ordering::Relaxed));
    for wrong in ["", "on", r#"{"state":"maybe"}"#, r#"{"state":"on","x":1}"#] {
        assert_eq!(
            server
                .ask("POST", "/acceleration", "", wrong)
                .await
                .failure()
                .0,
            400,
            "{wrong}"
        );
    }
    assert!(!fake.accelerated.load(Ordering::Relaxed));
    server.stop().await;

    let server = Running::start(Arc::new(Fake {
        locked: true,
        ..Fake::ready()
    }))
    .await;
    let (status, error) = server
        .ask("POST", "/acceleration", "", r#"{"state":"on"}"#)
        .await
        .failure();
    assert_eq!(status, 409);
    assert!(
        error.contains("this kernel failed the self-test"),
        "{error}"
    );
    server.stop().await;
}

#[tokio::test]
async fn the_page_lists_what_is_there_and_escapes_what_it_shows() {
    let server = Running::start(Arc::new(Fake::ready())).await;
    let page = server.get("/").await;
    assert_eq!(page.status, 200);
    assert!(
        page.head.contains("content-type: text/html"),
        "{}",
        page.head
    );
    assert!(page.body.contains("&lt;node&gt;") && !page.body.contains("<node>"));
    for (path, ..) in router::ENDPOINTS {
        assert!(
            page.body.contains(&format!("<code>{path}</code>")),
            "{path}"
        );
    }
    server.stop().await;
}

#[tokio::test]
async fn every_path_that_is_listed_is_answered() {
    let server = Running::start(Arc::new(Fake::ready())).await;
    for (path, method, _) in router::ENDPOINTS {
        let status = server.ask(method, path, "", "").await.status;
        assert!(status != 404 && status != 405, "{method} {path}: {status}");
    }
    server.stop().await;
}

#[tokio::test]
async fn the_dump_has_the_snapshot_and_the_state_of_each_object() {
    let server = Running::start(Arc::new(Fake::ready())).await;
    let dump = server.get("/config_dump").await.json();
    assert_eq!(dump["version"], 7);
    assert_eq!(dump["domain"], "cluster.local");
    for list in ["services", "workloads", "routes", "policies"] {
        assert_eq!(dump[list], json!([]), "{list}");
    }
    assert_eq!(dump["objects"][0]["file"], "a.yaml");
    assert_eq!(dump["objects"], server.get("/config").await.json());
    server.stop().await;
}

#[tokio::test]
async fn a_question_that_cannot_be_answered_is_refused_with_its_reason() {
    let server = Running::start(Arc::new(Fake::ready())).await;
    let unknown = r#"{"from": "default/nobody", "url": "http://a/"}"#;
    let (status, error) = server.ask("POST", "/explain", "", unknown).await.failure();
    assert_eq!(status, 404);
    assert!(error.contains("default/nobody"), "{error}");
    for wrong in [
        "",
        "[]",
        "{}",
        r#"{"from": "default/a"}"#,
        r#"{"from": "a", "url": "http://a/"}"#,
        r#"{"from": "default/a", "url": "http://a/", "method": 1}"#,
    ] {
        let (status, _) = server.ask("POST", "/explain", "", wrong).await.failure();
        assert_eq!(status, 400, "{wrong}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_page_in_the_browser_cannot_reach_the_agent() {
    let server = Running::start(Arc::new(Fake::ready())).await;
    let off = r#"{"state":"off"}"#;
    let foreign = server
        .ask(
            "POST",
            "/acceleration",
            "origin: http://evil.example\r\n",
            off,
        )
        .await;
    assert_eq!(foreign.failure().0, 403);
    let own = format!("origin: http://{}\r\n", server.address);
    assert_eq!(
        server.ask("POST", "/acceleration", &own, off).await.status,
        200
    );
    let rebound = server
        .raw("GET /config_dump HTTP/1.1\r\nhost: evil.example:15000\r\nconnection: close\r\n\r\n")
        .await;
    assert!(rebound.starts_with("HTTP/1.1 403 "), "{rebound}");
    for name in ["localhost", "LOCALHOST:15000", "[::1]:15000"] {
        let request = format!("GET /healthz HTTP/1.1\r\nhost: {name}\r\nconnection: close\r\n\r\n");
        let answer = server.raw(&request).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{name}: {answer}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused() {
    let server = Running::start(Arc::new(Fake::ready())).await;
    let reply = server
        .raw(&format!(
            "POST /explain HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n",
            1 << 30
        ))
        .await;
    assert!(reply.starts_with("HTTP/1.1 413 "), "{reply}");
    let chunk = "1000\r\n".to_owned() + &"x".repeat(0x1000) + "\r\n";
    let reply = server
        .raw(&format!(
            "POST /explain HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n{}",
            chunk.repeat(80)
        ))
        .await;
    assert!(
        reply.starts_with("HTTP/1.1 413 ") || reply.is_empty(),
        "{reply}"
    );
    assert_eq!(server.get("/healthz").await.status, 200);
    server.stop().await;
}

#[tokio::test]
async fn what_is_no_http_ends_its_own_connection_only() {
    let server = Running::start(Arc::new(Fake::ready())).await;
    let answer = server.raw("\x16\x03\x01 this is no HTTP\r\n\r\n").await;
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 400 "),
        "{answer}"
    );
    assert_eq!(server.get("/healthz").await.status, 200);
    server.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_sends_nothing_more_is_cut_off() {
    let server = Running::start(Arc::new(Fake::ready())).await;
    assert_eq!(server.raw("GET /healthz HTT").await, "");
    let body = "POST /explain HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n{";
    let answer = server.raw(body).await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn an_idle_connection_does_not_delay_the_stop() {
    let server = Running::start(Arc::new(Fake::ready())).await;
    let mut idle = TcpStream::connect(server.address)
        .await
        .expect("the server listens");
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await
        .expect("sent");
    let mut start = [0; 12];
    idle.read_exact(&mut start).await.expect("answered");
    assert_eq!(&start, b"HTTP/1.1 200");
    server.stop().await;
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest)
        .await
        .expect("closed by the server");
}

#[tokio::test]
async fn a_port_in_use_says_what_to_do() {
    let first = Server::bind(([127, 0, 0, 1], 0).into())
        .await
        .expect("loopback");
    let error = Server::bind(first.address()).await.expect_err("in use");
    assert!(matches!(error, AdminError::InUse { .. }));
    assert_eq!(
        error.to_string(),
        format!(
            "--admin {}: address in use (os error 98): another agent? \
             choose another with --admin or MESH_ADMIN",
            first.address()
        )
    );
    let elsewhere = Server::bind(([192, 0, 2, 1], 0).into())
        .await
        .expect_err("not ours");
    assert!(matches!(elsewhere, AdminError::Bind { .. }), "{elsewhere}");
}
