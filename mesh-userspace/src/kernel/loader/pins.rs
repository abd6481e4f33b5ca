//! Where a node's pins are, and whether what is there was made by this version.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use aya::maps::MapInfo;
use mesh_common::{LAYOUT, names};

use super::{LoadError, OBJECT, classify};

/// Where a node's pins are.
#[derive(Debug, Clone)]
pub struct PinDir(PathBuf);

impl PinDir {
    /// `DIR/zerohop/v<LAYOUT>/<node>`.
    pub fn new(bpffs: &Path, node: &str) -> Self {
        Self::of_layout(bpffs, &own_layout(), node)
    }

    /// The same below another layout's folder.
    pub fn of_layout(bpffs: &Path, layout: &str, node: &str) -> Self {
        Self(bpffs.join("zerohop").join(layout).join(node))
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A map's pin.
    pub fn map(&self, name: &str) -> PathBuf {
        self.0.join("maps").join(name)
    }

    /// A link's pin.
    pub fn link(&self, name: &str) -> PathBuf {
        self.0.join("links").join(name)
    }

    /// The pinned iterator: reading it lists the live connections.
    pub fn connections(&self) -> PathBuf {
        self.0.join("connections")
    }

    /// The pinned iterator of the UDP sockets that talk to services.
    pub fn exchanges(&self) -> PathBuf {
        self.0.join("exchanges")
    }

    /// The same node's folders that agents with other layouts made.
    pub fn others(&self) -> Vec<Self> {
        let mut ancestors = self.0.ancestors().skip(1);
        let (Some(own), Some(zerohop), Some(node)) =
            (ancestors.next(), ancestors.next(), self.0.file_name())
        else {
            return Vec::new();
        };
        layouts(zerohop)
            .into_iter()
            .filter(|layout| layout != own)
            .map(|layout| Self(layout.join(node)))
            .filter(|folder| folder.0.is_dir())
            .collect()
    }
}

/// The folder of this version's layout: `v2`.
pub fn own_layout() -> String {
    format!("v{LAYOUT}")
}

/// Every layout's folder in `zerohop`.
fn layouts(zerohop: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(zerohop).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries
        .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b"v"))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

/// Every folder of a node, of any layout.
pub fn of_node(bpffs: &Path, node: &str) -> Vec<PinDir> {
    layouts(&bpffs.join("zerohop"))
        .into_iter()
        .map(|layout| PinDir(layout.join(node)))
        .filter(|folder| folder.0.is_dir())
        .collect()
}

/// Every map that is pinned.
pub const MAPS: [&str; 33] = [
    names::WORKLOADS,
    names::CGROUP_PODS,
    names::FRONTENDS,
    names::ENDPOINTS,
    names::LOCAL_PODS,
    names::EXCLUDED_PORTS,
    names::EXECUTABLES,
    names::ACCESS,
    names::ACCESS_SOURCES,
    names::ACCESS_PORTS,
    names::ANNOUNCED,
    names::DENIALS,
    names::FAILURES,
    names::CONNECTIONS,
    names::EXCHANGES,
    names::SOCKETS,
    names::HANDSHAKES,
    names::PEERS,
    names::LISTENERS,
    names::ORIGINS,
    names::NAMESERVERS,
    names::TRAFFIC,
    names::EVENTS,
    names::EVENT_RING,
    names::FINISHED,
    names::SETTINGS,
    names::AFFINITY,
    names::TURNS,
    names::LOADS,
    names::SERVED,
    names::UNSEEN,
    names::LISTENING,
    names::NAMES,
];

/// aya reopens a pinned map without looking at it: compare every one that is there with what the object
/// says, before anything is made or changed.
pub(super) fn verify(pins: &PinDir, capacities: &[(String, u32)]) -> Result<(), LoadError> {
    let object =
        aya_obj::Object::parse(OBJECT).map_err(|error| classify("reading the object", &error))?;
    for name in MAPS {
        let path = pins.map(name);
        match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(LoadError::file("looking at", &path)(error)),
            Ok(_) => {}
        }
        let Some(wanted) = object.maps.get(name) else {
            continue;
        };
        let foreign = |problem: String| LoadError::ForeignPin {
            path: path.clone(),
            problem,
        };
        let info = MapInfo::from_pin(&path).map_err(|error| match classify("", &error) {
            LoadError::Privilege { source, .. } => LoadError::file("opening", &path)(source),
            _ => foreign("not a map".into()),
        })?;
        let kind = info.map_type().map_or(u32::MAX, |kind| kind as u32);
        let found = (kind, info.key_size(), info.value_size(), info.max_entries());
        let entries = capacities.iter().find(|(map, _)| map == name);
        let expected = (
            wanted.map_type(),
            wanted.key_size(),
            wanted.value_size(),
            entries.map_or(wanted.max_entries(), |(_, entries)| *entries),
        );
        if found != expected {
            return Err(foreign(format!(
                "type, key, value, entries are {found:?}, this version has {expected:?}"
            )));
        }
    }
    Ok(())
}
