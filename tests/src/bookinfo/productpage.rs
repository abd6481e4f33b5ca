//! productpage: the page for people, `/api/v1/products…` for programs, and the login.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use http::header::{COOKIE, LOCATION, SET_COOKIE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::{ask, healthy, not_found};
use crate::http as web;

/// How long a backend may take.
const TIMEOUT: Duration = Duration::from_secs(3);
/// How often reviews are asked for, as the original does it.
const REVIEWS_TRIES: usize = 2;
const TITLE: &str = "The Comedy of Errors";
const DESCRIPTION: &str = "Two pairs of twins, separated in a storm and mistaken for one another \
                           all day long in Ephesus.";

#[derive(Clone, Debug)]
pub(super) struct Productpage {
    backends: Arc<Backends>,
}

#[derive(Debug)]
struct Backends {
    details: String,
    reviews: String,
    ratings: String,
}

impl Productpage {
    pub(super) fn new(details: String, reviews: String, ratings: String) -> Self {
        Self {
            backends: Arc::new(Backends {
                details,
                reviews,
                ratings,
            }),
        }
    }

    pub(super) async fn answer(&self, mut request: Request<Incoming>) -> Response<web::Body> {
        if let Some(user) = user_of(request.headers()) {
            request.headers_mut().insert("end-user", user);
        }
        let headers = request.headers();
        let path = request.uri().path().to_owned();
        match (request.method(), path.as_str()) {
            (&Method::GET, "/health") => healthy("Product page"),
            (&Method::GET, "/" | "/index.html" | "/productpage") => self.page(headers).await,
            (&Method::GET, "/api/v1/products") => web::json(StatusCode::OK, &json!([product()])),
            (&Method::GET, "/api/v1/products/0") => passed(self.details(headers).await, "details"),
            (&Method::GET, "/api/v1/products/0/reviews") => {
                passed(self.reviews(headers).await, "reviews")
            }
            (&Method::GET, "/api/v1/products/0/ratings") => {
                let ratings = ask(&self.backends.ratings, "/ratings/0", headers, TIMEOUT).await;
                passed(ratings.ok(), "ratings")
            }
            (&Method::POST, "/login") => login(request).await,
            (&Method::GET, "/logout") => redirect("session=; Max-Age=0; Path=/"),
            _ => not_found(&path),
        }
    }

    async fn details(&self, headers: &HeaderMap) -> Option<(StatusCode, Value)> {
        ask(&self.backends.details, "/details/0", headers, TIMEOUT)
            .await
            .ok()
    }

    async fn reviews(&self, headers: &HeaderMap) -> Option<(StatusCode, Value)> {
        let mut last = None;
        for _ in 0..REVIEWS_TRIES {
            last = ask(&self.backends.reviews, "/reviews/0", headers, TIMEOUT)
                .await
                .ok();
            if matches!(last, Some((StatusCode::OK, _))) {
                break;
            }
        }
        last
    }

    async fn page(&self, headers: &HeaderMap) -> Response<web::Body> {
        let (details, reviews) = tokio::join!(self.details(headers), self.reviews(headers));
        let user = headers.get("end-user").and_then(|user| user.to_str().ok());
        let html = render(
            user,
            succeeded(details.as_ref()),
            succeeded(reviews.as_ref()),
        );
        web::respond(StatusCode::OK, "text/html; charset=utf-8", html)
    }
}

fn succeeded(answer: Option<&(StatusCode, Value)>) -> Option<&Value> {
    answer
        .filter(|(status, _)| *status == StatusCode::OK)
        .map(|(_, body)| body)
}

fn product() -> Value {
    json!({"id": 0, "title": TITLE, "descriptionHtml": DESCRIPTION})
}

/// A backend's own status and JSON, or 500 where it did not answer.
fn passed(answer: Option<(StatusCode, Value)>, what: &str) -> Response<web::Body> {
    match answer {
        Some((status, body)) if status.is_success() => web::json(status, &body),
        Some((status, _)) => web::json(status, &json!({"error": format!("no {what}: {status}")})),
        None => web::json(
            StatusCode::INTERNAL_SERVER_ERROR,
            &json!({"error": format!("no {what}: no answer")}),
        ),
    }
}

/// Who is logged in: the session cookie's value.
fn user_of(headers: &HeaderMap) -> Option<HeaderValue> {
    let cookies = headers.get_all(COOKIE).iter();
    let mut pairs = cookies
        .filter_map(|value| value.to_str().ok())
        .flat_map(|line| line.split(';'));
    let user = pairs.find_map(|pair| pair.trim().strip_prefix("session="))?;
    HeaderValue::from_str(user)
        .ok()
        .filter(|user| !user.is_empty())
}

async fn login(request: Request<Incoming>) -> Response<web::Body> {
    let Ok(body) = request.into_body().collect().await else {
        return not_found("/login");
    };
    let form = String::from_utf8_lossy(&body.to_bytes()).into_owned();
    let user = form
        .split('&')
        .find_map(|pair| pair.strip_prefix("username="))
        .filter(|user| user.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    redirect(&format!("session={}; Path=/", user.unwrap_or_default()))
}

fn redirect(cookie: &str) -> Response<web::Body> {
    let mut response = web::respond(StatusCode::FOUND, "text/plain", "");
    let headers = response.headers_mut();
    headers.insert(LOCATION, HeaderValue::from_static("/productpage"));
    if let Ok(cookie) = HeaderValue::from_str(cookie) {
        headers.insert(SET_COOKIE, cookie);
    }
    response
}

fn render(user: Option<&str>, details: Option<&Value>, reviews: Option<&Value>) -> String {
    let mut html = format!("<!doctype html>\n<title>Bookinfo</title>\n<h1>{TITLE}</h1>\n");
    match user {
        Some(user) => {
            let _ = writeln!(html, "<p>Signed in as {}</p>", escape(user));
        }
        None => {
            html += "<form method=post action=login><input name=username> <button>Sign in</button></form>\n";
        }
    }
    let _ = writeln!(html, "<p>{DESCRIPTION}</p>\n<h2>Book details</h2>");
    if let Some(Value::Object(details)) = details {
        html += "<dl>\n";
        for (key, value) in details {
            let value = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            let _ = writeln!(html, "<dt>{}<dd>{}", escape(key), escape(&value));
        }
        html += "</dl>\n";
    } else {
        html += "<p>Error: no details for this book now.</p>\n";
    }
    html += "<h2>Book reviews</h2>\n";
    let Some(reviews) = reviews else {
        return html + "<p>Error: no reviews for this book now.</p>\n";
    };
    for review in reviews["reviews"].as_array().into_iter().flatten() {
        let text = review["text"].as_str().unwrap_or_default();
        let reviewer = review["reviewer"].as_str().unwrap_or_default();
        let _ = write!(
            html,
            "<blockquote>{}<footer>{}",
            escape(text),
            escape(reviewer)
        );
        let rating = &review["rating"];
        if let (Some(stars), Some(color)) = (rating["stars"].as_u64(), rating["color"].as_str()) {
            let stars = "★".repeat(stars.min(5) as usize);
            let _ = write!(
                html,
                " <span style=\"color:{}\">{stars}</span>",
                escape(color)
            );
        } else if rating["error"].is_string() {
            html += " <i>no ratings now</i>";
        }
        html += "</footer></blockquote>\n";
    }
    let pod = reviews["podname"].as_str().unwrap_or_default();
    html + &format!("<p>Reviews served by {}</p>\n", escape(pod))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
