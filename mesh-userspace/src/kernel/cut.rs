//! Closes connections that a changed policy forbids, accelerated ones too, at both ends.
//!
//! They are found among the sockets of the pod, not among the connections that the programs know: so those
//! from outside of the mesh, those by the agent and those from before the agent are cut as well.

use std::{
    collections::{HashMap, HashSet},
    io,
    net::IpAddr,
    sync::Arc,
};

use mesh_common::connection::{ConnectionRecord, Role};

use super::{
    access::Set,
    netns::Netns,
    sock_diag::{LISTEN, SockDiag, TcpSocket},
};

/// A pod whose policies changed.
pub(super) struct Changed<'p> {
    /// Its namespace.
    pub netns: &'p Netns,
    /// What holds now.
    pub set: Arc<Set>,
}

/// Closes what is forbidden. `pods`: every enrolled pod by its addresses. Gives how many it closed; the first
/// error where one could not be.
pub(super) fn cut(
    changed: &[Changed<'_>],
    pods: &HashMap<IpAddr, &Netns>,
    records: &[ConnectionRecord],
) -> (usize, io::Result<()>) {
    let roles: HashMap<u64, u32> = records
        .iter()
        .map(|record| (record.connection.cookie, record.connection.role))
        .collect();
    let mut closed = 0;
    let mut outcome = Ok(());
    for pod in changed {
        match cut_at(pod, pods, &roles) {
            Ok(count) => closed += count,
            Err(error) => outcome = outcome.and(Err(error)),
        }
    }
    (closed, outcome)
}

fn cut_at(
    pod: &Changed<'_>,
    pods: &HashMap<IpAddr, &Netns>,
    roles: &HashMap<u64, u32>,
) -> io::Result<usize> {
    let diag = pod.netns.sock_diag()?;
    let sockets = diag.sockets()?;
    let listening: HashSet<u16> = sockets
        .iter()
        .filter(|socket| socket.state == LISTEN)
        .map(|socket| socket.local.port())
        .collect();
    let is_server = |socket: &TcpSocket| match roles.get(&socket.cookie) {
        Some(role) => *role == Role::Server as u32,
        None => listening.contains(&socket.local.port()),
    };
    let mut peers: HashMap<u64, SockDiag> = HashMap::new();
    let mut closed = 0;
    for socket in sockets {
        let own = socket.remote.ip() == socket.local.ip() || socket.remote.ip().is_loopback();
        if socket.state == LISTEN || own || !is_server(&socket) {
            continue;
        }
        if !pod
            .set
            .verdict(socket.remote.ip(), socket.local.port())
            .denied
        {
            continue;
        }
        closed += usize::from(diag.destroy(&socket)?);
        // The reset reaches the client by itself; a client of this node does not have to wait for it.
        if let Some(client) = pods.get(&socket.remote.ip()) {
            let peer = match peers.entry(client.cookie()) {
                std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::hash_map::Entry::Vacant(entry) => {
                    entry.insert(client.sock_diag()?)
                }
            };
            peer.destroy_peer_of(&socket)?;
        }
    }
    Ok(closed)
}
