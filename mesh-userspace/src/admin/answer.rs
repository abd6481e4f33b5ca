//! What the router answers, before it is an HTTP response.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use serde::{Deserialize, Serialize};

/// An error as JSON: what failed, and what to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Failure {
    /// What was tried, on what, and why it failed.
    pub error: String,
    /// What to do.
    pub mend: String,
}

/// A status, a content type and a body.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// `content-type`.
    pub content_type: &'static str,
    /// `allow`, for 405.
    pub allow: Option<&'static str>,
    /// The whole body.
    pub body: Bytes,
}

impl Answer {
    /// A body with its own content type.
    pub fn new(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self {
            status,
            content_type,
            allow: None,
            body: body.into(),
        }
    }

    /// Plain text.
    pub fn text(status: StatusCode, body: impl Into<String>) -> Self {
        Self::new(status, "text/plain; charset=utf-8", body.into())
    }

    /// 200 with JSON.
    pub fn json(value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => Self::new(StatusCode::OK, "application/json", body),
            Err(e) => Self::failure(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("writing the answer as JSON: {e}"),
                "this is a bug in the agent: please report it",
            ),
        }
    }

    /// An error as JSON.
    pub fn failure(status: StatusCode, error: impl Into<String>, mend: impl Into<String>) -> Self {
        let failure = Failure {
            error: error.into(),
            mend: mend.into(),
        };
        let body = serde_json::to_vec(&failure).expect("invariant: two strings are valid JSON");
        Self::new(status, "application/json", body)
    }

    /// Says which method is allowed.
    pub fn allowing(mut self, methods: &'static str) -> Self {
        self.allow = Some(methods);
        self
    }
}

impl From<Answer> for Response<Full<Bytes>> {
    fn from(answer: Answer) -> Self {
        let mut response = Response::new(Full::new(answer.body));
        *response.status_mut() = answer.status;
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static(answer.content_type),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        );
        if let Some(allow) = answer.allow {
            headers.insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        response
    }
}
