//! What rules say, as servers and clients see it.

use std::net::Ipv4Addr;

use super::{
    harness::{Lab, Manifests, run},
    server::{Server, answer},
    wire::get,
};

const REVIEWS: &str = "10.96.0.1:9080";

/// A server that says its name, the path and the fields that rules may touch.
async fn named(name: &'static str) -> Server {
    Server::http(move |request, _| async move {
        let field = |name| {
            let all = request.headers().get_all(name).iter();
            all.map(|value| value.to_str().unwrap().to_owned())
                .collect::<Vec<_>>()
                .join("+")
        };
        let seen = format!(
            "{name} {} {} [{}]",
            field("host"),
            request.uri(),
            field("x-rule")
        );
        let mut answer = answer(200, &seen);
        answer
            .headers_mut()
            .insert("x-server", "1".parse().unwrap());
        answer
    })
    .await
}

fn reviews(port: u16) -> Manifests {
    Manifests::new()
        .service("reviews", REVIEWS, "http")
        .backend("reviews", "http", "v1", port)
}

#[test]
fn a_header_picks_the_subset() {
    run(async {
        let (v1, v2) = (named("v1").await, named("v2").await);
        let manifests = reviews(v1.port)
            .backend("reviews", "http", "v2", v2.port)
            .subsets("reviews", &["v1", "v2"])
            .virtual_service(
                "reviews",
                "[{match: [{headers: {end-user: {exact: jason}}}], \
                   route: [{destination: {host: reviews, subset: v2}}]}, \
                  {route: [{destination: {host: reviews, subset: v1}}]}]",
            );
        let lab = Lab::start(&manifests);
        let jason = "GET / HTTP/1.1\r\nHost: reviews:9080\r\nend-user: jason\r\n\r\n";
        for _ in 0..10 {
            assert!(lab.exchange(REVIEWS, jason).await.text().starts_with("v2"));
            assert!(
                lab.exchange(REVIEWS, &get("reviews:9080", "/"))
                    .await
                    .text()
                    .starts_with("v1")
            );
        }
    });
}

#[test]
fn weights_share_the_requests() {
    run(async {
        let (v1, v2) = (named("v1").await, named("v2").await);
        let manifests = reviews(v1.port)
            .backend("reviews", "http", "v2", v2.port)
            .subsets("reviews", &["v1", "v2"])
            .virtual_service(
                "reviews",
                "[{route: [{destination: {host: reviews, subset: v1}, weight: 80}, \
                           {destination: {host: reviews, subset: v2}, weight: 20}]}]",
            );
        let lab = Lab::start(&manifests);
        let mut client = lab.connect(REVIEWS).await;
        for _ in 0..1000 {
            tokio::io::AsyncWriteExt::write_all(&mut client, get("reviews", "/").as_bytes())
                .await
                .unwrap();
            super::wire::read_answer(&mut client).await;
        }
        assert_eq!(v1.requests() + v2.requests(), 1000);
        // Ten standard deviations.
        assert!(
            (75..325).contains(&v2.requests()),
            "{} of 1000",
            v2.requests()
        );
    });
}

#[test]
fn endpoints_without_a_rule_share_the_requests() {
    run(async {
        let (one, two) = (named("one").await, named("two").await);
        let manifests = reviews(one.port).backend("reviews", "http", "v2", two.port);
        let lab = Lab::start(&manifests);
        for _ in 0..60 {
            lab.exchange(REVIEWS, &get("reviews", "/")).await;
        }
        assert!(
            one.requests() > 5 && two.requests() > 5,
            "{} {}",
            one.requests(),
            two.requests()
        );
    });
}

#[test]
fn path_host_and_fields_are_rewritten() {
    run(async {
        let server = named("v1").await;
        let manifests = reviews(server.port).virtual_service(
            "reviews",
            "[{match: [{uri: {prefix: /api}}], rewrite: {uri: /v1, authority: ratings.example}, \
               headers: {request: {set: {x-rule: set}, add: {x-rule: added}}, \
                         response: {set: {x-answer: yes-it-is}, remove: [x-server]}}, \
               route: [{destination: {host: reviews}}]}]",
        );
        let lab = Lab::start(&manifests);
        let request = "GET /api/x?q=1 HTTP/1.1\r\nHost: reviews\r\nx-rule: own\r\n\r\n";
        let got = lab.exchange(REVIEWS, request).await;
        assert_eq!(got.text(), "v1 ratings.example /v1/x?q=1 [set+added]");
        assert_eq!(
            (got.fields("x-answer"), got.fields("x-server").len()),
            (vec!["yes-it-is"], 0)
        );
        // A target in absolute form names its host itself.
        let request = "GET http://reviews/api/x HTTP/1.1\r\nHost: other\r\n\r\n";
        assert_eq!(
            lab.exchange(REVIEWS, request).await.text(),
            "v1 ratings.example /v1/x [set+added]"
        );
    });
}

#[test]
fn the_mesh_answers_redirects_and_direct_responses_itself() {
    run(async {
        let server = named("v1").await;
        let manifests = reviews(server.port).virtual_service(
            "reviews",
            "[{match: [{uri: {prefix: /old}}], redirect: {uri: /new, redirectCode: 308}}, \
              {match: [{uri: {exact: /direct}}], directResponse: {status: 418, body: {string: teapot}}}]",
        );
        let lab = Lab::start(&manifests);
        let got = lab.exchange(REVIEWS, &get("reviews:9080", "/old")).await;
        assert_eq!(
            (got.status, got.fields("location")),
            (308, vec!["http://reviews:9080/new"])
        );
        let got = lab.exchange(REVIEWS, &get("reviews", "/direct")).await;
        assert_eq!((got.status, got.text()), (418, "teapot"));
        assert_eq!(server.requests(), 0);
    });
}

#[test]
fn what_has_no_route_is_404() {
    run(async {
        let server = named("v1").await;
        let manifests = reviews(server.port).virtual_service(
            "reviews",
            "[{match: [{uri: {prefix: /only}}], route: [{destination: {host: reviews}}]}]",
        );
        let lab = Lab::start(&manifests);
        assert_eq!(
            lab.exchange(REVIEWS, &get("reviews", "/other"))
                .await
                .status,
            404
        );
        lab.expect_records(1, "404", "NR").await;
    });
}

#[test]
fn an_unknown_subset_is_503_nc() {
    run(async {
        let server = named("v1").await;
        let manifests = reviews(server.port).virtual_service(
            "reviews",
            "[{route: [{destination: {host: reviews, subset: nope}}]}]",
        );
        let lab = Lab::start(&manifests);
        assert_eq!(
            lab.exchange(REVIEWS, &get("reviews", "/")).await.status,
            503
        );
        lab.expect_records(1, "503", "NC").await;
    });
}

#[test]
fn a_service_without_endpoints_is_503_uh() {
    run(async {
        let lab = Lab::start(&Manifests::new().service("reviews", REVIEWS, "http"));
        let got = lab.exchange(REVIEWS, &get("reviews", "/")).await;
        assert_eq!((got.status, got.text()), (503, "no healthy upstream"));
        lab.expect_records(1, "503", "UH").await;
    });
}

#[test]
fn an_endpoint_that_refuses_is_503_uf() {
    run(async {
        // Bound, not listening: nobody else gets the port, and it refuses.
        let bound =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        bound
            .bind(&std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())
            .unwrap();
        let port = bound.local_addr().unwrap().as_socket().unwrap().port();
        let lab = Lab::start(&reviews(port));
        assert_eq!(
            lab.exchange(REVIEWS, &get("reviews", "/")).await.status,
            503
        );
        // The mesh's default is to retry a connect twice.
        lab.expect_records(1, "503", "UF,URX").await;
    });
}

#[test]
fn an_unknown_host_goes_where_it_was_dialled() {
    run(async {
        let server = named("outside").await;
        let lab = Lab::start(&Manifests::new());
        let address = format!("127.0.0.1:{}", server.port);
        let got = lab.exchange(&address, &get("example.org", "/x")).await;
        assert_eq!(got.text(), "outside example.org /x []");
        lab.expect_records(1, "200", "-").await;
        let (labels, _) = &lab.metrics("istio_requests_total")[0];
        assert_eq!(labels["destination_service_name"], "PassthroughCluster");
    });
}

#[test]
fn a_new_rule_holds_for_the_next_request_of_an_open_connection() {
    run(async {
        let server = named("v1").await;
        let lab = Lab::start(&reviews(server.port));
        let mut client = lab.connect(REVIEWS).await;
        let mut ask = async || {
            tokio::io::AsyncWriteExt::write_all(&mut client, get("reviews", "/").as_bytes())
                .await
                .unwrap();
            super::wire::read_answer(&mut client).await.status
        };
        assert_eq!(ask().await, 200);
        let changed = reviews(server.port)
            .virtual_service("reviews", "[{directResponse: {status: 410}}]")
            .snapshot();
        lab.snapshots.store(std::sync::Arc::new(changed));
        assert_eq!(ask().await, 410);
    });
}
