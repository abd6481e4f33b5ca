//! Brings the policy maps to what was compiled, by difference: what did not change is not touched.
//!
//! A frontend's endpoints live in a group of their own. New endpoints get a new group; the frontend is
//! then replaced in one update and the old group goes last. A connect sees the old set or the new one.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
    path::Path,
};

use aya::{
    Pod,
    maps::{HashMap as BpfMap, Map, MapData, MapError},
};
use mesh_common::{
    IpBe,
    names::{self, NameKey, PartOfName},
    policy::{self, Endpoint, EndpointKey, ExcludedPort, FrontendKey, LocalPod, Verdict},
};

use super::{
    compile::{Frontend, Tables},
    ids::Ids,
    loader::PinDir,
    sys,
};

/// A map that could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
#[error("map {map}: {operation}: {source}: {mend}")]
pub struct TableError {
    map: &'static str,
    operation: &'static str,
    // Large, and rare.
    source: Box<MapError>,
    mend: &'static str,
}

pub(super) fn failed(
    map: &'static str,
    operation: &'static str,
) -> impl FnOnce(MapError) -> TableError {
    move |source| {
        let full = matches!(&source, MapError::SyscallError(error)
            // A trie says the latter.
            if matches!(error.io_error.raw_os_error(), Some(libc::E2BIG | libc::ENOSPC)));
        let mend = if full {
            "the map is full; what does not fit is not in force"
        } else {
            "`meshctl maps list` shows what is pinned"
        };
        TableError {
            map,
            operation,
            source: Box::new(source),
            mend,
        }
    }
}

/// Opens a pinned hash map.
pub(super) fn open<K: Pod, V: Pod>(
    name: &'static str,
    pin: &Path,
) -> Result<BpfMap<MapData, K, V>, TableError> {
    let data = MapData::from_pin(pin).map_err(failed(name, "opening the pin"))?;
    let map = Map::from_map_data(data).map_err(failed(name, "opening the pin"))?;
    BpfMap::try_from(map).map_err(failed(name, "checking its type"))
}

/// A map with a copy of its contents.
pub(super) struct Table<K: Pod, V: Pod> {
    name: &'static str,
    map: BpfMap<MapData, K, V>,
    contents: HashMap<K, V>,
}

impl<K: Pod + Eq + Hash, V: Pod + PartialEq> Table<K, V> {
    /// Opens it and reads what an earlier agent left in it.
    pub(super) fn open(name: &'static str, pins: &PinDir) -> Result<Self, TableError> {
        let map = open(name, &pins.map(name))?;
        let contents = map
            .iter()
            .collect::<Result<_, _>>()
            .map_err(failed(name, "reading"))?;
        Ok(Self {
            name,
            map,
            contents,
        })
    }

    pub(super) fn insert(&mut self, key: K, value: V) -> Result<(), TableError> {
        if self.contents.get(&key) == Some(&value) {
            return Ok(());
        }
        self.map
            .insert(key, value, 0)
            .map_err(failed(self.name, "writing"))?;
        self.contents.insert(key, value);
        Ok(())
    }

    pub(super) fn remove(&mut self, key: &K) -> Result<(), TableError> {
        if self.contents.remove(key).is_some() {
            match self.map.remove(key) {
                Err(MapError::KeyNotFound | MapError::ElementNotFound) | Ok(()) => {}
                Err(error) => return Err(failed(self.name, "removing")(error)),
            }
        }
        Ok(())
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.contents.get(key)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &K> {
        self.contents.keys()
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.contents.values()
    }

    /// Removes every key that is not `wanted`.
    pub(super) fn retain(&mut self, wanted: impl Fn(&K) -> bool) -> Result<(), TableError> {
        let gone: Vec<K> = self
            .contents
            .keys()
            .filter(|key| !wanted(key))
            .copied()
            .collect();
        gone.iter().try_for_each(|key| self.remove(key))
    }

    fn converge(&mut self, wanted: &HashMap<K, V>) -> Result<(), TableError> {
        self.retain(|key| wanted.contains_key(key))?;
        wanted
            .iter()
            .try_for_each(|(key, value)| self.insert(*key, *value))
    }
}

/// The maps that policy fills, and what is in them.
pub struct PolicyMaps {
    workloads: Table<u64, policy::Workload>,
    cgroup_pods: Table<u64, policy::Workload>,
    local_pods: Table<IpBe, LocalPod>,
    excluded_ports: Table<ExcludedPort, u32>,
    frontends: Table<FrontendKey, policy::Frontend>,
    endpoints: Table<EndpointKey, Endpoint>,
    names: Table<NameKey, PartOfName>,
    next_group: u32,
}

impl PolicyMaps {
    /// Opens the pins; what an earlier agent left stays in force until it is replaced.
    pub fn open(pins: &PinDir) -> Result<Self, TableError> {
        let endpoints: Table<EndpointKey, Endpoint> = Table::open(names::ENDPOINTS, pins)?;
        let highest = endpoints.contents.keys().map(|key| key.group).max();
        // A number that is gone must not come back: UDP sockets remember theirs. This clock has made more
        // steps of 17 ms since boot than an earlier agent can have made groups.
        let steps = (sys::monotonic_ns() >> 24) as u32;
        let next_group = steps.max(highest.unwrap_or(0) + 1);
        Ok(Self {
            workloads: Table::open(names::WORKLOADS, pins)?,
            cgroup_pods: Table::open(names::CGROUP_PODS, pins)?,
            local_pods: Table::open(names::LOCAL_PODS, pins)?,
            excluded_ports: Table::open(names::EXCLUDED_PORTS, pins)?,
            frontends: Table::open(names::FRONTENDS, pins)?,
            endpoints,
            names: Table::open(names::NAMES, pins)?,
            next_group,
        })
    }

    /// The numbers that were given out so far.
    pub fn ids(&self) -> Ids {
        Ids::from_entries(self.names.contents.iter().map(|(key, name)| (*key, *name)))
    }

    /// Brings the maps to `tables`. The first error is returned; what could be written is in force.
    pub fn apply(&mut self, tables: &Tables, ids: &mut Ids) -> Result<(), TableError> {
        // Names first: nothing shall refer to a number without one. Pods before services, so that a
        // service's first connection meets enrolled ends.
        let mut results = vec![
            self.write_names(ids),
            self.excluded_ports.converge(&tables.excluded_ports),
            self.local_pods.converge(&tables.local_pods),
            self.cgroup_pods.converge(&tables.cgroup_pods),
            self.workloads.converge(&tables.workloads),
        ];
        let gone: Vec<FrontendKey> = self
            .frontends
            .contents
            .keys()
            .filter(|key| !tables.frontends.contains_key(key))
            .copied()
            .collect();
        for key in gone {
            results.push(self.remove_frontend(key));
        }
        for (key, wanted) in &tables.frontends {
            results.push(self.write_frontend(*key, wanted));
        }
        results.into_iter().collect()
    }

    /// The pod in a namespace.
    pub(super) fn workload(&self, netns: u64) -> Option<&policy::Workload> {
        self.workloads.get(&netns)
    }

    /// The pod at an address.
    pub(super) fn pod_at(&self, address: IpBe) -> Option<&LocalPod> {
        self.local_pods.get(&address)
    }

    fn write_frontend(&mut self, key: FrontendKey, wanted: &Frontend) -> Result<(), TableError> {
        let old = self.frontends.contents.get(&key).copied();
        let slots = wanted.endpoints.len() as u32;
        let group = match old {
            Some(old) if self.holds(&old, &wanted.endpoints) => old.group,
            _ => self.write_group(&wanted.endpoints)?,
        };
        let verdict = wanted.verdict as u32;
        let new = policy::Frontend {
            service: wanted.service,
            verdict,
            group,
            slots,
            balance: wanted.balance as u32,
            affinity_seconds: wanted.affinity_seconds,
        };
        self.frontends.insert(key, new)?;
        match old {
            Some(old) if old.group != group => self.remove_group(&old),
            _ => Ok(()),
        }
    }

    /// Writes the names that were given out since.
    pub(super) fn write_names(&mut self, ids: &mut Ids) -> Result<(), TableError> {
        // All that fit, whichever does not.
        ids.take_fresh()
            .into_iter()
            .map(|(key, name)| self.names.insert(key, name))
            .fold(Ok(()), Result::and)
    }

    fn holds(&self, frontend: &policy::Frontend, endpoints: &[Endpoint]) -> bool {
        frontend.slots as usize == endpoints.len()
            && endpoints.iter().zip(0..).all(|(endpoint, slot)| {
                let key = EndpointKey {
                    group: frontend.group,
                    slot,
                };
                self.endpoints.contents.get(&key) == Some(endpoint)
            })
    }

    fn write_group(&mut self, endpoints: &[Endpoint]) -> Result<u32, TableError> {
        let group = self.next_group;
        self.next_group += 1;
        for (endpoint, slot) in endpoints.iter().zip(0..) {
            let key = EndpointKey { group, slot };
            if let Err(error) = self.endpoints.insert(key, *endpoint) {
                // Half a group is of no use to anybody.
                for slot in 0..slot {
                    self.endpoints.remove(&EndpointKey { group, slot })?;
                }
                return Err(error);
            }
        }
        Ok(group)
    }

    fn remove_group(&mut self, frontend: &policy::Frontend) -> Result<(), TableError> {
        (0..frontend.slots).try_for_each(|slot| {
            self.endpoints.remove(&EndpointKey {
                group: frontend.group,
                slot,
            })
        })
    }

    fn remove_frontend(&mut self, key: FrontendKey) -> Result<(), TableError> {
        let Some(old) = self.frontends.contents.get(&key).copied() else {
            return Ok(());
        };
        self.frontends.remove(&key)?;
        self.remove_group(&old)
    }

    /// Groups that no frontend names: what an agent left that died in the middle of a change.
    pub fn remove_orphans(&mut self) -> Result<(), TableError> {
        let named: HashSet<u32> = self
            .frontends
            .contents
            .values()
            .map(|frontend| frontend.group)
            .collect();
        let orphans: Vec<EndpointKey> = self
            .endpoints
            .contents
            .keys()
            .filter(|key| !named.contains(&key.group))
            .copied()
            .collect();
        orphans
            .iter()
            .try_for_each(|key| self.endpoints.remove(key))
    }
}

/// The spelling of a verdict.
pub fn verdict_name(verdict: u32) -> &'static str {
    match verdict {
        v if v == Verdict::Direct as u32 => "direct",
        v if v == Verdict::Agent as u32 => "agent",
        v if v == Verdict::Deny as u32 => "deny",
        _ => "pass",
    }
}
