//! What is answered with JSON: reads of the state, `explain`, and the kill switch.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{AccelerationState, AdminState, StatusAnswer, answer::Answer};
use crate::{
    config::model::Report,
    mesh::{
        dump::{self, SnapshotView},
        explain::{self, ExplainError, ExplainQuery},
    },
};

/// Answers a GET of `path`; `None` where it is none of these.
pub fn read(state: &dyn AdminState, path: &str) -> Option<Answer> {
    let answer = match path {
        "/status" => Answer::json(&status(state)),
        "/services" => Answer::json(&dump::services(&state.snapshot())),
        "/workloads" => Answer::json(&dump::workloads(&state.snapshot())),
        "/routes" => Answer::json(&dump::routes(&state.snapshot())),
        "/config_dump" => Answer::json(&ConfigDump {
            snapshot: SnapshotView::of(&state.snapshot()),
            objects: &state.reports(),
        }),
        "/config" => Answer::json(&*state.reports()),
        "/connections" => match state.connections() {
            Ok(connections) => Answer::json(&connections),
            Err(e) => Answer::failure(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("reading the open connections: {e}"),
                "`meshctl check` tells what is missing",
            ),
        },
        _ => return None,
    };
    Some(answer)
}

/// The answer of `/config_dump`.
#[derive(Debug, Serialize)]
struct ConfigDump<'a> {
    #[serde(flatten)]
    snapshot: SnapshotView,
    /// What became of each document.
    objects: &'a [Report],
}

fn status(state: &dyn AdminState) -> StatusAnswer {
    let ready = state.ready();
    StatusAnswer {
        ready: ready.is_ok(),
        not_ready_reason: ready.err(),
        status: state.status(),
    }
}

/// The body of POST `/acceleration`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Switch {
    state: AccelerationState,
}

/// Throws the kill switch; answers with how it stands then.
pub fn set_acceleration(state: &dyn AdminState, body: &Bytes) -> Answer {
    let Switch { state: wanted } = match parse(body, r#"send {"state":"on"} or {"state":"off"}"#) {
        Ok(switch) => switch,
        Err(refusal) => return *refusal,
    };
    match state.set_acceleration(wanted == AccelerationState::On) {
        Ok(()) => Answer::json(&state.status().acceleration),
        Err(reason) => Answer::failure(
            StatusCode::CONFLICT,
            format!("switching acceleration: {reason}"),
            "`meshctl check` tells what this kernel can do",
        ),
    }
}

fn parse<T: DeserializeOwned>(body: &Bytes, mend: &str) -> Result<T, Box<Answer>> {
    serde_json::from_slice(body).map_err(|e| {
        Box::new(Answer::failure(
            StatusCode::BAD_REQUEST,
            format!("the request's body: {e}"),
            mend,
        ))
    })
}

/// The longest that `/events` waits.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// The body of POST `/events`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct Follow {
    /// `next` of the answer before.
    after: u64,
    /// How long to wait for the first. Not zero: somebody follows.
    wait_ms: u64,
}

/// What happened to connections.
pub fn events(state: &dyn AdminState, body: &Bytes) -> Answer {
    match parse::<Follow>(body, r#"send {"after":0,"waitMs":1000}, or {}"#) {
        Ok(Follow { after, wait_ms }) => {
            let wait = Duration::from_millis(wait_ms).min(LONGEST_WAIT);
            Answer::json(&state.events(after, wait))
        }
        Err(refusal) => *refusal,
    }
}

/// What would happen to a request.
pub fn explain(state: &dyn AdminState, body: &Bytes) -> Answer {
    const MEND: &str = r#"send {"from": "NAMESPACE/POD", "url": "http://HOST:PORT/PATH"}, \
        and "method" and "headers" where they matter"#;
    let query: ExplainQuery = match parse(body, MEND) {
        Ok(query) => query,
        Err(refusal) => return *refusal,
    };
    match explain::explain(&state.snapshot(), &query) {
        Ok(explanation) => Answer::json(&explanation),
        Err(e @ ExplainError::UnknownPod { .. }) => Answer::failure(
            StatusCode::NOT_FOUND,
            e.to_string(),
            "`meshctl workloads` lists those there are",
        ),
        Err(e) => Answer::failure(
            StatusCode::BAD_REQUEST,
            e.to_string(),
            "`meshctl explain --help` tells how to ask",
        ),
    }
}
