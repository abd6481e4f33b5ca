//! ratings: `GET /ratings/ID`, and the flaws that rules are there to mend.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::json;

use super::{book_id, healthy, not_found};
use crate::http as web;

/// How many request ids are remembered.
const REMEMBERED: usize = 100_000;

/// What is wrong with a ratings server.
#[derive(Clone, Debug, Default)]
pub struct Flaw {
    /// The first so many tries of each `x-request-id` fail with 503.
    pub fail_first: u32,
    /// Every so manieth request fails with 503; 0: none.
    pub fail_every: u64,
    /// Every answer comes so late.
    pub delay: Duration,
}

#[derive(Clone, Debug)]
pub(super) struct Ratings {
    flaw: Flaw,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug, Default)]
struct Seen {
    total: u64,
    tries: HashMap<Vec<u8>, u32>,
}

impl Ratings {
    pub(super) fn new(flaw: Flaw) -> Self {
        Self {
            flaw,
            seen: Arc::default(),
        }
    }

    pub(super) async fn answer(&self, request: Request<Incoming>) -> Response<web::Body> {
        let path = request.uri().path();
        if path == "/health" {
            return healthy("Ratings");
        }
        let Some(id) = book_id(path, "/ratings/") else {
            return not_found(path);
        };
        let id: u64 = id.parse().unwrap_or_default();
        if !self.flaw.delay.is_zero() {
            tokio::time::sleep(self.flaw.delay).await;
        }
        let request_id = request.headers().get("x-request-id");
        if self.fails(request_id.map_or(&b""[..], |id| id.as_bytes())) {
            return web::json(
                StatusCode::SERVICE_UNAVAILABLE,
                &json!({"error": "Service unavailable"}),
            );
        }
        web::json(
            StatusCode::OK,
            &json!({"id": id, "ratings": {"Reviewer1": 5, "Reviewer2": 4}}),
        )
    }

    fn fails(&self, request_id: &[u8]) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.total += 1;
        if self.flaw.fail_every > 0 && seen.total.is_multiple_of(self.flaw.fail_every) {
            return true;
        }
        if self.flaw.fail_first == 0 {
            return false;
        }
        if seen.tries.len() >= REMEMBERED {
            seen.tries.clear();
        }
        let tries = seen.tries.entry(request_id.to_owned()).or_default();
        *tries += 1;
        *tries <= self.flaw.fail_first
    }
}
