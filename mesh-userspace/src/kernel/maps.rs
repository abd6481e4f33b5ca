//! The pinned maps, read from bpffs: typed, with or without an agent.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
    path::{Path, PathBuf},
};

use aya::maps::{
    Array, Map, MapData, MapError, MapFd, MapInfo as KernelInfo, MapType, PerCpuArray,
};
use mesh_common::{access::Place, connection::Peer, names, settings::Settings, traffic::Event};
use serde_json::Value;

use super::{
    connections,
    loader::{MAPS, PinDir},
    tables,
};

mod dump;

/// The maps of one node's agent.
#[derive(Debug)]
pub struct PinnedMaps {
    directory: PathBuf,
}

/// A pinned map.
#[derive(Debug, Clone)]
pub struct MapInfo {
    /// Name of the pin.
    pub name: String,
    /// `hash`, `lru_hash`, `array`…
    pub kind: String,
    /// In bytes.
    pub key_size: u32,
    /// In bytes.
    pub value_size: u32,
    /// Capacity; 0 where memory alone bounds it.
    pub max_entries: u32,
    /// Entries now.
    pub entries: u64,
    /// Bytes that the kernel holds for it, without what lies in the sockets themselves.
    pub memory: u64,
    /// The pin.
    pub path: PathBuf,
}

/// Why maps could not be read.
#[derive(Debug, thiserror::Error)]
pub enum MapsError {
    /// No agent has pinned anything, or not this one.
    #[error("nothing is pinned at {}: no agent has run with this --bpffs and --node-name", .0.display())]
    NothingPinned(PathBuf),
    /// Several agents have, and none was named.
    #[error("several nodes are pinned below {}: {}: choose one with --node-name", .directory.display(), .nodes.join(", "))]
    SeveralNodes {
        /// Below which.
        directory: PathBuf,
        /// Their names.
        nodes: Vec<String>,
    },
    /// The map is not there.
    #[error("no map {name} below {}: `meshctl maps list` shows those there are", .directory.display())]
    UnknownMap {
        /// As asked.
        name: String,
        /// Where it was looked for.
        directory: PathBuf,
    },
    /// A folder or pin could not be read.
    #[error("reading {}: {source}", .path.display())]
    Read {
        /// What.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// What kind of failure a [`MapsError`] is, for the exit status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MapsFailure {
    /// There is no agent's layout.
    NothingPinned,
    /// The name or key that was given makes no sense.
    WrongUsage,
    /// Needs a privilege.
    NoPermission,
    /// Anything else.
    Other,
}

impl MapsError {
    /// What kind of failure it is.
    pub fn failure(&self) -> MapsFailure {
        match self {
            Self::NothingPinned(_) => MapsFailure::NothingPinned,
            Self::SeveralNodes { .. } | Self::UnknownMap { .. } => MapsFailure::WrongUsage,
            Self::Read { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                MapsFailure::NoPermission
            }
            Self::Read { .. } => MapsFailure::Other,
        }
    }
}

/// Finds the maps below `bpffs/zerohop/v<LAYOUT>/`: of the node named, else of the only one there is.
pub fn open(bpffs: &Path, node: Option<&str>) -> Result<PinnedMaps, MapsError> {
    let root = PinDir::new(bpffs, "");
    let mut found = folders(root.path())?;
    let name = |path: &PathBuf| {
        path.file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default()
    };
    if let Some(node) = node {
        found.retain(|path| name(path) == node);
    }
    match found.as_slice() {
        [] => Err(MapsError::NothingPinned(root.path().to_owned())),
        [only] => Ok(PinnedMaps {
            directory: only.clone(),
        }),
        several => Err(MapsError::SeveralNodes {
            directory: root.path().to_owned(),
            nodes: several.iter().map(name).collect(),
        }),
    }
}

/// Sub-folders; none where the folder itself is missing.
fn folders(of: &Path) -> Result<Vec<PathBuf>, MapsError> {
    let failed = |source| MapsError::Read {
        path: of.to_owned(),
        source,
    };
    let entries = match of.read_dir() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(failed)?,
    };
    let mut folders = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        if entry.file_type().map_err(failed)?.is_dir() {
            folders.push(entry.path());
        }
    }
    folders.sort();
    Ok(folders)
}

type Entries = Vec<(Value, Value)>;

impl PinnedMaps {
    /// All of them, by name.
    pub fn list(&self) -> Result<Vec<MapInfo>, MapsError> {
        let mut names = MAPS;
        names.sort_unstable();
        names.into_iter().map(|name| self.info(name)).collect()
    }

    fn pin(&self, name: &str) -> PathBuf {
        self.directory.join("maps").join(name)
    }

    /// How many entries there are. Those that grow with open connections are counted without reading what
    /// they say: 100,000 connections have 200,000.
    fn count(&self, name: &str) -> Result<u64, MapsError> {
        let path = self.pin(name);
        let count = match name {
            names::CONNECTIONS => {
                let path = self.directory.join("connections");
                let records = connections::read(&path).map_err(unreadable(&path))?;
                records.len()
            }
            names::PEERS => {
                let peers = tables::open::<u64, Peer>(names::PEERS, &path);
                peers.map_err(unreadable(&path))?.keys().count()
            }
            _ => self.dump(name)?.len(),
        };
        Ok(count as u64)
    }

    fn info(&self, name: &str) -> Result<MapInfo, MapsError> {
        let path = self.pin(name);
        let info = KernelInfo::from_pin(&path).map_err(unreadable(&path))?;
        let kind = info.map_type().ok();
        let entries = match kind {
            Some(MapType::Array | MapType::PerCpuArray) => u64::from(info.max_entries()),
            Some(MapType::SockHash | MapType::RingBuf) => 0,
            _ => self.count(name)?,
        };
        Ok(MapInfo {
            name: name.to_owned(),
            kind: kind.map_or_else(|| "unknown".into(), |kind| spelled(&format!("{kind:?}"))),
            key_size: info.key_size(),
            value_size: info.value_size(),
            max_entries: info.max_entries(),
            entries,
            memory: info
                .fd()
                .map_err(unreadable(&path))
                .and_then(|fd| memory(&fd).map_err(unreadable(&path)))?,
            path,
        })
    }
}

/// Bytes that a map holds: `memlock` in proc(5), fdinfo.
fn memory(map: &MapFd) -> io::Result<u64> {
    let path = format!("/proc/self/fdinfo/{}", map.as_fd().as_raw_fd());
    let text = std::fs::read_to_string(path)?;
    let field = text
        .lines()
        .find_map(|line| line.strip_prefix("memlock:"))
        .and_then(|bytes| bytes.trim().parse().ok());
    field.ok_or_else(|| io::Error::other("no `memlock` in the map's fdinfo"))
}

/// The spelling of a [`Place`].
pub fn place_name(place: u32) -> &'static str {
    match place {
        place if place == Place::Connect as u32 => "connect",
        place if place == Place::Agent as u32 => "agent",
        _ => "syn",
    }
}

/// The settings map.
pub(super) fn open_settings(pin: &Path) -> Result<Array<MapData, Settings>, MapError> {
    Map::from_map_data(MapData::from_pin(pin)?)?.try_into()
}

/// The programs' event counters, summed over the CPUs.
pub(super) fn events(pin: &Path) -> Result<Vec<(&'static str, u64)>, MapError> {
    let map: PerCpuArray<MapData, u64> = Map::from_map_data(MapData::from_pin(pin)?)?.try_into()?;
    Event::ALL
        .iter()
        .map(|(event, name)| Ok((*name, map.get(&(*event as u32), 0)?.iter().sum())))
        .collect()
}

fn unreadable<E: std::error::Error + Send + Sync + 'static>(
    path: &Path,
) -> impl FnOnce(E) -> MapsError {
    let path = path.to_owned();
    move |error| MapsError::Read {
        path,
        source: io_cause(error),
    }
}

/// The system call's own error where there is one: it says whether a privilege is missing.
fn io_cause<E: std::error::Error + Send + Sync + 'static>(error: E) -> io::Error {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(current) = cause {
        if let Some(io) = current.downcast_ref::<io::Error>()
            && let Some(code) = io.raw_os_error()
        {
            return io::Error::from_raw_os_error(code);
        }
        cause = current.source();
    }
    io::Error::other(error)
}

/// `PerCpuArray` as the kernel's documentation spells it: `per_cpu_array`.
fn spelled(variant: &str) -> String {
    let mut spelled = String::new();
    for c in variant.chars() {
        if c.is_ascii_uppercase() && !spelled.is_empty() {
            spelled.push('_');
        }
        spelled.push(c.to_ascii_lowercase());
    }
    spelled
}
