//! Policies as the kernel's part holds them: whether there are any, connections that they forbid, and the agent's
//! own connections to the pods that they guard.

use std::{
    io, mem,
    net::{IpAddr, SocketAddr},
    sync::atomic::Ordering,
};

use mesh_common::{names, settings::Settings};
use socket2::Socket;

use super::{Kernel, locked};
use crate::kernel::{
    connections,
    cut::{self, Changed},
    loader::GuardError,
    netns::Netns,
    tables::{self, TableError},
};

/// Not all of a snapshot is in force.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// A map does not take it.
    #[error(transparent)]
    Table(#[from] TableError),
    /// Connections from other nodes are not judged.
    #[error(transparent)]
    Guard(#[from] GuardError),
}

impl Kernel {
    pub(super) fn set_guards(&self, bits: u32) -> Result<(), TableError> {
        if self.guards.swap(bits, Ordering::SeqCst) == bits {
            return Ok(());
        }
        let mut settings = locked(&self.settings);
        let written = settings.get(&0, 0).and_then(|current| {
            let changed = Settings {
                guards: bits,
                ..current
            };
            settings.set(0, changed, 0)
        });
        written.map_err(tables::failed(names::SETTINGS, "writing"))
    }

    /// Closes the connections that policies forbid since [`Kernel::apply`] changed them. `pods`: every one
    /// that is enrolled, with its addresses. Gives how many it closed.
    pub fn cut(&self, pods: &[(&Netns, &[IpAddr])]) -> io::Result<usize> {
        let changed = locked(&self.access).take_changed();
        locked(&self.cut_lately).extend(&changed);
        self.cut_those(&changed, pods)
    }

    /// As [`Kernel::cut`], once more for the pods that it was about: a SYN that was judged just before the
    /// change may have been nowhere to be seen when the sockets were listed.
    pub fn cut_again(&self, pods: &[(&Netns, &[IpAddr])]) -> io::Result<usize> {
        let changed = mem::take(&mut *locked(&self.cut_lately));
        self.cut_those(&changed, pods)
    }

    fn cut_those(&self, changed: &[u64], pods: &[(&Netns, &[IpAddr])]) -> io::Result<usize> {
        if changed.is_empty() {
            return Ok(0);
        }
        let records = connections::read(&self.pins.connections())?;
        let by_address = pods
            .iter()
            .flat_map(|(netns, addresses)| addresses.iter().map(|address| (*address, *netns)))
            .collect();
        let changed: Vec<Changed<'_>> = pods
            .iter()
            .filter(|(netns, _)| changed.contains(&netns.cookie()))
            .filter_map(|(netns, _)| {
                let set = locked(&self.access).set_of(netns.cookie())?;
                Some(Changed { netns, set })
            })
            .collect();
        let (closed, outcome) = cut::cut(&changed, &by_address, &records);
        outcome.map(|()| closed)
    }

    /// Tells a guarded pod of this node that the connection is the client pod's own.
    pub(super) fn announce(
        &self,
        socket: &Socket,
        netns: u64,
        server: SocketAddr,
    ) -> io::Result<()> {
        let own = {
            let policy = &locked(&self.policy).0;
            let (Some(client), Some(pod)) =
                (policy.workload(netns), policy.pod_at(server.ip().into()))
            else {
                return Ok(());
            };
            let guarded = pod.netns != netns && locked(&self.access).set_of(pod.netns).is_some();
            match client.own_address(server.ip().into()) {
                own if guarded && !own.is_none() => own,
                _ => return Ok(()),
            }
        };
        locked(&self.announcements).announce(socket, netns, SocketAddr::new(own.into(), 0), server)
    }
}
