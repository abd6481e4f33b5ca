//! Heads as the next hop must see them: fields of this hop taken out, target and Host in the form that the
//! upstream's version wants.

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, Version,
    header::{CONNECTION, HOST, TE, TRANSFER_ENCODING, UPGRADE},
    response,
    uri::{Authority, PathAndQuery, Scheme},
};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");

/// The Host that a request names: in its target, else in its Host field. `Err`: a field that is missing
/// where HTTP/1.1 asks for one, doubled, or unreadable (RFC 9112, 3.2).
pub fn authority<B>(request: &Request<B>) -> Result<Option<&str>, &'static str> {
    if let Some(authority) = request.uri().authority() {
        return Ok(Some(authority.as_str()));
    }
    let mut hosts = request.headers().get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().map(Some).map_err(|_| "unreadable Host"),
        (None, _) if request.version() == Version::HTTP_11 => Err("no Host"),
        (None, _) => Ok(None),
        (Some(_), Some(_)) => Err("more than one Host"),
    }
}

/// What the Connection field says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Connection {
    #[default]
    Absent,
    /// `keep-alive` or `close` and nothing else: it names no other field.
    Plain,
    Listing,
}

/// What one pass over a head found, so that the usual request looks up nothing that is not there.
#[derive(Debug, Clone, Copy, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "which fields there are: independent facts"
)]
pub struct Survey {
    /// Bytes of the fields as HTTP/1.1 writes them.
    pub size: u64,
    /// `application/grpc…`.
    pub grpc: bool,
    /// `Expect: 100-continue`.
    pub expects_continue: bool,
    connection: Connection,
    /// `Keep-Alive` or `Proxy-Connection`.
    keep_alive: bool,
    te: bool,
    upgrade: bool,
}

impl Survey {
    /// Looks at every field once.
    pub fn of(headers: &HeaderMap) -> Self {
        let mut survey = Self::default();
        for (name, value) in headers {
            let name = name.as_str();
            survey.size += (name.len() + value.len() + 4) as u64;
            // By length first: most fields are none of these.
            match name.len() {
                2 => survey.te |= name == "te",
                6 => {
                    survey.expects_continue |=
                        name == "expect" && value.as_bytes().eq_ignore_ascii_case(b"100-continue");
                }
                7 => survey.upgrade |= name == "upgrade",
                10 => {
                    if name == "connection" {
                        survey.connection = match (survey.connection, value.as_bytes()) {
                            (Connection::Absent, b"keep-alive" | b"close") => Connection::Plain,
                            _ => Connection::Listing,
                        };
                    }
                    survey.keep_alive |= name == "keep-alive";
                }
                12 => {
                    survey.grpc |=
                        name == "content-type" && value.as_bytes().starts_with(b"application/grpc");
                }
                16 => survey.keep_alive |= name == "proxy-connection",
                _ => {}
            }
        }
        survey
    }
}

/// Takes out what is between the client and the proxy only (RFC 9110, 7.6.1). What asks for an upgrade
/// stays: the upstream decides about it.
pub fn strip_request(headers: &mut HeaderMap, survey: &Survey, http2: bool) {
    if http2 {
        headers.remove(TRANSFER_ENCODING);
    }
    let connection = survey.connection != Connection::Absent;
    if !(connection || survey.keep_alive || survey.te || survey.upgrade) {
        return;
    }
    let upgrade = (survey.upgrade && !http2 && lists(headers, "upgrade"))
        .then(|| headers.get(UPGRADE).cloned())
        .flatten();
    let trailers = survey.te
        && headers.get_all(TE).iter().any(|te| {
            te.to_str()
                .is_ok_and(|te| tokens(te).any(|token| token.eq_ignore_ascii_case("trailers")))
        });
    strip(headers, survey);
    headers.remove(TE);
    headers.remove(UPGRADE);
    if trailers {
        headers.insert(TE, TRAILERS);
        if !http2 {
            headers.append(CONNECTION, HeaderValue::from_static("te"));
        }
    }
    if let Some(upgrade) = upgrade {
        headers.insert(UPGRADE, upgrade);
        headers.append(CONNECTION, HeaderValue::from_static("upgrade"));
    }
}

/// As [`strip_request`] for an answer. `http2` is the client's version.
pub fn strip_response(parts: &mut response::Parts, survey: &Survey, http2: bool) {
    if parts.status == StatusCode::SWITCHING_PROTOCOLS {
        return;
    }
    strip(&mut parts.headers, survey);
    if http2 {
        parts.headers.remove(TRANSFER_ENCODING);
    }
}

fn strip(headers: &mut HeaderMap, survey: &Survey) {
    match survey.connection {
        Connection::Absent => {}
        Connection::Plain => {
            headers.remove(CONNECTION);
        }
        Connection::Listing => remove_listed(headers),
    }
    if survey.keep_alive {
        headers.remove(KEEP_ALIVE);
        headers.remove(PROXY_CONNECTION);
    }
}

#[cold]
fn remove_listed(headers: &mut HeaderMap) {
    let listed: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(tokens)
        .filter_map(|token| token.parse().ok())
        // Framing and routing fields are not the client's to take out.
        .filter(|name| ![TRANSFER_ENCODING, HOST, http::header::CONTENT_LENGTH].contains(name))
        .collect();
    headers.remove(CONNECTION);
    for name in listed {
        headers.remove(name);
    }
}

fn lists(headers: &HeaderMap, token: &str) -> bool {
    headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(tokens)
        .any(|listed| listed.eq_ignore_ascii_case(token))
}

fn tokens(list: &str) -> impl Iterator<Item = &str> {
    list.split(',')
        .map(str::trim)
        .filter(|token| !token.is_empty())
}

/// Gives a request the form that HTTP/1.1 wants: a path as target, the host in its field.
pub fn for_http1<B>(request: &mut Request<B>) -> Result<(), &'static str> {
    *request.version_mut() = Version::HTTP_11;
    if request.method() == Method::CONNECT {
        return Ok(());
    }
    if let Some(authority) = request.uri().authority() {
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| "unreadable authority")?;
        request.headers_mut().insert(HOST, host);
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
    }
    Ok(())
}

/// Gives a request the form that HTTP/2 wants: scheme and authority in its target, no Host.
pub fn for_http2<B>(request: &mut Request<B>, fallback: &str) -> Result<(), &'static str> {
    *request.version_mut() = Version::HTTP_2;
    let host = request.headers_mut().remove(HOST);
    let whole = request.uri().authority().is_some() && request.uri().scheme().is_some();
    if whole || request.method() == Method::CONNECT {
        return Ok(());
    }
    let mut target = std::mem::take(request.uri_mut()).into_parts();
    if target.authority.is_none() {
        let host = host
            .as_ref()
            .map_or(fallback.as_bytes(), HeaderValue::as_bytes);
        target.authority = Some(Authority::try_from(host).map_err(|_| "unreadable Host")?);
    }
    target.scheme = Some(Scheme::HTTP);
    target
        .path_and_query
        .get_or_insert(PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from_parts(target).map_err(|_| "unreadable target")?;
    Ok(())
}
