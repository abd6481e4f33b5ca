//! Closes connections to endpoints that are gone, so that clients notice instead of waiting for an answer that
//! nobody will send.
//!
//! Gone is what was removed from its service while no pod has the address any more. An endpoint that is only
//! not ready, or that terminates, is still there, and keeps its connections, as with kube-proxy. A service that
//! is not known any more is no evidence: a folder that is being rewritten closes nothing.

use std::{
    collections::{HashMap, HashSet},
    io,
    net::{IpAddr, SocketAddr},
};

use mesh_common::{
    connection::{Connection, ConnectionRecord, Role},
    names::NameKind,
    policy::Verdict,
};

use super::{forget, ids::Ids, netns::Netns};
use crate::mesh::model::Snapshot;

/// Whether it is worth looking: listing every connection is not free, and most changes take nothing away.
#[derive(Debug, Default)]
pub(super) struct Lookout {
    known: Option<HashSet<SocketAddr>>,
    again: bool,
}

impl Lookout {
    /// True where an endpoint or a pod's address went since the last snapshot, once more after that (a connect
    /// that was under way is established by then), and for the first snapshot.
    pub(super) fn is_due(&mut self, snapshot: &Snapshot) -> bool {
        let mut now = forget::endpoints(snapshot);
        let workloads = snapshot.workloads.values();
        let addresses = workloads.flat_map(|workload| workload.addresses.iter());
        now.extend(addresses.map(|address| SocketAddr::new(*address, 0)));
        let gone = self
            .known
            .as_ref()
            .is_none_or(|known| !known.is_subset(&now));
        let due = gone || self.again;
        self.again = gone;
        self.known = Some(now);
        due
    }
}

/// The clients' ends of connections that the kernel sent to an endpoint that is gone.
pub(super) fn find(
    records: &[ConnectionRecord],
    snapshot: &Snapshot,
    ids: &Ids,
) -> Vec<Connection> {
    let direct: Vec<&Connection> = records
        .iter()
        .map(|record| &record.connection)
        .filter(|one| {
            // Without a pod behind it nobody can know that an address is gone.
            one.role == Role::Client as u32
                && one.way == Verdict::Direct as u32
                && one.service != 0
                && one.destination != 0
        })
        .collect();
    if direct.is_empty() {
        return Vec::new();
    }
    let endpoints = forget::endpoints(snapshot);
    let addresses: HashSet<IpAddr> = snapshot
        .workloads
        .values()
        .flat_map(|workload| workload.addresses.iter().copied())
        .collect();
    let is_known = |service| {
        ids.name(NameKind::Service, service)
            .is_some_and(|host| snapshot.services.contains_key(host))
    };
    direct
        .into_iter()
        .filter(|one| {
            let server = server(one);
            !endpoints.contains(&server)
                && !addresses.contains(&server.ip())
                && is_known(one.service)
        })
        .copied()
        .collect()
}

fn server(connection: &Connection) -> SocketAddr {
    SocketAddr::new(
        connection.remote_address.into(),
        connection.remote_port.get(),
    )
}

/// Resets these, each in its pod's namespace. Gives how many there were; the first error where one could not be.
pub(super) fn close(dead: &[Connection], pods: &HashMap<u64, &Netns>) -> (usize, io::Result<()>) {
    let mut by_netns: HashMap<u64, HashSet<u64>> = HashMap::new();
    for one in dead {
        by_netns.entry(one.netns).or_default().insert(one.cookie);
    }
    let mut closed = 0;
    let mut outcome = Ok(());
    for (netns, cookies) in by_netns {
        // The pod itself may be gone by now.
        let Some(pod) = pods.get(&netns) else {
            continue;
        };
        match close_in(pod, &cookies) {
            Ok(count) => closed += count,
            Err(error) => outcome = outcome.and(Err(error)),
        }
    }
    (closed, outcome)
}

fn close_in(pod: &Netns, cookies: &HashSet<u64>) -> io::Result<usize> {
    let diag = pod.sock_diag()?;
    let mut closed = 0;
    for socket in diag.sockets()? {
        if cookies.contains(&socket.cookie) {
            closed += usize::from(diag.destroy(&socket)?);
        }
    }
    Ok(closed)
}

#[cfg(test)]
mod tests;
