//! Who may connect to whom, asked for what the agent carries; refusals are told where they are counted.

use std::{net::SocketAddr, sync::Arc};

use super::client::Client;
use crate::mesh::{access::refusal, model::Workload};

/// Whether `source`, whose connection `client` is, may connect to `address` of `server`. Asked for each
/// request: a connection that is kept may be older than the policy.
pub fn may_connect(
    client: &Client,
    source: &Workload,
    server: Option<&Arc<Workload>>,
    address: SocketAddr,
) -> bool {
    let refused = server.and_then(|server| Some((server, refusal(source, server, address)?)));
    let Some((server, denial)) = refused else {
        return true;
    };
    let policy = denial.to_string();
    tracing::debug!(client = %source.name, %address, policy, "access denied");
    client
        .worker
        .interception
        .denied(&source.name, &server.name, &policy);
    false
}
