//! What the programs remember of services and endpoints that are gone.

use std::{collections::HashSet, net::SocketAddr};

use aya::maps::{HashMap as BpfMap, MapData};
use mesh_common::{names, policy::FrontendKey};

use super::{
    compile::{TCP, Tables},
    loader::PinDir,
    tables::{TableError, open},
};
use crate::mesh::model::Snapshot;

/// The maps `turns` and `loads`.
pub(super) struct Counts {
    turns: BpfMap<MapData, FrontendKey, u64>,
    loads: BpfMap<MapData, FrontendKey, u64>,
}

impl Counts {
    /// Opens the pins.
    pub(super) fn open(pins: &PinDir) -> Result<Self, TableError> {
        Ok(Self {
            turns: open(names::TURNS, &pins.map(names::TURNS))?,
            loads: open(names::LOADS, &pins.map(names::LOADS))?,
        })
    }

    /// Removes what no frontend and no endpoint has. An endpoint that is not ready keeps its count: its
    /// connections live, and it may come back.
    pub(super) fn forget_gone(&mut self, tables: &Tables, snapshot: &Snapshot) {
        remove(&mut self.turns, |key| !tables.frontends.contains_key(key));
        if self.loads.keys().next().is_none() {
            return;
        }
        let endpoints = endpoints(snapshot);
        remove(&mut self.loads, |key| {
            !endpoints.contains(&SocketAddr::new(key.address.into(), key.port.get()))
                && key.protocol == TCP
        });
    }
}

/// Every endpoint of every service, ready or not.
pub(super) fn endpoints(snapshot: &Snapshot) -> HashSet<SocketAddr> {
    let ports = snapshot.services.values().flat_map(|one| &one.ports);
    ports
        .flat_map(|port| port.endpoints.iter().chain(port.ipv6_endpoints.iter()))
        .map(|endpoint| endpoint.address)
        .collect()
}

fn remove(map: &mut BpfMap<MapData, FrontendKey, u64>, is_gone: impl Fn(&FrontendKey) -> bool) {
    let gone: Vec<FrontendKey> = map
        .keys()
        .filter_map(Result::ok)
        .filter(|key| is_gone(key))
        .collect();
    for key in gone {
        // A program that adds one at this moment counts anew.
        let _ = map.remove(&key);
    }
}
