//! What the kernel counted, read so that nothing is counted twice and nothing is lost; and the agent's own
//! part of it.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::Hash,
    io,
    sync::atomic::Ordering,
};

use aya::{
    Pod,
    maps::{HashMap as BpfMap, MapData, MapError},
};
use mesh_common::{
    access::{DenialKey, Place},
    failure::FailureKey,
    names::{self, NameKind},
    traffic::{Traffic, TrafficKey},
};

use super::{Kernel, locked};
use crate::kernel::{
    connections::{self, open::Open},
    events::EventReader,
    maps, tables,
};

/// How often the maps are read again where connections closed meanwhile.
const READINGS: usize = 4;

/// What is known of a pair of workloads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// Totals since the maps exist, the bytes of open connections included.
    pub total: Traffic,
    /// Of what is open now.
    pub open: Open,
}

/// A connection, or a request, that the agent itself refused by policy.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OwnDenial {
    /// The client, `namespace/pod`.
    pub source: String,
    /// The server, `namespace/pod`.
    pub destination: String,
    /// Who refused it, as the names map has it.
    pub policy: String,
}

/// The agent's denials on their way to the map.
#[derive(Debug, Default)]
pub(super) struct OwnDenials {
    known: HashMap<OwnDenial, DenialKey>,
    waiting: HashMap<OwnDenial, u64>,
}

impl Kernel {
    /// Totals by pair of workloads, and what is open of them.
    ///
    /// A connection that closes while this reads moves from the live ones to the totals. So the totals are
    /// read before and after: where they differ, the pair is read again. A pair that never rests is then
    /// short of what closed during the last reading, until the next one; none is counted twice.
    pub fn traffic(&self) -> io::Result<HashMap<TrafficKey, Counted>> {
        let map = self.open_map::<TrafficKey, Traffic>(names::TRAFFIC)?;
        let mut counted: HashMap<TrafficKey, Counted> = HashMap::new();
        let mut before = read_all(&map)?;
        for reading in 1..=READINGS {
            let open = connections::open::of(&connections::read(&self.pins.connections())?);
            let after = read_all(&map)?;
            let mut again = false;
            for key in after.keys().chain(open.keys()) {
                if counted.contains_key(key) {
                    continue;
                }
                if before.get(key) != after.get(key) && reading < READINGS {
                    again = true;
                    continue;
                }
                let closed = before.get(key).copied().unwrap_or_default();
                let open = open.get(key).copied().unwrap_or_default();
                let total = open.added_to(closed);
                counted.insert(*key, Counted { total, open });
            }
            if !again {
                break;
            }
            before = after;
        }
        Ok(counted)
    }

    /// How often which policy refused whom.
    pub fn denials(&self) -> io::Result<Vec<(DenialKey, u64)>> {
        self.write_own_denials();
        let map = self.open_map::<DenialKey, u64>(names::DENIALS)?;
        Ok(read_all(&map)?.into_iter().collect())
    }

    /// How often whose connects to whom failed, and why.
    pub fn failures(&self) -> io::Result<Vec<(FailureKey, u64)>> {
        let map = self.open_map::<FailureKey, u64>(names::FAILURES)?;
        Ok(read_all(&map)?.into_iter().collect())
    }

    /// The programs' event counters.
    pub fn events(&self) -> io::Result<Vec<(&'static str, u64)>> {
        maps::events(&self.pins.map(names::EVENTS)).map_err(io::Error::other)
    }

    /// What servers' ends had redirected when they closed, by their clients' cookies.
    pub(super) fn finished(&self) -> io::Result<BpfMap<MapData, u64, u64>> {
        self.open_map(names::FINISHED)
    }

    /// The ring of events. There must be one reader at a time.
    pub fn event_reader(&self) -> io::Result<EventReader> {
        EventReader::open(&self.pins.map(names::EVENT_RING))
    }

    /// Which events the programs are to write: bits of [`mesh_common::event::follow`].
    pub fn follow(&self, bits: u32) -> io::Result<()> {
        let mut map = locked(&self.settings);
        self.followed.store(bits, Ordering::Relaxed);
        let mut settings = map.get(&0, 0).map_err(io::Error::other)?;
        settings.events = bits;
        map.set(0, settings, 0).map_err(io::Error::other)
    }

    /// Counts a refusal by the agent beside the programs'. Never waits for who writes a configuration: then the
    /// count reaches the map with the next one, or when it is read.
    pub fn count_own_denial(&self, denial: OwnDenial) {
        *locked(&self.own_denials).waiting.entry(denial).or_default() += 1;
        self.write_own_denials();
    }

    fn write_own_denials(&self) {
        let OwnDenials { known, waiting } = &mut *locked(&self.own_denials);
        if waiting.is_empty() {
            return;
        }
        let Ok(mut map) = self.open_map::<DenialKey, u64>(names::DENIALS) else {
            return;
        };
        waiting.retain(|denial, count| {
            let key = match known.entry(denial.clone()) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(slot) => match self.own_denial_key(denial) {
                    Some(key) => *slot.insert(key),
                    None => return true,
                },
            };
            // Nobody else writes keys of this place.
            let total = match map.get(&key, 0) {
                Ok(total) => total,
                Err(MapError::KeyNotFound) => 0,
                Err(_) => return true,
            };
            map.insert(key, total + *count, 0).is_err()
        });
    }

    /// None while a configuration is written.
    fn own_denial_key(&self, denial: &OwnDenial) -> Option<DenialKey> {
        let mut policy = self.policy.try_lock().ok()?;
        let (tables, ids) = &mut *policy;
        let key = DenialKey {
            source: ids.id(NameKind::Workload, &denial.source),
            destination: ids.id(NameKind::Workload, &denial.destination),
            policy: ids.id(NameKind::Policy, &denial.policy),
            place: Place::Agent as u32,
        };
        // One that does not fit shows as `unknown`, as any would.
        let _ = tables.write_names(ids);
        Some(key)
    }

    fn open_map<K: Pod, V: Pod>(&self, name: &'static str) -> io::Result<BpfMap<MapData, K, V>> {
        tables::open(name, &self.pins.map(name)).map_err(io::Error::other)
    }
}

fn read_all<K: Pod + Hash + Eq, V: Pod>(map: &BpfMap<MapData, K, V>) -> io::Result<HashMap<K, V>> {
    map.iter()
        .map(|entry| entry.map_err(io::Error::other))
        .collect()
}
