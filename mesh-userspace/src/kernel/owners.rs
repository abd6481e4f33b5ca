//! Other tools' programs that share hooks or sockets with this one's: found by what the kernel lists, and
//! named, so that nobody has to guess.

use std::{
    collections::HashSet,
    fmt,
    fs::{self, File},
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use aya::{
    maps::{MapInfo, MapType, loaded_maps},
    programs::loaded_programs,
};
use aya_obj::generated::bpf_attach_type;
use mesh_common::names;
use serde::{Deserialize, Serialize};

use super::sys;

/// Hooks of a socket map.
const ON_SOCKET_MAPS: [bpf_attach_type; 4] = [
    bpf_attach_type::BPF_SK_MSG_VERDICT,
    bpf_attach_type::BPF_SK_SKB_STREAM_VERDICT,
    bpf_attach_type::BPF_SK_SKB_STREAM_PARSER,
    bpf_attach_type::BPF_SK_SKB_VERDICT,
];

/// An object of the kernel's, as bpftool names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Its number.
    pub id: u32,
    /// Its name; the kernel keeps 15 bytes of it.
    pub name: String,
    /// Processes that hold a descriptor of it: `envoy (4711)`. None where it is only pinned or attached.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub processes: Vec<String>,
}

/// A socket map with programs on it: a socket can be in one such map only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketMap {
    /// The map.
    #[serde(flatten)]
    pub map: Owner,
    /// What is attached to it.
    pub programs: Vec<Owner>,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (id {}", self.name, self.id)?;
        if !self.processes.is_empty() {
            write!(f, ", held by {}", self.processes.join(", "))?;
        }
        f.write_str(")")
    }
}

impl fmt::Display for SocketMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let programs: Vec<String> = self.programs.iter().map(Owner::to_string).collect();
        write!(
            f,
            "socket map {} with program {}",
            self.map,
            programs.join(", ")
        )
    }
}

/// Socket maps of others that have programs on them. `bpffs`: where agents of this kind pin theirs, whose
/// maps are not others'.
pub fn socket_maps(bpffs: &Path) -> Vec<SocketMap> {
    let own = own_maps(bpffs);
    loaded_maps()
        .filter_map(Result::ok)
        .filter(|map| matches!(map.map_type(), Ok(MapType::SockMap | MapType::SockHash)))
        .filter(|map| !own.contains(&map.id()))
        .filter_map(|map| {
            let fd = map.fd().ok()?;
            let mut programs: Vec<u32> = ON_SOCKET_MAPS
                .iter()
                .filter_map(|hook| sys::attached_programs(fd.as_fd(), *hook).ok())
                .flat_map(|(programs, _)| programs)
                .collect();
            programs.sort_unstable();
            programs.dedup();
            if programs.is_empty() {
                return None;
            }
            Some(SocketMap {
                map: Owner {
                    id: map.id(),
                    name: name_of(map.name_as_str()),
                    processes: holders("map_id:", map.id()),
                },
                programs: programs.into_iter().map(program).collect(),
            })
        })
        .collect()
}

/// The program that takes no other beside it at a hook of this cgroup or one above it, and which cgroup it
/// is attached to.
pub(super) fn exclusive(cgroup: &Path, hook: bpf_attach_type) -> Option<(String, Owner)> {
    const BPF_F_ALLOW_MULTI: u32 = 2;
    cgroup
        .ancestors()
        .take_while(|folder| sys::is_cgroup2(folder).unwrap_or(false))
        .find_map(|folder| {
            let file = File::open(folder).ok()?;
            let (programs, flags) = sys::attached_programs(file.as_fd(), hook).ok()?;
            let first = *programs.first()?;
            (flags & BPF_F_ALLOW_MULTI == 0).then(|| (folder.display().to_string(), program(first)))
        })
}

fn program(id: u32) -> Owner {
    let info = loaded_programs()
        .filter_map(Result::ok)
        .find(|program| program.id() == id);
    Owner {
        id,
        name: name_of(info.as_ref().and_then(|info| info.name_as_str())),
        processes: holders("prog_id:", id),
    }
}

fn name_of(name: Option<&str>) -> String {
    match name {
        Some(name) if !name.is_empty() => name.to_owned(),
        _ => "without a name".into(),
    }
}

/// The socket maps that agents have pinned, of any layout and node.
fn own_maps(bpffs: &Path) -> HashSet<u32> {
    let folders = |of: PathBuf| fs::read_dir(of).into_iter().flatten().flatten();
    folders(bpffs.join("zerohop"))
        .flat_map(|layout| folders(layout.path()))
        .filter_map(|node| MapInfo::from_pin(node.path().join("maps").join(names::SOCKETS)).ok())
        .map(|map| map.id())
        .collect()
}

/// Processes with a descriptor whose /proc entry has this line, as `name (pid)`.
fn holders(field: &str, id: u32) -> Vec<String> {
    let entries = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten();
    let mut found: Vec<String> = entries(Path::new("/proc"))
        .filter(|process| {
            let name = process.file_name();
            name.as_encoded_bytes().iter().all(u8::is_ascii_digit)
        })
        .filter(|process| {
            entries(&process.path().join("fd"))
                // Cheap: only descriptors of BPF objects are looked into.
                .filter(|descriptor| {
                    fs::read_link(descriptor.path())
                        .is_ok_and(|target| target.to_string_lossy().starts_with("anon_inode:bpf"))
                })
                .any(|descriptor| {
                    let info = process.path().join("fdinfo").join(descriptor.file_name());
                    has_line(&fs::read_to_string(info).unwrap_or_default(), field, id)
                })
        })
        .map(|process| {
            let comm = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            let pid = process.file_name();
            format!("{} ({})", comm.trim_end(), pid.to_string_lossy())
        })
        .collect();
    found.sort();
    found
}

fn has_line(info: &str, field: &str, id: u32) -> bool {
    info.lines()
        .filter_map(|line| line.strip_prefix(field))
        .any(|value| value.trim().parse() == Ok(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_fdinfo_is_taken_by_its_whole_value() {
        let info = "pos:\t0\nmap_type:\t18\nmap_id:\t417\n";
        assert!(has_line(info, "map_id:", 417));
        assert!(!has_line(info, "map_id:", 41) && !has_line(info, "prog_id:", 417));
    }

    #[test]
    fn an_owner_is_named_so_that_bpftool_finds_it() {
        let owner = |id, name: &str, processes: &[&str]| Owner {
            id,
            name: name.into(),
            processes: processes.iter().map(|&name| name.into()).collect(),
        };
        let map = SocketMap {
            map: owner(7, "their_socks", &["envoy (42)"]),
            programs: vec![owner(9, "their_verdict", &[])],
        };
        assert_eq!(
            map.to_string(),
            "socket map their_socks (id 7, held by envoy (42)) with program their_verdict (id 9)"
        );
    }
}
