//! details: `GET /details/ID`.

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::json;

use super::{book_id, healthy, not_found};
use crate::http as web;

pub(super) fn answer(request: &Request<Incoming>) -> Response<web::Body> {
    let path = request.uri().path();
    if path == "/health" {
        return healthy("Details");
    }
    let Some(id) = book_id(path, "/details/") else {
        return not_found(path);
    };
    let id: u64 = id.parse().unwrap_or_default();
    web::json(
        StatusCode::OK,
        &json!({
            "id": id, "author": "William Shakespeare", "year": 1595, "type": "paperback",
            "pages": 200, "publisher": "PublisherA", "language": "English",
            "ISBN-10": "1234567890", "ISBN-13": "123-1234567890",
        }),
    )
}
