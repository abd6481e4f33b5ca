//! Bookinfo, Istio's sample application: its paths and its JSON, in small servers of our own.
//!
//! ```text
//! productpage ── details
//!            └── reviews v1 | v2 (black stars) | v3 (red stars) ── ratings
//! ```
//!
//! The headers of a request that identify its user and its trace are passed on, as the original
//! does: rules match on `end-user` two hops further in.

use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};

use crate::http as web;
use crate::http::Body;

pub mod deploy;
mod details;
mod productpage;
mod ratings;
mod reviews;

pub use ratings::Flaw;

/// The port that every one of them listens on.
pub const PORT: u16 = 9080;

/// What is passed on from a request to those that it causes.
const PASSED_ON: [&str; 14] = [
    "end-user",
    "user-agent",
    "authorization",
    "cookie",
    "x-request-id",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "b3",
    "traceparent",
    "tracestate",
    "x-ot-span-context",
];

/// One of Bookinfo's servers.
#[derive(Clone, Debug)]
pub enum Server {
    /// The page and the API that call the others.
    Productpage {
        /// `host:port` of details.
        details: String,
        /// `host:port` of reviews.
        reviews: String,
        /// `host:port` of ratings.
        ratings: String,
    },
    /// What kind of book it is.
    Details,
    /// What readers say.
    Reviews {
        /// The name that it answers with.
        pod: String,
        /// `host:port` of ratings and the colour of the stars; `None`: v1, without stars.
        stars: Option<(String, String)>,
    },
    /// How many stars they give.
    Ratings(Flaw),
}

impl Server {
    /// Serves on `port`, for ever.
    pub async fn serve(self, port: u16) -> Result<()> {
        let listener = web::listen(port).await?;
        match self {
            Self::Details => {
                web::serve(listener, |request, _| {
                    std::future::ready(details::answer(&request))
                })
                .await
            }
            Self::Ratings(flaw) => {
                let ratings = ratings::Ratings::new(flaw);
                web::serve(listener, move |request, _| {
                    let ratings = ratings.clone();
                    async move { ratings.answer(request).await }
                })
                .await
            }
            Self::Reviews { pod, stars } => {
                let reviews = reviews::Reviews::new(pod, stars);
                web::serve(listener, move |request, _| {
                    let reviews = reviews.clone();
                    async move { reviews.answer(request).await }
                })
                .await
            }
            Self::Productpage {
                details,
                reviews,
                ratings,
            } => {
                let page = productpage::Productpage::new(details, reviews, ratings);
                web::serve(listener, move |request, _| {
                    let page = page.clone();
                    async move { page.answer(request).await }
                })
                .await
            }
        }
    }
}

/// The id at the end of `path` (`/reviews/0`) where it starts with `prefix`.
fn book_id<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    let id = path.strip_prefix(prefix)?;
    (!id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit())).then_some(id)
}

fn healthy(name: &str) -> Response<Body> {
    web::json(
        StatusCode::OK,
        &json!({"status": format!("{name} is healthy")}),
    )
}

fn not_found(path: &str) -> Response<Body> {
    web::json(
        StatusCode::NOT_FOUND,
        &json!({"error": format!("no such path: {path}")}),
    )
}

/// GETs `path` from `authority` with those of `headers` that are passed on: status and JSON.
async fn ask(
    authority: &str,
    path: &str,
    headers: &HeaderMap,
    timeout: Duration,
) -> Result<(StatusCode, Value)> {
    let mut request = Request::get(path).header(http::header::HOST, authority);
    for name in PASSED_ON {
        for value in headers.get_all(name) {
            request = request.header(name, value);
        }
    }
    let request = request.body(Full::new(Bytes::new()))?;
    let response = web::fetch(authority, request, timeout).await?;
    let body = serde_json::from_slice(response.body()).unwrap_or(Value::Null);
    Ok((response.status(), body))
}
