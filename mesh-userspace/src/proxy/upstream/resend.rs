//! A request without content, from the bytes that were written of it.

use http::{HeaderName, HeaderValue, Method, Request, Uri, Version};

use super::super::body::RequestBody;

/// As many fields as hyper's own parser takes.
const FIELDS: usize = 100;

/// The request whose head this is; `None` unless the bytes are exactly one head.
pub fn parse(head: &[u8]) -> Option<Request<RequestBody>> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut parsed = httparse::Request::new(&mut fields);
    match parsed.parse(head) {
        Ok(httparse::Status::Complete(length)) if length == head.len() => {}
        _ => return None,
    }
    let mut request = Request::new(RequestBody::empty());
    *request.method_mut() = parsed.method?.parse::<Method>().ok()?;
    *request.uri_mut() = parsed.path?.parse::<Uri>().ok()?;
    *request.version_mut() = Version::HTTP_11;
    for field in parsed.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        let value = HeaderValue::from_bytes(field.value).ok()?;
        request.headers_mut().append(name, value);
    }
    Some(request)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_head_comes_back_as_the_request_that_it_was() {
        let request =
            parse(b"GET /a?b=c HTTP/1.1\r\nhost: x\r\nx-two: 1\r\nx-two: 2\r\n\r\n").unwrap();
        assert_eq!(request.method(), "GET");
        assert_eq!(request.uri(), "/a?b=c");
        assert_eq!(request.headers()["host"], "x");
        assert_eq!(request.headers().get_all("x-two").iter().count(), 2);
    }

    #[test]
    fn half_a_head_is_none() {
        assert!(parse(b"GET / HTTP/1.1\r\nhost: x\r\n").is_none());
    }
}
