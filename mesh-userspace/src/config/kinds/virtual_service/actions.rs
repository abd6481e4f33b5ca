//! What a route does with a request besides forwarding it: redirect, answer, rewrite, fail.

use super::matching;
use crate::config::{
    fields::{Cursor, Fields, Parsed},
    model::{DirectResponse, FaultAbort, FaultDelay, HttpFault, HttpRedirect, HttpRewrite},
};

/// The largest body of a direct response, in bytes, as in Istio.
const MAX_BODY: usize = 1 << 20;

/// Reads a redirect; `None` where it would be wrong without an unsupported field.
pub fn redirect(cursor: &Cursor<'_>) -> Parsed<Option<HttpRedirect>> {
    let fields = cursor.fields()?;
    let code = fields.optional("redirectCode", |code| match code.integer(0..=999)? {
        // An unset field of the protocol's.
        0 => Ok(301),
        301 | 302 | 303 | 307 | 308 => code.integer(301..=308),
        other => Err(code.reject(format!("is {other}, but must be 301, 302, 303, 307 or 308"))),
    })?;
    let filled = |name| -> Parsed<Option<String>> {
        Ok(fields
            .optional(name, Cursor::string)?
            .filter(|text| !text.is_empty()))
    };
    let redirect = HttpRedirect {
        uri: filled("uri")?,
        authority: filled("authority")?,
        scheme: fields.optional("scheme", |scheme| {
            Ok(scheme
                .one_of(&[("http", "http"), ("https", "https")])?
                .to_owned())
        })?,
        port: fields.optional("port", Cursor::port)?,
        code: code.map_or(301, |code| {
            u16::try_from(code).expect("invariant: one of five status codes")
        }),
    };
    let unsupported = fields.any_unsupported(&["derivePort", "prefixRewrite"]);
    fields.finish();
    if unsupported {
        return Ok(None);
    }
    if redirect.uri.is_none()
        && redirect.authority.is_none()
        && redirect.scheme.is_none()
        && redirect.port.is_none()
    {
        return Err(
            cursor.reject("changes nothing: it needs `uri`, `authority`, `scheme` or `port`")
        );
    }
    Ok(Some(redirect))
}

/// Reads a direct response; `None` where its body is not supported.
pub fn direct_response(cursor: &Cursor<'_>) -> Parsed<Option<DirectResponse>> {
    let fields = cursor.fields()?;
    let status = fields.required("status", status)?;
    let mut supported = true;
    let body = fields.optional("body", |body| {
        let fields = body.fields()?;
        let text = fields.optional("string", Cursor::string)?;
        supported = !fields.unsupported("bytes");
        fields.finish();
        match text {
            Some(text) if text.len() > MAX_BODY => {
                Err(body.reject("is larger than 1 MiB: let a service answer instead"))
            }
            text => Ok(text),
        }
    })?;
    fields.finish();
    Ok(supported.then_some(DirectResponse {
        status,
        body: body.flatten(),
    }))
}

/// A status code that ends an exchange.
fn status(cursor: &Cursor<'_>) -> Parsed<u16> {
    let status = cursor.integer(200..=599)?;
    Ok(u16::try_from(status).expect("invariant: the range was checked"))
}

/// Reads a rewrite.
pub fn rewrite(cursor: &Cursor<'_>) -> Parsed<HttpRewrite> {
    let fields = cursor.fields()?;
    let filled = |name| -> Parsed<Option<String>> {
        Ok(fields
            .optional(name, Cursor::string)?
            .filter(|text| !text.is_empty()))
    };
    let rewrite = HttpRewrite {
        uri: filled("uri")?,
        uri_regex: fields.optional("uriRegexRewrite", regex_rewrite)?,
        authority: filled("authority")?,
    };
    fields.finish();
    if let Some(authority) = &rewrite.authority
        && http::uri::Authority::try_from(authority.as_str()).is_err()
    {
        let reason = format!("{authority:?} is no host, or host and port");
        return Err(fields.reject_at("authority", reason));
    }
    if rewrite.uri.is_some() && rewrite.uri_regex.is_some() {
        return Err(fields.reject_at("uriRegexRewrite", "can't be combined with `uri`"));
    }
    if rewrite.uri.is_none() && rewrite.uri_regex.is_none() && rewrite.authority.is_none() {
        return Err(
            cursor.reject("changes nothing: it needs `uri`, `uriRegexRewrite` or `authority`")
        );
    }
    Ok(rewrite)
}

fn regex_rewrite(cursor: &Cursor<'_>) -> Parsed<(regex::Regex, String)> {
    let fields = cursor.fields()?;
    let pattern = fields.required("match", |cursor| {
        matching::compile(cursor, &cursor.filled_string()?)
    })?;
    let rewrite = fields.required("rewrite", |cursor| {
        replacement(&cursor.string()?, pattern.captures_len()).map_err(|text| cursor.reject(text))
    })?;
    fields.finish();
    Ok((pattern, rewrite))
}

/// RE2's replacement (`\1`, `\\`) in the regex crate's syntax (`${1}`, `$$`).
fn replacement(written: &str, groups: usize) -> Result<String, String> {
    let mut text = String::with_capacity(written.len());
    let mut rest = written.chars();
    while let Some(c) = rest.next() {
        match c {
            '$' => text.push_str("$$"),
            '\\' => match rest.next() {
                Some('\\') => text.push('\\'),
                Some(digit @ '0'..='9') => {
                    let group = digit as usize - '0' as usize;
                    if group >= groups {
                        return Err(format!(
                            "names group \\{group}, but `match` has {}",
                            groups - 1
                        ));
                    }
                    text.extend(["${", group.to_string().as_str(), "}"]);
                }
                _ => return Err("a `\\` must precede a digit or another `\\`".to_owned()),
            },
            c => text.push(c),
        }
    }
    Ok(text)
}

/// Reads a fault.
pub fn fault(cursor: &Cursor<'_>) -> Parsed<HttpFault> {
    let fields = cursor.fields()?;
    let fault = HttpFault {
        delay: fields.optional("delay", delay)?.flatten(),
        abort: fields.optional("abort", abort)?.flatten(),
    };
    if fields.get("delay").is_none() && fields.get("abort").is_none() {
        return Err(cursor.reject("injects nothing: it needs `delay` or `abort`"));
    }
    fields.finish();
    Ok(fault)
}

fn delay(cursor: &Cursor<'_>) -> Parsed<Option<FaultDelay>> {
    let fields = cursor.fields()?;
    let duration = fields.optional("fixedDelay", Cursor::duration)?;
    let exponential = fields.unsupported("exponentialDelay");
    let percentage = percentage(&fields)?;
    fields.finish();
    match duration {
        Some(duration) => Ok(Some(FaultDelay {
            duration,
            percentage,
        })),
        None if exponential => Ok(None),
        None => Err(fields.reject_at("fixedDelay", "is missing: say how long, `fixedDelay: 5s`")),
    }
}

fn abort(cursor: &Cursor<'_>) -> Parsed<Option<FaultAbort>> {
    let fields = cursor.fields()?;
    let status = fields.optional("httpStatus", status)?;
    let other = fields.any_unsupported(&["grpcStatus", "http2Error"]);
    let percentage = percentage(&fields)?;
    fields.finish();
    match status {
        Some(_) if other => Err(fields.reject_at(
            "httpStatus",
            "can't be combined with `grpcStatus` or `http2Error`: keep one of them",
        )),
        Some(status) => Ok(Some(FaultAbort { status, percentage })),
        None if other => Ok(None),
        None => Err(fields.reject_at("httpStatus", "is missing: say which, `httpStatus: 503`")),
    }
}

/// `percentage: {value: 12.5}`, or the old `percent: 12`; 0 where both are absent.
fn percentage(fields: &Fields<'_>) -> Parsed<f64> {
    let value = fields.optional("percentage", |cursor| {
        let inner = cursor.fields().map_err(|mut rejection| {
            rejection.reason.push_str(": `percentage: {value: 10}`");
            rejection
        })?;
        let value = inner.optional("value", |value| value.number(0.0..=100.0))?;
        inner.finish();
        Ok(value.unwrap_or(0.0))
    })?;
    let old = fields.optional("percent", |cursor| {
        cursor.context().warn(format!(
            "`{}` (line {}) is deprecated: write `percentage: {{value: …}}`",
            cursor.path(),
            cursor.line()
        ));
        let percent = cursor.integer(0..=100)?;
        Ok(u8::try_from(percent).expect("invariant: the range was checked"))
    })?;
    match (value, old) {
        (Some(value), _) => Ok(value),
        (None, Some(old)) => Ok(f64::from(old)),
        (None, None) => {
            fields.context().warn(format!(
                "`{}` (line {}) has no `percentage`: it is never injected",
                fields.path(),
                fields.line()
            ));
            Ok(0.0)
        }
    }
}
