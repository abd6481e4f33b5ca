//! Whether a try that went wrong is made again, and after how long. Pure.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use rand::RngExt;

use super::failure::Failure;
use crate::mesh::model::{RetryOn, RetryPolicy};

/// Whether the policy wants another try after this failure.
pub fn on_failure(on: &RetryOn, failure: &Failure) -> bool {
    // Envoy's 5xx and gateway-error conditions include "no answer at all".
    let no_answer = on.five_xx || on.gateway_error || on.reset;
    match failure {
        Failure::Connect { .. } => no_answer || on.connect_failure || on.reset_before_request,
        Failure::Refused { .. } => no_answer || on.refused_stream || on.reset_before_request,
        Failure::Reset { .. } | Failure::Protocol { .. } | Failure::PerTryTimeout => no_answer,
        Failure::BadRequest(_)
        | Failure::Aborted
        | Failure::NoRoute
        | Failure::NoCluster(_)
        | Failure::NoHealthyUpstream
        | Failure::AccessDenied
        | Failure::Timeout
        | Failure::FaultAbort(_) => false,
    }
}

/// Whether the policy wants another try after this answer's head.
pub fn on_response(on: &RetryOn, grpc: bool, status: StatusCode, headers: &HeaderMap) -> bool {
    if status == StatusCode::OK {
        return grpc
            && grpc_status(headers)
                .is_some_and(|status| on.grpc.iter().any(|on| u16::from(*on) == status));
    }
    let code = status.as_u16();
    on.five_xx && code >= 500
        || on.gateway_error && matches!(code, 502..=504)
        || on.retriable_4xx && code == 409
        || on.statuses.contains(&code)
}

/// Whether a try can fail after its request was sent in a way that the policy retries: then the request
/// must be kept. What fails before it was sent comes back by itself.
pub fn needs_replay(policy: &RetryPolicy, grpc: bool, http2: bool) -> bool {
    let on = &policy.on;
    policy.attempts > 0
        && (on.five_xx
            || on.gateway_error
            || on.reset
            || on.retriable_4xx
            || !on.statuses.is_empty()
            || grpc && !on.grpc.is_empty()
            || http2 && on.refused_stream)
}

/// `grpc-status` of an answer's head or trailers.
pub fn grpc_status(headers: &HeaderMap) -> Option<u16> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// How long to wait before try `retry` (1 for the first retry): anything up to base × (2^retry − 1), at
/// most ten times the base (Envoy's full jitter).
pub fn backoff(policy: &RetryPolicy, retry: u32, rng: &mut impl rand::Rng) -> Duration {
    let base = u64::try_from(policy.backoff.as_micros()).unwrap_or(u64::MAX);
    let steps = 1_u64.checked_shl(retry).map_or(u64::MAX, |power| power - 1);
    let ceiling = base.saturating_mul(steps.min(10));
    Duration::from_micros(rng.random_range(0..=ceiling))
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::SmallRng};

    use super::*;

    fn policy(backoff: Duration) -> RetryPolicy {
        RetryPolicy {
            attempts: 3,
            per_try_timeout: None,
            on: RetryOn::default(),
            backoff,
        }
    }

    #[test]
    fn backoff_grows_to_ten_times_the_base_and_no_further() {
        let policy = policy(Duration::from_millis(25));
        let mut rng = SmallRng::seed_from_u64(7);
        for (retry, most) in [(1, 25), (2, 75), (3, 175), (4, 250), (63, 250), (64, 250)] {
            let longest = (0..2000)
                .map(|_| backoff(&policy, retry, &mut rng))
                .max()
                .unwrap();
            assert!(
                longest <= Duration::from_millis(most),
                "retry {retry}: {longest:?}"
            );
            assert!(
                longest > Duration::from_millis(most) * 9 / 10,
                "retry {retry}: {longest:?}"
            );
        }
    }

    #[test]
    fn a_status_is_retried_where_a_condition_names_it() {
        let none = HeaderMap::new();
        let on = RetryOn {
            gateway_error: true,
            statuses: vec![418],
            ..RetryOn::default()
        };
        let retried = |code| on_response(&on, false, StatusCode::from_u16(code).unwrap(), &none);
        assert!(retried(502) && retried(503) && retried(504) && retried(418));
        assert!(!retried(500) && !retried(409) && !retried(200));
    }

    #[test]
    fn grpc_conditions_look_at_the_head() {
        let on = RetryOn {
            grpc: vec![14],
            ..RetryOn::default()
        };
        let mut headers = HeaderMap::new();
        headers.insert("grpc-status", "14".parse().unwrap());
        assert!(on_response(&on, true, StatusCode::OK, &headers));
        headers.insert("grpc-status", "0".parse().unwrap());
        assert!(!on_response(&on, true, StatusCode::OK, &headers));
    }
}
