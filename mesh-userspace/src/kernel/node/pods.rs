//! What the agent tells the programs of pods that come, listen and go.

use std::{collections::HashMap, io, net::IpAddr};

use aya::maps::{HashMap as BpfMap, MapData};
use mesh_common::{PortBe, connection::ListenerKey, names};

use super::{Kernel, locked};
use crate::{
    kernel::{connections, dead, listeners, netns::Netns, tables},
    mesh::model::Snapshot,
};

impl Kernel {
    /// Tells the programs of the listeners that pods had before they were enrolled.
    pub fn note_listeners(&self, pods: &[&Netns]) -> io::Result<()> {
        const NOEXIST: u64 = 1;
        let cookies: HashMap<u64, u64> = pods
            .iter()
            .map(|pod| Ok((pod.inode()?, pod.cookie())))
            .collect::<io::Result<_>>()?;
        let inodes: Vec<u64> = cookies.keys().copied().collect();
        let mut listeners = self.listeners()?;
        for found in listeners::scan(&inodes) {
            let netns = cookies.get(&found.netns).copied().unwrap_or_default();
            let key = ListenerKey {
                netns,
                port: PortBe::new(found.port),
                reserved: [0; 3],
            };
            // What the programs saw themselves is newer.
            let _ = listeners.insert(key, found.bits, NOEXIST);
        }
        let mut served = locked(&self.served);
        pods.iter().try_for_each(|pod| served.note_unseen(pod))
    }

    /// Forgets the listeners of a namespace that is gone.
    pub fn forget_listeners(&self, netns: u64) -> io::Result<()> {
        let mut listeners = self.listeners()?;
        let gone: Vec<ListenerKey> = listeners
            .keys()
            .filter_map(Result::ok)
            .filter(|key| key.netns == netns)
            .collect();
        for key in gone {
            let _ = listeners.remove(&key);
        }
        locked(&self.served).forget(netns);
        Ok(())
    }

    fn listeners(&self) -> io::Result<BpfMap<MapData, ListenerKey, u32>> {
        tables::open(names::LISTENERS, &self.pins.map(names::LISTENERS)).map_err(io::Error::other)
    }

    /// Looks again at the listeners whose end the programs will not see. `pods`: as for [`Kernel::cut`].
    pub fn look_for_unseen(&self, pods: &[(&Netns, &[IpAddr])]) -> io::Result<()> {
        let mut served = locked(&self.served);
        let with_unseen = served.with_unseen();
        let mut pods = pods.iter().map(|(netns, _)| netns);
        pods.try_for_each(|netns| {
            if with_unseen.contains(&netns.cookie()) {
                served.note_unseen(netns)
            } else {
                Ok(())
            }
        })
    }

    /// Closes the connections of local clients whose endpoint is gone. `pods`: as for [`Kernel::cut`]. Gives how
    /// many it closed.
    pub fn close_dead(
        &self,
        snapshot: &Snapshot,
        pods: &[(&Netns, &[IpAddr])],
    ) -> io::Result<usize> {
        if !locked(&self.lookout).is_due(snapshot) {
            return Ok(0);
        }
        let records = connections::read(&self.pins.connections())?;
        let dead = dead::find(&records, snapshot, &locked(&self.policy).1);
        let pods = pods
            .iter()
            .map(|(netns, _)| (netns.cookie(), *netns))
            .collect();
        let (closed, outcome) = dead::close(&dead, &pods);
        outcome.map(|()| closed)
    }
}
