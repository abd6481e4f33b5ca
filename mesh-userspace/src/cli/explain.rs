//! `meshctl explain`: what would happen to a request, asked of the agent or of a folder of manifests.

mod table;

use std::sync::Arc;

use serde_json::Value;

use super::{
    args::{ExplainArgs, Global},
    client::Client,
    error::CliError,
    exit::ExitStatus,
    folder,
    output::Output,
};
use crate::{
    config::model::Object,
    mesh::{
        explain::{ExplainQuery, Explanation, explain},
        model::Snapshot,
        resolve::BuildOptions,
    },
};

/// Asks and prints the answer.
pub fn run(
    client: &Client,
    arguments: &ExplainArgs,
    global: &Global,
    out: Output,
) -> Result<ExitStatus, CliError> {
    let query = query(arguments);
    let answer = match &arguments.config_dir {
        None => client.post("/explain", &serde_json::to_value(&query)?)?,
        Some(directory) => offline(&query, &folder::read(directory)?, global)?,
    };
    out.write(&answer, |colour| {
        let explanation: Explanation = serde_json::from_value(answer.clone())?;
        Ok::<_, CliError>(table::render(&explanation, colour))
    })?;
    Ok(ExitStatus::Ok)
}

fn query(arguments: &ExplainArgs) -> ExplainQuery {
    ExplainQuery {
        from: arguments.from.clone().unwrap_or_default(),
        gateway: arguments.gateway.clone(),
        method: arguments.method.clone(),
        url: arguments.url.clone(),
        headers: arguments.headers.clone(),
    }
}

/// The very functions that the agent calls, on what the folder says now.
fn offline(
    query: &ExplainQuery,
    objects: &[Arc<Object>],
    global: &Global,
) -> Result<Value, CliError> {
    let options = BuildOptions {
        // Which pods are local changes no answer.
        node_name: global.node_name.clone().unwrap_or_default(),
        domain: folder::DOMAIN.to_owned(),
        version: 1,
    };
    let snapshot = Snapshot::build(objects, &options);
    Ok(serde_json::to_value(explain(&snapshot, query)?)?)
}
