//! reviews: `GET /reviews/ID`, without stars (v1), with black (v2) or red ones (v3).

use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::{ask, book_id, healthy, not_found};
use crate::http as web;

/// How long ratings may take; longer than any delay that the demo injects.
const RATINGS_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Clone, Debug)]
pub(super) struct Reviews {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    pod: String,
    stars: Option<(String, String)>,
}

impl Reviews {
    pub(super) fn new(pod: String, stars: Option<(String, String)>) -> Self {
        Self {
            inner: Arc::new(Inner { pod, stars }),
        }
    }

    pub(super) async fn answer(&self, request: Request<Incoming>) -> Response<web::Body> {
        let path = request.uri().path();
        if path == "/health" {
            return healthy("Reviews");
        }
        let Some(id) = book_id(path, "/reviews/") else {
            return not_found(path);
        };
        let mut reviews = [
            json!({"reviewer": "Reviewer1", "text": "Quick, bright, and funnier than it has any right to be."}),
            json!({"reviewer": "Reviewer2", "text": "Fun throughout, if a little thin beside the late plays."}),
        ];
        if let Some((ratings, color)) = &self.inner.stars {
            let path = format!("/ratings/{id}");
            let answer = ask(ratings, &path, request.headers(), RATINGS_TIMEOUT).await;
            for review in &mut reviews {
                review["rating"] = rating_of(&review["reviewer"], answer.as_ref().ok(), color);
            }
        }
        web::json(
            StatusCode::OK,
            &json!({
                "id": id, "podname": self.inner.pod, "clustername": "null", "reviews": reviews,
            }),
        )
    }
}

fn rating_of(reviewer: &Value, answer: Option<&(StatusCode, Value)>, color: &str) -> Value {
    let stars = answer
        .filter(|(status, _)| *status == StatusCode::OK)
        .and_then(|(_, body)| body["ratings"][reviewer.as_str()?].as_u64());
    match stars {
        Some(stars) => json!({"stars": stars, "color": color}),
        None => json!({"error": "Ratings service is currently unavailable"}),
    }
}
