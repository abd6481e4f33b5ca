//! `retries` of a route.

use crate::config::{
    fields::{Cursor, Parsed},
    model::HttpRetry,
};

/// Envoy's conditions for HTTP and gRPC; status codes may stand beside them.
const CONDITIONS: [&str; 16] = [
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "envoy-ratelimited",
    "retriable-4xx",
    "refused-stream",
    "retriable-status-codes",
    "retriable-headers",
    "http3-post-connect-failure",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
];

/// Reads a retry policy.
pub fn retries(cursor: &Cursor<'_>) -> Parsed<HttpRetry> {
    let fields = cursor.fields()?;
    let retry = HttpRetry {
        attempts: fields.optional("attempts", Cursor::unsigned)?.unwrap_or(0),
        per_try_timeout: fields.optional("perTryTimeout", Cursor::duration)?,
        retry_on: fields.optional("retryOn", conditions)?.unwrap_or_default(),
        backoff: fields.optional("backoff", Cursor::duration)?,
    };
    let others = fields.any_unsupported(&["retryRemoteLocalities", "retryIgnorePreviousHosts"]);
    fields.finish();
    let configured = retry.per_try_timeout.is_some()
        || !retry.retry_on.is_empty()
        || retry.backoff.is_some()
        || others;
    if retry.attempts == 0 && configured {
        return Err(fields.reject_at(
            "attempts",
            "is 0 or absent, which switches retries off, but other fields configure them: give \
             `attempts` or leave the others out",
        ));
    }
    Ok(retry)
}

fn conditions(cursor: &Cursor<'_>) -> Parsed<Vec<String>> {
    let text = match cursor.integer(100..=599) {
        // A single status code, which needs no quotes to be understood.
        Ok(code) => code.to_string(),
        Err(_) => cursor.string()?,
    };
    let items = text
        .split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty());
    items
        .map(|item| {
            let code = item
                .parse::<u16>()
                .is_ok_and(|code| (100..=599).contains(&code));
            if code || CONDITIONS.contains(&item) {
                return Ok(item.to_owned());
            }
            let hint = crate::config::fields::closest(item, &CONDITIONS)
                .map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
            Err(cursor.reject(format!(
                "{item:?} is neither a condition nor a status code{hint}"
            )))
        })
        .collect()
}
