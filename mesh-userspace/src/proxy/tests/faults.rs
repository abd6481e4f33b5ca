//! Faults that rules ask for.

use std::time::{Duration, Instant};

use super::{
    harness::{Lab, Manifests, run},
    server::{Server, answer},
    wire::get,
};

const RATINGS: &str = "10.96.0.2:9080";

fn ratings(port: u16, fault: &str) -> Manifests {
    Manifests::new()
        .service("ratings", RATINGS, "http")
        .backend("ratings", "http", "v1", port)
        .virtual_service(
            "ratings",
            &format!(
                "[{{fault: {fault}, timeout: 10s, retries: {{attempts: 3, retryOn: 5xx}}, \
                 route: [{{destination: {{host: ratings}}}}]}}]"
            ),
        )
}

#[test]
fn an_abort_is_answered_by_the_mesh_and_not_retried() {
    run(async {
        let server = Server::http(|_, _| async { answer(200, "") }).await;
        let lab = Lab::start(&ratings(
            server.port,
            "{abort: {httpStatus: 500, percentage: {value: 100}}}",
        ));
        let got = lab.exchange(RATINGS, &get("ratings", "/")).await;
        assert_eq!(
            (got.status, got.text(), server.requests()),
            (500, "fault filter abort", 0)
        );
        lab.expect_records(1, "500", "FI").await;
    });
}

#[test]
fn a_delay_comes_before_the_server_is_asked() {
    run(async {
        let server = Server::http(|_, _| async { answer(200, "late") }).await;
        let lab = Lab::start(&ratings(
            server.port,
            "{delay: {fixedDelay: 80ms, percentage: {value: 100}}}",
        ));
        let started = Instant::now();
        let got = lab.exchange(RATINGS, &get("ratings", "/")).await;
        // A lower bound only: how much later depends on the machine.
        assert!(started.elapsed() >= Duration::from_millis(80));
        assert_eq!(got.text(), "late");
        lab.expect_records(1, "200", "DI").await;
    });
}

#[test]
fn a_delay_does_not_use_up_the_timeout_and_an_abort_follows_it() {
    run(async {
        let server = Server::http(|_, _| async { answer(200, "") }).await;
        let both = "{delay: {fixedDelay: 20ms, percent: 100}, abort: {httpStatus: 429, percentage: {value: 100}}}";
        let lab = Lab::start(&ratings(server.port, both));
        assert_eq!(
            lab.exchange(RATINGS, &get("ratings", "/")).await.status,
            429
        );
        lab.expect_records(1, "429", "DI,FI").await;
    });
}

#[test]
fn a_share_of_the_requests_is_aborted() {
    run(async {
        let server = Server::http(|_, _| async { answer(200, "") }).await;
        let lab = Lab::start(&ratings(
            server.port,
            "{abort: {httpStatus: 503, percentage: {value: 30}}}",
        ));
        let mut client = lab.connect(RATINGS).await;
        for _ in 0..500 {
            tokio::io::AsyncWriteExt::write_all(&mut client, get("ratings", "/").as_bytes())
                .await
                .unwrap();
            super::wire::read_answer(&mut client).await;
        }
        // 30 % of 500 is 150; ten standard deviations are 102.
        assert!(
            (248..=452).contains(&server.requests()),
            "{}",
            server.requests()
        );
        assert_eq!(
            lab.recorded("503", "FI").1 as usize,
            500 - server.requests()
        );
    });
}

#[test]
fn a_fault_holds_where_there_is_no_server_at_all() {
    run(async {
        let manifests = Manifests::new().service("ratings", RATINGS, "http").virtual_service(
            "ratings",
            "[{fault: {abort: {httpStatus: 500, percentage: {value: 100}}}, route: [{destination: {host: ratings}}]}]",
        );
        let lab = Lab::start(&manifests);
        assert_eq!(
            lab.exchange(RATINGS, &get("ratings", "/")).await.status,
            500
        );
        lab.expect_records(1, "500", "FI").await;
    });
}
