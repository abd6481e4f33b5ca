//! Writes the compiled sets. A set never changes: another content gets another number, the pod is then
//! pointed at it in one update, and the old set goes with the next change, when no program can be in the
//! middle of it any more.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    mem,
    sync::Arc,
};

use aya::maps::{LpmTrie, Map, MapData, MapError, lpm_trie::Key};
use mesh_common::{
    IpBe, PortBe,
    access::{Access, NOBODY, PortAccess, PortKey, SET_BITS, SourceAccess, SourceKey},
    names,
    settings::guards,
};

use super::{
    access::{Set, Verdict},
    loader::PinDir,
    tables::{Table, TableError, failed},
};

/// What holds for a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodAccess {
    /// Its number in the names map.
    pub workload: u32,
    /// Who may connect.
    pub set: Arc<Set>,
}

type SourcesMap = LpmTrie<MapData, SourceKey, SourceAccess>;

/// The keys of a set that is in the maps.
#[derive(Default)]
struct Written {
    sources: Vec<(u32, SourceKey)>,
    ports: Vec<PortKey>,
}

/// The three maps that say who may connect.
pub struct AccessMaps {
    access: Table<u64, Access>,
    sources: SourcesMap,
    ports: Table<PortKey, PortAccess>,
    /// Sets in force by their content.
    numbers: HashMap<Arc<Set>, u32>,
    written: HashMap<u32, Written>,
    retired: Vec<u32>,
    next: u32,
    changed: Vec<u64>,
    /// Pods that found no room in `access`.
    unlisted: HashSet<u64>,
}

impl AccessMaps {
    /// Opens the pins; what an earlier agent left stays in force until it is replaced.
    pub fn open(pins: &PinDir) -> Result<Self, TableError> {
        let name = names::ACCESS_SOURCES;
        let sources: SourcesMap = MapData::from_pin(pins.map(name))
            .and_then(Map::from_map_data)
            .and_then(TryInto::try_into)
            .map_err(failed(name, "opening the pin"))?;
        let ports: Table<PortKey, PortAccess> = Table::open(names::ACCESS_PORTS, pins)?;
        let mut written: HashMap<u32, Written> = HashMap::new();
        for key in sources.keys() {
            let key = key.map_err(failed(name, "reading"))?;
            let (length, data) = (key.prefix_len(), key.data());
            let set = written.entry(data.set).or_default();
            set.sources.push((length, data));
        }
        for key in ports.keys() {
            written.entry(key.set).or_default().ports.push(*key);
        }
        Ok(Self {
            access: Table::open(names::ACCESS, pins)?,
            sources,
            ports,
            numbers: HashMap::new(),
            next: written.keys().max().map_or(1, |last| last + 1),
            retired: written.keys().copied().collect(),
            written,
            changed: Vec::new(),
            unlisted: HashSet::new(),
        })
    }

    /// Brings the maps to `wanted`, by namespace cookie. Where a set does not fit, its pods refuse everybody:
    /// a policy that is not in force must not look like none. The first error is returned.
    pub fn apply(&mut self, wanted: &HashMap<u64, PodAccess>) -> Result<(), TableError> {
        let mut results = Vec::new();
        let before = mem::take(&mut self.numbers);
        // Sets that were left at the change before this one, unless they are what pods still point at.
        for number in mem::take(&mut self.retired) {
            if self.access.values().any(|access| access.set == number) {
                self.retired.push(number);
            } else {
                results.push(self.remove(number));
            }
        }
        for pod in wanted.values() {
            if self.numbers.contains_key(&pod.set) {
                continue;
            }
            let number = match before.get(&pod.set) {
                Some(number) => *number,
                None => self.write(&pod.set).unwrap_or_else(|error| {
                    results.push(Err(error));
                    NOBODY
                }),
            };
            self.numbers.insert(Arc::clone(&pod.set), number);
        }
        // First who goes: there may be room for who comes then.
        results.push(self.access.retain(|netns| wanted.contains_key(netns)));
        self.unlisted.clear();
        for (netns, pod) in wanted {
            let access = Access {
                set: self.numbers.get(&pod.set).copied().unwrap_or(NOBODY),
                workload: pod.workload,
            };
            if self.access.get(netns).map(|access| access.set) != Some(access.set) {
                self.changed.push(*netns);
            }
            let inserted = self.access.insert(*netns, access);
            if inserted.is_err() && self.access.get(netns).is_none() {
                self.unlisted.insert(*netns);
            }
            results.push(inserted);
        }
        self.retire_unused();
        // A set that did not fit is tried again at the next change.
        self.numbers.retain(|_, number| *number != NOBODY);
        results.into_iter().collect()
    }

    /// Bits of [`mesh_common::settings::guards`]: whether there are policies, and whether pods that have some
    /// found no room.
    pub fn guards(&self) -> u32 {
        let any = self.access.keys().next().is_some() || !self.unlisted.is_empty();
        let overflow = !self.unlisted.is_empty();
        (u32::from(any) * guards::ANY) | (u32::from(overflow) * guards::OVERFLOW)
    }

    /// The pods whose access changed since this was asked last, by namespace cookie.
    pub fn take_changed(&mut self) -> Vec<u64> {
        mem::take(&mut self.changed)
    }

    /// What holds for a pod, by its namespace's cookie; None: whoever wants may connect.
    pub fn set_of(&self, netns: u64) -> Option<Arc<Set>> {
        if self.unlisted.contains(&netns) {
            return Some(Arc::default());
        }
        let access = self.access.get(&netns)?;
        let known = self
            .numbers
            .iter()
            .find(|(_, number)| **number == access.set)
            .map(|(set, _)| Arc::clone(set));
        // Too large for the maps: an empty set refuses everybody, too.
        Some(known.unwrap_or_default())
    }

    fn retire_unused(&mut self) {
        let in_force: Vec<u32> = self.numbers.values().copied().collect();
        self.retired = self
            .written
            .keys()
            .copied()
            .filter(|number| !in_force.contains(number))
            .collect();
    }

    fn write(&mut self, set: &Set) -> Result<u32, TableError> {
        let number = self.next;
        self.next += 1;
        self.written.insert(number, Written::default());
        let written = self.try_write(number, set);
        if let Err(error) = written {
            self.remove(number)?;
            return Err(error);
        }
        Ok(number)
    }

    fn try_write(&mut self, number: u32, set: &Set) -> Result<(), TableError> {
        let mut tables: HashMap<&BTreeMap<u16, Verdict>, u32> = HashMap::new();
        for (block, source) in &set.sources {
            let fresh = tables.len() as u32 + 1;
            let table = if source.ports.is_empty() {
                0
            } else {
                *tables.entry(&source.ports).or_insert(fresh)
            };
            if table == fresh {
                for (port, verdict) in &source.ports {
                    self.write_port(number, table, *port, *verdict)?;
                }
            }
            let key = SourceKey {
                set: number,
                address: IpBe::from_octets(block.octets()),
            };
            let length = SET_BITS + u32::from(block.length());
            let value = SourceAccess {
                denied: u32::from(source.others.denied),
                policy: source.others.policy,
                ports: table,
            };
            self.sources
                .insert(&Key::new(length, key), value, 0)
                .map_err(failed(names::ACCESS_SOURCES, "writing"))?;
            let written = self.written.entry(number).or_default();
            written.sources.push((length, key));
        }
        Ok(())
    }

    fn write_port(
        &mut self,
        set: u32,
        table: u32,
        port: u16,
        verdict: Verdict,
    ) -> Result<(), TableError> {
        let key = PortKey {
            set,
            table,
            port: PortBe::new(port),
            reserved: 0,
        };
        let value = PortAccess {
            denied: u32::from(verdict.denied),
            policy: verdict.policy,
        };
        self.ports.insert(key, value)?;
        self.written.entry(set).or_default().ports.push(key);
        Ok(())
    }

    fn remove(&mut self, number: u32) -> Result<(), TableError> {
        let Some(written) = self.written.remove(&number) else {
            return Ok(());
        };
        for (length, key) in written.sources {
            match self.sources.remove(&Key::new(length, key)) {
                Ok(()) | Err(MapError::KeyNotFound | MapError::ElementNotFound) => {}
                Err(MapError::SyscallError(error))
                    if error.io_error.raw_os_error() == Some(libc::ENOENT) => {}
                Err(error) => return Err(failed(names::ACCESS_SOURCES, "removing")(error)),
            }
        }
        written
            .ports
            .iter()
            .try_for_each(|key| self.ports.remove(key))
    }
}
