//! Which ports of the pods were closed, as the programs saw it, and what they cannot see: listeners from before
//! them, pods that are enrolled after their listeners.

use std::{collections::HashSet, io, net::SocketAddr};

use aya::maps::{HashMap as BpfMap, MapData};
use mesh_common::{
    PortBe,
    balance::{Listening, ServedKey, family},
    names,
};

use super::{
    compile::Tables,
    loader::PinDir,
    netns::Netns,
    sock_diag::LISTEN,
    tables::{TableError, open},
};

/// The maps `served`, `unseen` and `listening`.
pub(super) struct ServedPorts {
    served: BpfMap<MapData, ServedKey, u64>,
    unseen: BpfMap<MapData, ServedKey, u32>,
    listening: BpfMap<MapData, u64, Listening>,
}

impl ServedPorts {
    /// Opens the pins.
    pub(super) fn open(pins: &PinDir) -> Result<Self, TableError> {
        Ok(Self {
            served: open(names::SERVED, &pins.map(names::SERVED))?,
            unseen: open(names::UNSEEN, &pins.map(names::UNSEEN))?,
            listening: open(names::LISTENING, &pins.map(names::LISTENING))?,
        })
    }

    /// Marks the pods that have a closed port. True: one was not marked before.
    pub(super) fn mark(&self, tables: &mut Tables) -> bool {
        let closed: HashSet<u64> = self
            .served
            .iter()
            .filter_map(Result::ok)
            .filter(|(_, listeners)| *listeners == 0)
            .map(|(key, _)| key.netns)
            .collect();
        let mut fresh = false;
        for pod in tables.local_pods.values_mut() {
            if pod.closed == 0 && closed.contains(&pod.netns) {
                pod.closed = 1;
                fresh = true;
            }
        }
        fresh
    }

    /// Notes the listeners of a pod whose beginning the programs did not see, and forgets those that are gone.
    /// One that begins right now may be taken for such a one until the next look.
    pub(super) fn note_unseen(&mut self, netns: &Netns) -> io::Result<()> {
        let sockets = netns.sock_diag()?.sockets()?;
        let unseen: HashSet<ServedKey> = sockets
            .iter()
            .filter(|socket| socket.state == LISTEN)
            .filter(|socket| self.listening.get(&socket.cookie, 0).is_err())
            .flat_map(|socket| {
                let port = PortBe::new(socket.local.port());
                let key = move |family: &u16| ServedKey::new(netns.cookie(), port, *family);
                families(socket.local).iter().map(key)
            })
            .collect();
        for key in &unseen {
            // Where it does not fit, a port that was seen to close has another listener: rather no answer
            // about it than a wrong one.
            if self.unseen.insert(key, 1, 0).is_err() {
                let _ = self.served.remove(key);
            }
        }
        self.forget_unseen(|key| key.netns == netns.cookie() && !unseen.contains(key));
        Ok(())
    }

    /// The namespaces where a port has listeners whose end will not be seen.
    pub(super) fn with_unseen(&self) -> HashSet<u64> {
        let keys = self.unseen.keys().filter_map(Result::ok);
        keys.map(|key| key.netns).collect()
    }

    /// Forgets a namespace that is gone.
    pub(super) fn forget(&mut self, netns: u64) {
        self.forget_unseen(|key| key.netns == netns);
        let gone: Vec<ServedKey> = self
            .served
            .keys()
            .filter_map(Result::ok)
            .filter(|key| key.netns == netns)
            .collect();
        for key in gone {
            // Nobody else removes any.
            let _ = self.served.remove(&key);
        }
    }

    fn forget_unseen(&mut self, is_gone: impl Fn(&ServedKey) -> bool) {
        let gone: Vec<ServedKey> = self
            .unseen
            .keys()
            .filter_map(Result::ok)
            .filter(|key| is_gone(key))
            .collect();
        for key in gone {
            // As above.
            let _ = self.unseen.remove(&key);
        }
    }
}

/// Where clients reach a listener, as `mesh-ebpf`'s `served.rs` counts it.
fn families(local: SocketAddr) -> &'static [u16] {
    let address = local.ip();
    match (
        address.is_loopback(),
        address.is_unspecified(),
        address.is_ipv4(),
    ) {
        (true, ..) => &[],
        (_, true, false) => &[family::V4, family::V6],
        (_, _, true) => &[family::V4],
        (_, _, false) => &[family::V6],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_reached_by_the_families_that_it_is_bound_to() {
        for (local, expected) in [
            ("0.0.0.0:1", &[family::V4][..]),
            ("10.0.0.1:1", &[family::V4]),
            ("[::]:1", &[family::V4, family::V6]),
            ("[fd00::1]:1", &[family::V6]),
            ("127.0.0.1:1", &[]),
            ("[::1]:1", &[]),
        ] {
            assert_eq!(
                families(local.parse().expect("an address")),
                expected,
                "{local}"
            );
        }
    }
}
