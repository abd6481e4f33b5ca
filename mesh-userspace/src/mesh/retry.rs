//! What is tried again: `retryOn` as written to a set of conditions, and the questions that are asked of it.

use std::time::Duration;

use super::model::{RetryOn, RetryPolicy};
use crate::config::model::HttpRetry;

/// What Istio retries unless told otherwise.
const DEFAULT_CONDITIONS: [&str; 4] = [
    "connect-failure",
    "refused-stream",
    "unavailable",
    "cancelled",
];

/// Extra tries unless told otherwise.
const DEFAULT_ATTEMPTS: u32 = 2;

/// Base of the backoff unless told otherwise (Envoy's `RetryBackOff.base_interval`).
const DEFAULT_BACKOFF: Duration = Duration::from_millis(25);

/// A try that ended without a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TryFailure {
    /// No connection was made, in time or at all.
    Connect,
    /// The upstream refused the stream before it processed anything (`REFUSED_STREAM`, GOAWAY below it).
    RefusedStream,
    /// The connection or stream ended before response headers.
    Reset {
        /// Some of the request had been sent.
        request_started: bool,
    },
    /// `perTryTimeout` ran out.
    TryTimeout,
}

impl RetryPolicy {
    /// The mesh's default: two extra tries on [`RetryOn::mesh_default`].
    pub fn mesh_default() -> Self {
        Self {
            attempts: DEFAULT_ATTEMPTS,
            per_try_timeout: None,
            on: RetryOn::mesh_default(),
            backoff: DEFAULT_BACKOFF,
        }
    }

    /// What a route's `retries` say, with the defaults filled in.
    pub fn effective(written: Option<&HttpRetry>) -> Self {
        let Some(written) = written else {
            return Self::mesh_default();
        };
        let on = if written.attempts == 0 {
            RetryOn::default()
        } else if written.retry_on.iter().all(|name| name.trim().is_empty()) {
            RetryOn::mesh_default()
        } else {
            RetryOn::parse(&written.retry_on)
        };
        Self {
            attempts: written.attempts,
            per_try_timeout: written.per_try_timeout,
            on,
            backoff: written.backoff.unwrap_or(DEFAULT_BACKOFF),
        }
    }
}

impl RetryOn {
    /// connect-failure, refused-stream, unavailable, cancelled.
    pub fn mesh_default() -> Self {
        Self::parse(&DEFAULT_CONDITIONS)
    }

    /// A set of conditions from their names. Numbers are status codes; a name that is not known stays
    /// in `names` and has no effect, as in Envoy.
    pub fn parse<S: AsRef<str>>(names: &[S]) -> Self {
        let mut on = Self::default();
        for name in names {
            let name = name.as_ref().trim();
            match name {
                "" => continue,
                "5xx" => on.five_xx = true,
                "gateway-error" => on.gateway_error = true,
                "reset" => on.reset = true,
                "reset-before-request" => on.reset_before_request = true,
                "connect-failure" => on.connect_failure = true,
                "refused-stream" => on.refused_stream = true,
                "retriable-4xx" => on.retriable_4xx = true,
                _ => {
                    if let Ok(status) = name.parse() {
                        on.statuses.push(status);
                    } else if let Some(code) = grpc_code(name) {
                        on.grpc.push(code);
                    }
                }
            }
            on.names.push(name.to_owned());
        }
        on
    }

    /// Whether a response with this status, and this `grpc-status` among its headers, is tried again.
    pub fn retries_response(&self, status: u16, grpc_status: Option<u8>) -> bool {
        (self.five_xx && (500..600).contains(&status))
            || (self.gateway_error && matches!(status, 502..=504))
            || (self.retriable_4xx && status == 409)
            || self.statuses.contains(&status)
            || grpc_status.is_some_and(|code| self.grpc.contains(&code))
    }

    /// Whether a try that got no response is made again. As in Envoy, `5xx` and `gateway-error` cover
    /// every such end, `reset` too.
    pub fn retries_failure(&self, failure: TryFailure) -> bool {
        self.five_xx
            || self.gateway_error
            || self.reset
            || match failure {
                TryFailure::Connect => self.connect_failure || self.reset_before_request,
                TryFailure::RefusedStream => self.refused_stream,
                TryFailure::Reset { request_started } => {
                    self.reset_before_request && !request_started
                }
                TryFailure::TryTimeout => false,
            }
    }
}

fn grpc_code(name: &str) -> Option<u8> {
    Some(match name {
        "cancelled" => 1,
        "deadline-exceeded" => 4,
        "resource-exhausted" => 8,
        "internal" => 13,
        "unavailable" => 14,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(attempts: u32, retry_on: &[&str]) -> HttpRetry {
        HttpRetry {
            attempts,
            per_try_timeout: None,
            retry_on: retry_on.iter().map(ToString::to_string).collect(),
            backoff: None,
        }
    }

    #[test]
    fn without_a_word_two_extra_tries_where_nothing_was_processed() {
        let policy = RetryPolicy::effective(None);
        assert_eq!(policy.attempts, 2);
        assert_eq!(policy.backoff, Duration::from_millis(25));
        assert_eq!(policy.on.names, DEFAULT_CONDITIONS);
        assert!(policy.on.retries_failure(TryFailure::Connect));
        assert!(policy.on.retries_failure(TryFailure::RefusedStream));
        assert!(!policy.on.retries_failure(TryFailure::TryTimeout));
        let reset = TryFailure::Reset {
            request_started: true,
        };
        assert!(!policy.on.retries_failure(reset));
        assert!(policy.on.retries_response(200, Some(14)));
        assert!(policy.on.retries_response(200, Some(1)));
        assert!(
            !policy.on.retries_response(503, None),
            "503 is no longer among them"
        );
    }

    #[test]
    fn attempts_without_conditions_take_the_default_ones_and_zero_is_off() {
        assert_eq!(
            RetryPolicy::effective(Some(&written(3, &[]))).on,
            RetryOn::mesh_default()
        );
        let off = RetryPolicy::effective(Some(&written(0, &[])));
        assert_eq!((off.attempts, off.on), (0, RetryOn::default()));
    }

    #[test]
    fn numbers_are_status_codes_and_names_keep_their_order() {
        let on = RetryOn::parse(&[
            "gateway-error",
            " 429",
            "internal",
            "retriable-4xx",
            "novel",
        ]);
        assert_eq!(
            on.names,
            ["gateway-error", "429", "internal", "retriable-4xx", "novel"]
        );
        for (status, expected) in [
            (500, false),
            (502, true),
            (504, true),
            (505, false),
            (429, true),
            (409, true),
        ] {
            assert_eq!(on.retries_response(status, None), expected, "{status}");
        }
        assert!(on.retries_response(200, Some(13)));
        assert!(!on.retries_response(200, Some(14)));
        assert!(on.retries_failure(TryFailure::TryTimeout));
    }

    #[test]
    fn reset_before_request_spares_what_was_already_sent() {
        let on = RetryOn::parse(&["reset-before-request"]);
        assert!(on.retries_failure(TryFailure::Connect));
        assert!(on.retries_failure(TryFailure::Reset {
            request_started: false
        }));
        assert!(!on.retries_failure(TryFailure::Reset {
            request_started: true
        }));
    }
}
